//! The sections that save words with their container.
//!
//! Owns: their form. Saved are the texts of words and what each row keeps of them; lists are made of these when they
//! are loaded, row after row, so that nothing saved can contradict itself. Hostile bytes are refused. Main thread;
//! saving also in the forked child.

use super::index::WordIndex;
use super::packed::{NO_WORD, put_word, unpack};
use crate::codec::{DecodeError, Reader, Writer, open_section};
use crate::limits::WORD_MAX_BYTES;

/// Section tags.
const TAG_TERMS: u16 = 0x0401;
const TAG_DOCUMENTS: u16 = 0x0402;
const VERSION: u16 = 1;
/// Words, or rows, of a section.
const PER_SECTION: usize = 4_096;
impl WordIndex {
    /// The sections that save it, one after the other. Rows marked as removed are not saved.
    pub fn sections(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let end = self.dictionary().end();
        let terms = (0..end).step_by(PER_SECTION).map(move |first| {
            let numbers = first..end.min(first + PER_SECTION as u32);
            let mut out = Writer::section(TAG_TERMS, VERSION);
            out.u32(numbers.len() as u32);
            for number in numbers {
                let text = self.dictionary().term(number).map_or("", |term| &term.text);
                out.bytes(text.as_bytes());
            }
            out.finish()
        });
        let rows = self.row_end();
        let rows = (0..rows).step_by(PER_SECTION).map(move |first| {
            let numbers = first..rows.min(first + PER_SECTION as u32);
            let mut out = Writer::section(TAG_DOCUMENTS, VERSION);
            out.u32(first).u32(numbers.len() as u32);
            for row in numbers {
                out.bytes(self.words_of(row));
            }
            out.finish()
        });
        terms.chain(rows)
    }

    /// How many sections save it.
    pub fn section_count(&self) -> usize {
        (self.dictionary().end() as usize).div_ceil(PER_SECTION)
            + (self.row_end() as usize).div_ceil(PER_SECTION)
    }

    /// Takes in a section that `sections` made. Sections come in their order; `row_end` is one more than the last row
    /// that the container has.
    ///
    /// # Errors
    ///
    /// Where the bytes are not what `sections` makes. The index is of no use then.
    pub fn load_section(&mut self, bytes: &[u8], row_end: u32) -> Result<(), DecodeError> {
        let (tag, version, mut body) = open_section(bytes)?;
        match (tag, version) {
            (TAG_TERMS, VERSION) if self.row_end() == 0 => self.load_terms(&mut body)?,
            (TAG_DOCUMENTS, VERSION) => self.load_documents(&mut body, row_end)?,
            _ => return Err(DecodeError("not a section of words")),
        }
        body.finish()
    }

    fn load_terms(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..body.u32()? {
            let text = std::str::from_utf8(body.bytes(WORD_MAX_BYTES)?)
                .map_err(|_| DecodeError("a word is not UTF-8"))?;
            if text.is_empty() {
                self.dictionary_mut().skip_number();
                continue;
            }
            let next = self.dictionary().end();
            if self.dictionary_mut().number_of(text) != next {
                return Err(DecodeError("a word stands twice"));
            }
        }
        Ok(())
    }

    fn load_documents(&mut self, body: &mut Reader<'_>, row_end: u32) -> Result<(), DecodeError> {
        let (first, count) = (body.u32()?, body.u32()?);
        let behind = first.checked_add(count).ok_or(DecodeError("rows past the end"))?;
        if first < self.row_end() || behind > row_end.next_multiple_of(256) {
            return Err(DecodeError("rows out of their order"));
        }
        for row in first..behind {
            let words = body.bytes(usize::MAX)?;
            if words.is_empty() {
                continue;
            }
            let length = self.check_words(words)?;
            self.put_words(row, words, length);
        }
        Ok(())
    }

    /// How many words they are, if they are words that are known, each once.
    fn check_words(&self, words: &[u8]) -> Result<u32, DecodeError> {
        let wrong = DecodeError("the words of a row are wrong");
        if words == [NO_WORD] {
            return Ok(0);
        }
        let (mut length, mut before, mut again) = (0u32, None, Vec::new());
        for (number, count) in unpack(words) {
            let is_known = self.dictionary().term(number).is_some();
            if !is_known || count == 0 || before.is_some_and(|before| before >= number) {
                return Err(wrong);
            }
            put_word(&mut again, number - before.unwrap_or(0), count);
            before = Some(number);
            length = length.checked_add(count).ok_or(wrong.clone())?;
        }
        (again == words).then_some(length).ok_or(wrong)
    }

    /// Ends loading.
    pub fn finish_load(&mut self) {
        self.dictionary_mut().finish_load();
    }
}
