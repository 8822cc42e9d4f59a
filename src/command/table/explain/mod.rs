//! What each argument means, in a sentence with its unit, its default and its limit.
//!
//! Owns: these sentences. `COMMAND DOCS` and the pages of `docs/commands/` tell them, and a test refuses an argument
//! without one. An option that means the same everywhere is explained once, a family or a command may say it
//! otherwise: the narrowest wins.

mod embcache;
mod everywhere;
mod kvchunk;
mod llmcache;
mod rag;
mod session;

use crate::ffi::command::Arg;

/// Command, family or nothing; label; sentence.
type Sentence = (&'static str, &'static str, &'static str);

const SENTENCES: [&[Sentence]; 6] = [
    everywhere::SENTENCES,
    llmcache::SENTENCES,
    rag::SENTENCES,
    embcache::SENTENCES,
    session::SENTENCES,
    kvchunk::SENTENCES,
];

fn sentences() -> impl Iterator<Item = &'static Sentence> {
    SENTENCES.into_iter().flatten()
}

/// What an argument is known by: the word before it, or its name where there is none.
pub const fn label(arg: &Arg) -> &'static str {
    if arg.token.is_empty() { arg.name } else { arg.token }
}

/// The sentence for an argument of a command; empty where nobody wrote one.
pub fn explain(command: &str, arg: &Arg) -> &'static str {
    let family = command.split('.').next().unwrap_or(command);
    let said = |scope: &str| {
        let named = sentences().find(|row| row.0 == scope && row.1 == label(arg));
        named.map(|row| row.2)
    };
    [command, family, ""].iter().find_map(|scope| said(scope)).unwrap_or("")
}

/// Rows that no argument uses: the command, family or nothing that they were written for, and the label.
pub fn unused(used: impl Fn(&str, &str) -> bool) -> Vec<(&'static str, &'static str)> {
    sentences().map(|row| (row.0, row.1)).filter(|row| !used(row.0, row.1)).collect()
}
