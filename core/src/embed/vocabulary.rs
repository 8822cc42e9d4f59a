//! Word pieces by their text.
//!
//! Owns: their bytes in one allocation and a table of numbers; thirty thousand strings of their own would take
//! ten times as much. Never written after loading.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Pieces, each under its number.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each piece lies; an empty one is no piece.
    pieces: Vec<(u32, u32)>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    longest: usize,
    /// Pieces in the order of their bytes, where beginnings are looked for.
    sorted: Vec<u32>,
}

impl Vocabulary {
    /// Takes in a piece; false where its number or its text is taken.
    pub(super) fn insert(&mut self, piece: &str, number: u32) -> bool {
        let at = number as usize;
        if self.pieces.len() <= at {
            self.pieces.resize(at + 1, (0, 0));
        }
        if piece.is_empty() || self.pieces[at].1 > 0 || self.number(piece.as_bytes()).is_some() {
            return false;
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(piece.as_bytes());
        self.pieces[at] = (start, piece.len() as u32);
        self.longest = self.longest.max(piece.len());
        let Self { bytes, pieces, table, hasher, .. } = self;
        let hash = |&number: &u32| hasher.hash_one(text(bytes, pieces[number as usize]));
        table.insert_unique(hash(&number), number, hash);
        true
    }

    /// Gives back what growing left over.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.pieces.shrink_to_fit();
    }

    /// Puts the pieces in order, for `each_beginning`.
    pub(super) fn sort(&mut self) {
        let Self { bytes, pieces, sorted, .. } = self;
        sorted.extend((0..pieces.len() as u32).filter(|&number| pieces[number as usize].1 > 0));
        sorted.sort_unstable_by_key(|&number| text(bytes, pieces[number as usize]));
        sorted.shrink_to_fit();
    }

    /// Calls `each` with the length and the number of every piece that the bytes begin with, shortest first.
    pub(super) fn each_beginning(&self, bytes: &[u8], mut each: impl FnMut(usize, u32)) {
        let piece = |number: u32| text(&self.bytes, self.pieces[number as usize]);
        // Those that agree with the bytes so far.
        let mut left = &self.sorted[..];
        for (at, byte) in bytes.iter().enumerate().take(self.longest) {
            let first = left.partition_point(|&number| piece(number).get(at) < Some(byte));
            left = &left[first..];
            left = &left[..left.partition_point(|&number| piece(number).get(at) == Some(byte))];
            match left.first() {
                None => return,
                // The shortest of them comes first.
                Some(&number) if piece(number).len() == at + 1 => each(at + 1, number),
                Some(_) => {}
            }
        }
    }

    /// The number of a piece.
    pub(super) fn number(&self, piece: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(piece);
        let is = |&number: &u32| text(&self.bytes, self.pieces[number as usize]) == piece;
        self.table.find(hash, is).copied()
    }

    /// One more than the highest number.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes of the longest piece.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// All pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let text = |&piece: &(u32, u32)| std::str::from_utf8(text(&self.bytes, piece));
        self.pieces.iter().filter(|piece| piece.1 > 0).filter_map(move |piece| text(piece).ok())
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
            + 8 * self.pieces.capacity()
            + 4 * self.sorted.capacity()
            + self.table.allocation_size()
    }
}

fn text(bytes: &[u8], (start, length): (u32, u32)) -> &[u8] {
    &bytes[start as usize..][..length as usize]
}
