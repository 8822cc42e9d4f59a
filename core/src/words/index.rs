//! The words of all texts: by row, and by word.
//!
//! Owns: that both agree, and the memory of both. A row keeps the numbers of its words, so that it is taken out in
//! steps of its words and not of its text. The hook that sees a row go marks it alone ([`WordIndex::mark_removed`]);
//! its words follow before the next search, before its row is used again, or between commands ([`WordIndex::work`]).
//! Main thread.

use super::analyser::{Analyser, Reader, Token};
use super::bm25::idf;
use super::dictionary::{Dictionary, Taken, Term};
use super::language::Language;
use super::packed::{NO_WORD, put_word, unpack};
use super::postings::Posting;
use super::query::Clause;
use super::reading::{TextWords, count_read};
use super::word_cache::{Known, WordCache};
use crate::allocation::allocated_bytes;
use crate::ids::Seq;
use crate::limits::WORDS_AT_ONCE_BYTES;
use std::borrow::Cow;
use thin_vec::ThinVec;

/// What is kept of a row.
#[derive(Debug, Default)]
struct Document {
    /// Its words: the differences of their ascending numbers, and how often each stands in it. Empty where the row has
    /// no text.
    words: ThinVec<u8>,
    /// How many words it has.
    length: u32,
    mark: Mark,
}

/// Whether a row is marked as removed, and its place among rows that are or were.
#[derive(Debug, Clone, Copy)]
struct Mark(u32);

impl Mark {
    /// Of a row that is marked as removed.
    const REMOVED: u32 = 1 << 31;
    /// Ends the chain of rows that were marked.
    const END: u32 = Self::REMOVED - 1;
    /// Of a row that is not in that chain.
    const UNLINKED: u32 = Self::REMOVED - 2;

    fn is_removed(self) -> bool {
        self.0 & Self::REMOVED != 0
    }

    /// The next row of the chain.
    fn next(self) -> u32 {
        self.0 & !Self::REMOVED
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self(Self::UNLINKED)
    }
}

/// The words of all texts.
#[derive(Debug)]
pub struct WordIndex {
    analyser: Analyser,
    dictionary: Dictionary,
    documents: Vec<Document>,
    /// The first row of the chain of those marked as removed. One that has a text again stays in it until its turn.
    marked: u32,
    removed_count: usize,
    live: u64,
    /// Words of all texts that are there.
    total_length: u64,
    /// Memory of the words of rows.
    heap_bytes: usize,
    /// Rows from here on may have a text that was not read yet.
    unread_from: Option<u32>,
    /// Rows with long texts that are to be read part by part.
    unread_long: Vec<u32>,
    /// The row of one that is being read, its place in the order of stores, and its words so far.
    reading: Option<Box<(u32, Seq, TextWords)>>,
    cache: WordCache,
    /// Room for the words of one text.
    scratch: Vec<u32>,
}

/// Rows without a text whose memory is given back at once: some tens of microseconds.
const ROWS_FREED_AT_ONCE: usize = 1 << 15;

impl WordIndex {
    /// One without a text.
    pub fn new(language: Language) -> Self {
        Self {
            analyser: Analyser::new(language),
            dictionary: Dictionary::default(),
            documents: Vec::new(),
            marked: Mark::END,
            removed_count: 0,
            live: 0,
            total_length: 0,
            heap_bytes: 0,
            unread_from: None,
            unread_long: Vec::new(),
            reading: None,
            cache: WordCache::default(),
            scratch: Vec::new(),
        }
    }

    /// How texts are cut into words.
    pub fn analyser(&self) -> &Analyser {
        &self.analyser
    }

    pub(super) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    pub(super) fn dictionary_mut(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    /// One more than the last row that has or had a text.
    pub(super) fn row_end(&self) -> u32 {
        self.documents.len() as u32
    }

    /// What is kept of the words of a row; nothing where it has no text.
    pub(super) fn words_of(&self, row: u32) -> &[u8] {
        let document = self.documents.get(row as usize);
        document
            .filter(|document| !document.mark.is_removed())
            .map_or(&[], |document| &document.words)
    }

    /// Words of all texts.
    pub(super) fn total_length(&self) -> u64 {
        self.total_length
    }

    /// The row from which on texts may not be read yet.
    pub fn unread_from(&self) -> Option<u32> {
        self.unread_from
    }

    /// Says from which row on texts are to be read; none where all are.
    pub fn set_unread_from(&mut self, row: Option<u32>) {
        self.unread_from = row;
    }

    /// Whether texts may be there that are not read, or not to their end.
    pub fn has_unread(&self) -> bool {
        self.unread_from.is_some() || !self.unread_long.is_empty() || self.reading.is_some()
    }

    /// Notes that a row has a long text, which is to be read part by part.
    pub fn leave_unread(&mut self, row: u32) {
        self.mark_removed(row);
        self.unread_long.push(row);
    }

    /// A row with a long text that is to be read.
    pub fn take_unread_long(&mut self) -> Option<u32> {
        let row = self.unread_long.pop();
        if self.unread_long.is_empty() {
            self.unread_long = Vec::new();
        }
        row
    }

    /// The text that is being read.
    pub fn reading(&mut self) -> &mut Option<Box<(u32, Seq, TextWords)>> {
        &mut self.reading
    }

    /// Texts that are there, those without a word too.
    pub fn len(&self) -> u64 {
        self.live
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Different words.
    pub fn term_count(&self) -> usize {
        self.dictionary.len()
    }

    /// Rows whose words are still to be taken out.
    pub fn removed_count(&self) -> usize {
        self.removed_count
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.dictionary.bytes()
            + allocated_bytes(self.documents.capacity() * size_of::<Document>())
            + allocated_bytes(self.scratch.capacity() * size_of::<u32>())
            + allocated_bytes(self.unread_long.capacity() * size_of::<u32>())
            + self.reading.as_ref().map_or(0, |reading| reading.2.bytes())
            + self.cache.bytes()
            + self.heap_bytes
    }

    /// Whether a row has a text here.
    pub fn has(&self, row: u32) -> bool {
        let document = self.documents.get(row as usize);
        document.is_some_and(|document| !document.mark.is_removed() && !document.words.is_empty())
    }

    /// Adds the text of a row, in place of the one it had. Returns how many words that took.
    pub fn add(&mut self, row: u32, text: &[u8]) -> usize {
        if text.len() > WORDS_AT_ONCE_BYTES {
            let mut words = TextWords::default();
            words.read(&self.analyser, text, usize::MAX);
            return self.add_read(row, &words);
        }
        let mut steps = self.take_out(row);
        count_read(text.len());
        // Whole texts are checked faster than parts, and nearly all are UTF-8.
        let text =
            str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed);
        let mut words = std::mem::take(&mut self.scratch);
        words.clear();
        let (cache, dictionary) = (&mut self.cache, &mut self.dictionary);
        self.analyser
            .read(&text, &mut Numbered { text: &text, words: &mut words, dictionary, cache });
        words.sort_unstable();
        let length = words.len() as u32;
        steps += words.len() + 1;
        let mut packed = Vec::with_capacity(2 * words.len());
        let mut before = 0;
        for same in words.chunk_by(|one, other| one == other) {
            put_word(&mut packed, same[0] - before, same.len() as u32);
            before = same[0];
        }
        self.scratch = words;
        self.scratch.shrink_to(4_096);
        self.put_words(row, &packed, length);
        steps
    }

    /// Adds the words of a text that was read part by part. Returns how many words that took.
    pub fn add_read(&mut self, row: u32, words: &TextWords) -> usize {
        let steps = self.take_out(row) + words.counts().len() + 1;
        let dictionary = &mut self.dictionary;
        let numbered = words.counts().map(|(term, count)| (dictionary.number_of(term), count));
        let mut numbered: Vec<_> = numbered.collect();
        numbered.sort_unstable();
        let mut packed = Vec::with_capacity(2 * numbered.len());
        let mut before = 0;
        for (number, count) in numbered {
            put_word(&mut packed, number - before, count);
            before = number;
        }
        self.put_words(row, &packed, words.length());
        steps
    }

    /// Notes the words of a row that has none.
    pub(super) fn put_words(&mut self, row: u32, packed: &[u8], length: u32) {
        for (number, count) in unpack(packed) {
            self.dictionary.put(number, Posting { row, count }, length);
        }
        self.set_document(row, packed, length);
    }

    /// Puts a row's words in its place.
    fn set_document(&mut self, row: u32, packed: &[u8], length: u32) {
        // Nothing that a word can be, so that the row has a text, if one of no word.
        let packed = ThinVec::from(if packed.is_empty() { &[NO_WORD][..] } else { packed });
        let place = row as usize;
        if self.documents.len() <= place {
            if self.documents.capacity() <= place {
                let room = (place + 1 - self.documents.len()).max(self.documents.len() / 8).max(16);
                self.documents.reserve_exact(room);
            }
            self.documents.resize_with(place + 1, Document::default);
        }
        self.heap_bytes += packed_bytes(&packed);
        let document = &mut self.documents[place];
        (document.words, document.length) = (packed, length);
        self.live += 1;
        self.total_length += u64::from(length);
    }

    /// Marks the text of a row as removed: it is found no more and counts no more. O(1), allocates nothing.
    pub fn mark_removed(&mut self, row: u32) {
        let Some(document) = self.documents.get_mut(row as usize) else { return };
        if document.mark.is_removed() || document.words.is_empty() {
            return;
        }
        self.live -= 1;
        self.total_length -= u64::from(document.length);
        self.removed_count += 1;
        if document.mark.0 == Mark::UNLINKED {
            document.mark.0 = std::mem::replace(&mut self.marked, row);
        }
        document.mark.0 |= Mark::REMOVED;
    }

    /// Takes words out that belong to rows marked as removed, for about so many steps; whether some are left.
    pub fn work(&mut self, steps: usize) -> bool {
        let mut done = 0;
        while self.marked != Mark::END && done < steps {
            let row = self.marked;
            let mark = std::mem::take(&mut self.documents[row as usize].mark);
            self.marked = mark.next();
            done += 1;
            if mark.is_removed() {
                self.removed_count -= 1;
                done += self.drop_words(row);
            }
        }
        if self.is_emptied() {
            // The last of it: many rows are given back a part at a time.
            let left = self.documents.len().saturating_sub(ROWS_FREED_AT_ONCE);
            self.documents.truncate(left);
            if left == 0 {
                let (unread_from, reading) = (self.unread_from, self.reading.take());
                let unread_long = std::mem::take(&mut self.unread_long);
                let empty = Self::new(self.analyser.language());
                *self = Self { unread_from, unread_long, reading, ..empty };
            }
        }
        self.has_work()
    }

    /// Whether no text is left, but memory of what was.
    fn is_emptied(&self) -> bool {
        self.live == 0 && self.marked == Mark::END && !self.documents.is_empty()
    }

    /// Whether there is something to do for [`WordIndex::work`].
    pub fn has_work(&self) -> bool {
        self.marked != Mark::END || self.is_emptied()
    }

    /// Takes the text of a row out at once, marked as removed or not. Returns how many words that took.
    fn take_out(&mut self, row: u32) -> usize {
        if self.documents.get(row as usize).is_none_or(|document| document.words.is_empty()) {
            return 0;
        }
        let document = &mut self.documents[row as usize];
        if document.mark.is_removed() {
            document.mark.0 &= !Mark::REMOVED;
            self.removed_count -= 1;
        } else {
            self.live -= 1;
            self.total_length -= u64::from(document.length);
        }
        self.drop_words(row)
    }

    fn drop_words(&mut self, row: u32) -> usize {
        let packed = std::mem::take(&mut self.documents[row as usize].words);
        self.heap_bytes -= packed_bytes(&packed);
        let mut words = 0;
        for (number, _) in unpack(&packed) {
            words += 1;
            if self.dictionary.take(number, row) == Taken::Forgotten {
                self.cache.clear();
            }
        }
        words
    }

    /// A word, where a text has it.
    pub(super) fn term(&self, text: &str) -> Option<&Term> {
        self.dictionary.term(self.dictionary.find(text)?)
    }

    /// How much a word of a question weighs: its inverse document frequency, as a search has it.
    pub fn weight_of(&self, clause: &Clause) -> f64 {
        let rows = self.term(&clause.term).map_or(0, |term| term.postings.rows());
        idf(f64::from(rows), self.live as f64)
    }

    /// How many words a row has.
    pub(super) fn length_of(&self, row: u32) -> u32 {
        self.documents.get(row as usize).map_or(0, |document| document.length)
    }

    /// Panics unless every structure agrees with every other; for tests, in O(n).
    pub fn check_invariants(&self) {
        let (mut live, mut total, mut heap, mut removed, mut postings) = (0, 0, 0, 0, 0);
        for (row, document) in self.documents.iter().enumerate() {
            if document.words.is_empty() {
                continue;
            }
            heap += packed_bytes(&document.words);
            let mut length = 0;
            for (number, count) in unpack(&document.words) {
                let term = self.dictionary.term(number).expect("a word that is known");
                assert_eq!(term.postings.count_in(row as u32), count, "{row}: {}", term.text);
                (length, postings) = (length + count, postings + 1);
            }
            if !document.mark.is_removed() {
                assert_eq!(document.length, length, "{row}: words");
                (live, total) = (live + 1, total + u64::from(length));
            }
            removed += usize::from(document.mark.is_removed());
        }
        assert_eq!((self.live, self.total_length), (live, total));
        assert_eq!(self.removed_count, removed, "marked rows");
        assert_eq!(self.dictionary.check_invariants(), postings, "texts of all words");
        assert_eq!(heap, self.heap_bytes, "memory");
    }
}

/// Reads the words of a text by their numbers.
struct Numbered<'a> {
    text: &'a str,
    words: &'a mut Vec<u32>,
    dictionary: &'a mut Dictionary,
    cache: &'a mut WordCache,
}

impl Reader for Numbered<'_> {
    fn knows(&mut self, word: &str) -> bool {
        let known = self.cache.find(word);
        if let Some(Known::Term(number)) = known {
            self.words.push(number);
        }
        known.is_some()
    }

    fn take(&mut self, token: Token<'_>) {
        let written = &self.text[token.start..token.end];
        if token.is_stop {
            self.cache.note(written, Known::Stop, self.dictionary.len());
            return;
        }
        let number = self.dictionary.number_of(token.term);
        self.words.push(number);
        // A word that one text has is soon forgotten, and with it all that are known.
        if !token.is_code && self.dictionary.is_frequent(number) {
            self.cache.note(written, Known::Term(number), self.dictionary.len());
        }
    }
}

fn packed_bytes(words: &ThinVec<u8>) -> usize {
    /// Length and capacity, before the bytes.
    const HEADER_BYTES: usize = 16;
    if words.capacity() == 0 { 0 } else { allocated_bytes(HEADER_BYTES + words.capacity()) }
}
