//! How a server takes the module, with a setting that an operator gives: in the order of steps of `start` in `src/lib.rs`.
//! The server may find fault after that, and then the module is not there any more.

use crate::cures::Cure;
use crate::world::World;
use llmcache_core::ids::MonotonicMs;

/// When the first timer rings that is begun with the module.
const FIRST_TICK_MS: u64 = 100;
const GIVEN: u64 = 5;
const DEFAULT: u64 = 0;

/// A setting, and how it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// By its name.
    Named,
    /// By a name that is none of the module's.
    Misspelt,
    /// As an argument of `loadmodule`.
    Argument,
}

impl World {
    /// A server is started with it, and again without where it does not take the module so.
    pub fn restart_with(&mut self, node: usize, given: Given) {
        self.restart(node);
        if let Some(set) = self.start_module(node, given) {
            assert_eq!(set, GIVEN, "loaded, and what was given is not set");
        }
    }

    /// How it is set then; `None` where the module is not loaded.
    fn start_module(&mut self, node: usize, given: Given) -> Option<u64> {
        if given == Given::Argument {
            return self.is_without(Cure::ArgumentsRead).then_some(DEFAULT);
        }
        if given == Given::Misspelt {
            // The server tells after the module's start, and removes its code.
            if self.is_without(Cure::BeginsOnceTaken) {
                let at = MonotonicMs(self.steady() + FIRST_TICK_MS);
                self.nodes[node].stray_timer = Some(at);
            }
            return None;
        }
        Some(GIVEN)
    }

    /// The event loop calls what was begun, whether or not its code is still there.
    pub fn ring_stray_timers(&self) {
        let now = MonotonicMs(self.steady());
        for node in &self.nodes {
            let rings = node.stray_timer.is_some_and(|at| at.is_past(now));
            assert!(!rings, "a timer rang of a module that the server did not take");
        }
    }
}
