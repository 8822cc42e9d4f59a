//! The META members that filters ask for: a container keeps them in its records whatever their size.
//!
//! Owns: the list, which is derived and never saved. Main thread only.

use hashbrown::HashSet;
use std::collections::VecDeque;

use super::Filter;
use crate::limits;

/// Names that filters asked for and records did not hold, the latest at the back.
#[derive(Debug, Default)]
pub struct Asked(VecDeque<Box<[u8]>>);

impl Asked {
    /// Notes what a filter asks for, because some record did not hold it.
    pub fn note(&mut self, filter: &Filter) {
        for name in filter.heads() {
            if let Some(at) = self.0.iter().position(|other| **other == *name) {
                let again = self.0.remove(at);
                self.0.extend(again);
                continue;
            }
            if self.0.len() == limits::FILTER_ASKED_MAX {
                self.0.pop_front();
            }
            self.0.push_back(name.into());
        }
    }

    /// The names.
    pub fn names(&self) -> HashSet<&[u8]> {
        self.0.iter().map(AsRef::as_ref).collect()
    }
}
