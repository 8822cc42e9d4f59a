//! Selects diverse entries among those found (MMR), a few comparisons at a time.
//!
//! Owns: the vectors that are compared, read from the entries one by one. A choice may go on between other commands: an
//! entry that is no longer there is like none of the others, and whoever answers finds it gone. Main thread only.

use super::open_entry;
use crate::ffi::{Access, Ctx};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Diversity, EntryKey, EntryView};
use llmcache_core::distance::kernels;
use llmcache_core::ids::{Seq, SlotId};
use llmcache_core::vector::normalise::normalise;
use llmcache_core::work::{Steps, count};

/// Products of a comparison that are as good as a step.
const PRODUCTS_PER_STEP: usize = 256;
/// Products of comparisons in one go, about.
const PRODUCTS_AT_ONCE: usize = 1 << 17;
/// Numbers of a vector whose reading is as good as a step.
const NUMBERS_PER_STEP: usize = 24;

/// Names an entry that was found.
pub type Place = (SlotId, Seq);

/// Where an entry is that was found.
pub fn place_of(view: &EntryView<'_>) -> Place {
    (view.slot(), view.seq())
}

/// What an entry that was found is called, for who opens it once more.
pub fn key_of_found(cache: &SharedCache, view: &EntryView<'_>) -> (EntryKey, Place) {
    let place = place_of(view);
    let key = cache.with(|cache| cache.key_at(place.0, place.1));
    (key.unwrap_or_default(), place)
}

/// How alike two vectors of unit length are: what has no vector, or another's, is like none.
pub fn likeness(one: &[f32], other: &[f32]) -> f64 {
    match one.len() == other.len() {
        true => f64::from((kernels().dot_f32)(one, other)),
        false => -1.0,
    }
}

/// A choice that is being made.
#[derive(Debug)]
pub struct Choice {
    found: Vec<(EntryKey, Place)>,
    units: Vec<Vec<f32>>,
    diversity: Diversity,
}

impl Choice {
    /// Among entries in the order of their relevance.
    pub fn new(
        found: Vec<(EntryKey, Place)>,
        relevance: Vec<f64>,
        lambda: f64,
        count: usize,
    ) -> Self {
        let units = Vec::with_capacity(found.len());
        Self { found, units, diversity: Diversity::new(relevance, lambda, count) }
    }

    /// Does a little of it; false when all are chosen.
    pub fn step(&mut self, ctx: Ctx<'_>) -> bool {
        if let Some((key, (slot, seq))) = self.found.get(self.units.len()) {
            let entry = open_entry(ctx, key, Access::Unasked);
            let entry = entry.filter(|entry| entry.view().is_at(*slot, *seq));
            let unit = entry.map(|entry| unit(&entry.view())).unwrap_or_default();
            let rows = 1 + unit.len() / NUMBERS_PER_STEP;
            count(Steps { rows: rows as u64, ..Steps::NONE });
            self.units.push(unit);
            return true;
        }
        let mut products = 0;
        while products < PRODUCTS_AT_ONCE {
            let Some((one, other)) = self.diversity.pair() else { return false };
            let (one, other) = (&self.units[one], &self.units[other]);
            products += one.len() + PRODUCTS_PER_STEP;
            self.diversity.tell(likeness(one, other));
        }
        count(Steps { rows: (products / PRODUCTS_PER_STEP) as u64, ..Steps::NONE });
        true
    }

    /// Those chosen, in their order.
    pub fn into_picks(self) -> Vec<Place> {
        let Self { found, diversity, .. } = self;
        diversity.into_picks().into_iter().map(|place| found[place].1).collect()
    }
}

/// The stored vector at unit length.
pub fn unit(view: &EntryView<'_>) -> Vec<f32> {
    let numbers = view.vector().map(|vector| vector.to_f32());
    numbers.and_then(|numbers| normalise(&numbers).ok()).unwrap_or_default()
}
