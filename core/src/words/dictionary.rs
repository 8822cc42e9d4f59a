//! All words that some text has, by their text and by a number.
//!
//! Owns: the numbers, which are used again when a word is forgotten, and the memory of words and of their lists. Main
//! thread.

use super::postings::{Posting, Postings};
use crate::allocation::allocated_bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// A word.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) text: Box<str>,
    pub(super) postings: Postings,
}

/// What became of a word that was taken out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Other texts have it.
    Left,
    /// None has, and only one ever had.
    Rare,
    /// None has any more.
    Forgotten,
}

/// All words.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    terms: Vec<Option<Term>>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Memory of texts and lists.
    heap_bytes: usize,
}

impl Dictionary {
    /// How many words.
    pub(super) fn len(&self) -> usize {
        self.by_text.len()
    }

    /// One more than the largest number.
    pub(super) fn end(&self) -> u32 {
        self.terms.len() as u32
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        allocated_bytes(self.terms.capacity() * size_of::<Option<Term>>())
            + allocated_bytes(self.free.capacity() * size_of::<u32>())
            + self.by_text.allocation_size()
            + self.heap_bytes
    }

    /// The word of a number.
    #[inline]
    pub(super) fn term(&self, number: u32) -> Option<&Term> {
        self.terms.get(number as usize)?.as_ref()
    }

    /// The number of a word.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.find_hashed(self.hasher.hash_one(text), text)
    }

    fn find_hashed(&self, hash: u64, text: &str) -> Option<u32> {
        let is_it = |&number: &u32| self.term(number).is_some_and(|term| *term.text == *text);
        self.by_text.find(hash, is_it).copied()
    }

    /// The number of a word, which is new where it was not known; it is in no text then, and needs to be put in one.
    pub(super) fn number_of(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        if let Some(number) = self.find_hashed(hash, text) {
            return number;
        }
        self.heap_bytes += allocated_bytes(text.len());
        let number = self.free.pop().unwrap_or(self.terms.len() as u32);
        let term = Some(Term { text: text.into(), postings: Postings::None });
        match self.terms.get_mut(number as usize) {
            Some(place) => *place = term,
            None => self.push(term),
        }
        let (terms, hasher) = (&self.terms, &self.hasher);
        self.by_text.insert_unique(hash, number, |&number| {
            hasher.hash_one(terms[number as usize].as_ref().map_or("", |term| &term.text))
        });
        number
    }

    /// Leaves the next number unused.
    pub(super) fn skip_number(&mut self) {
        self.push(None);
    }

    fn push(&mut self, term: Option<Term>) {
        if self.terms.len() == self.terms.capacity() {
            self.terms.reserve_exact((self.terms.len() / 8).max(64));
        }
        self.terms.push(term);
    }

    /// Puts a word in a text of a length.
    pub(super) fn put(&mut self, number: u32, posting: Posting, length: u32) {
        if let Some(term) = &mut self.terms[number as usize] {
            term.postings.insert(posting, length, &mut self.heap_bytes);
        }
    }

    /// Whether more than one text had a word.
    pub(super) fn is_frequent(&self, number: u32) -> bool {
        self.term(number).is_some_and(|term| term.postings.is_list())
    }

    /// Takes a word out of a text, and forgets it when it was the last.
    pub(super) fn take(&mut self, number: u32, row: u32) -> Taken {
        let Some(term) = &mut self.terms[number as usize] else { return Taken::Left };
        let was_frequent = term.postings.is_list();
        term.postings.remove(row, &mut self.heap_bytes);
        if term.postings.rows() > 0 {
            return Taken::Left;
        }
        self.forget(number);
        if was_frequent { Taken::Forgotten } else { Taken::Rare }
    }

    fn forget(&mut self, number: u32) {
        let Some(term) = self.terms[number as usize].take() else { return };
        self.heap_bytes -= term.postings.bytes() + allocated_bytes(term.text.len());
        let hash = self.hasher.hash_one(&*term.text);
        if let Ok(found) = self.by_text.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.free.push(number);
    }

    /// Ends loading: numbers that no word of a text has are free.
    pub(super) fn finish_load(&mut self) {
        for number in 0..self.end() {
            match &self.terms[number as usize] {
                Some(term) if term.postings.rows() == 0 => self.forget(number),
                Some(_) => {}
                None => self.free.push(number),
            }
        }
    }

    /// Panics unless all agree; for tests. How many texts all words have.
    pub(super) fn check_invariants(&self) -> usize {
        let terms = self.terms.iter().flatten();
        let heap = terms.clone().map(|t| t.postings.bytes() + allocated_bytes(t.text.len()));
        assert_eq!(heap.sum::<usize>(), self.heap_bytes, "memory");
        assert_eq!(terms.clone().count(), self.by_text.len(), "words by their text");
        assert_eq!(self.terms.len(), self.by_text.len() + self.free.len(), "free numbers");
        for term in terms.clone() {
            assert!(self.find(&term.text).is_some(), "{}", term.text);
            term.postings.check_invariants();
        }
        terms.map(|term| term.postings.rows() as usize).sum()
    }
}
