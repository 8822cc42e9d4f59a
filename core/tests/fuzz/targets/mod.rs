//! What is attacked: a table of targets. A target takes any bytes; it returns whether they were accepted, and panics
//! where what was accepted breaks a promise. Also compiled into the program of `core/fuzz`.

mod cache;
mod chunks;
mod index;
mod models;
mod session;
mod texts;

use crate::sections::reseal;
use std::path::Path;

/// One way into the core for bytes from outside.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// The decoders that it reaches, as `decoders` names them.
    pub covers: &'static [&'static str],
    /// Inputs that are accepted.
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub attack: fn(&[u8]) -> bool,
    /// What an attack may hold at once, beside 64 times its input.
    pub held_bytes: isize,
    /// How many times longer than others one attack takes, about.
    pub slower: usize,
}

const MIB: isize = 1 << 20;

/// What most targets have.
const PLAIN: Target = Target {
    name: "",
    covers: &[],
    seeds: Vec::new,
    attack: |_| false,
    held_bytes: MIB,
    slower: 1,
};

pub static TARGETS: &[Target] = &[
    cache::ENTRY,
    cache::HEAD,
    cache::EVIDENCE,
    index::BLOCKS,
    index::LINKS,
    index::WORDS,
    session::SESSION,
    session::EFFECT,
    session::LINE,
    chunks::CHUNK,
    chunks::STUB,
    chunks::NAMESPACE,
    texts::FILTER,
    texts::RECORD,
    texts::QUESTION,
    texts::LANGUAGES,
    texts::TOKENS,
    texts::VECTORS,
    models::FOLDER,
    models::TOKENIZER,
    models::WEIGHTS,
];

/// Inputs kept from earlier runs: those that reached most, and those that broke something once.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    // This is compiled in `core` and in `core/fuzz`.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = format!("tests/fuzz/corpus/{name}.hex");
    let text = [here.join(&file), here.join("..").join(&file)]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    text.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).map(of_hex).collect()
}

fn of_hex(line: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        line.chars().map(|digit| digit.to_digit(16).expect("a line of hex digits") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A section with its length and checksum made right, so that what is behind them is tried.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    reseal(&mut bytes);
    bytes
}

/// An input of several pieces: each behind its length in two bytes, the last without.
fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (piece, behind) =
            rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        found.push(piece);
        bytes = behind;
    }
    found
}

/// The input of these pieces.
fn joined<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        let length = u16::try_from(piece.len()).expect("seeds have small pieces");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}
