//! The command table: one row a command. It drives registration, arity, flags, key specs,
//! `COMMAND DOCS` and the pages of `docs/commands/`, which a test keeps equal to it. A file a family has
//! the rows, `words` the vocabulary they are written in, `explain` a sentence for each argument.

mod cost;
mod embcache;
mod explain;
mod fetch;
mod kvchunk;
mod llmcache;
mod rag;
mod session;
mod words;

use crate::ffi::command::CommandSpec;
pub use cost::{COSTS, Cost, cost_of, judge};
use embcache::EMBCACHE;
pub use explain::{explain, label, unused};
use fetch::FETCH;
use kvchunk::KVCHUNK;
use llmcache::LLMCACHE;
use rag::RAG;
use session::SESSION;

const FAMILIES: [&[CommandSpec]; 6] = [LLMCACHE, FETCH, EMBCACHE, RAG, KVCHUNK, SESSION];

/// Every command of the module.
pub const COMMANDS: &[CommandSpec] = &joined::<{ count_of(&FAMILIES) }>();

const fn count_of(families: &[&[CommandSpec]]) -> usize {
    let (mut all, mut family) = (0, 0);
    while family < families.len() {
        all += families[family].len();
        family += 1;
    }
    all
}

/// The families one after the other.
const fn joined<const ALL: usize>() -> [CommandSpec; ALL] {
    let mut all = [LLMCACHE[0]; ALL];
    let (mut at, mut family, mut row) = (0, 0, 0);
    while at < ALL {
        if row == FAMILIES[family].len() {
            (family, row) = (family + 1, 0);
            continue;
        }
        all[at] = FAMILIES[family][row];
        (at, row) = (at + 1, row + 1);
    }
    all
}
