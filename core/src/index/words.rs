//! The words of the entries of an index, where it keeps any.
//!
//! Owns: that rows and words agree: a row that goes is marked here, an entry that comes is given its text by the
//! caller, and rows whose text is not known yet are named, one after the other, until all are. Main thread.

use super::Index;
use super::request::Gate;
use crate::codec::DecodeError;
use crate::filter::Verdict;
use crate::ids::{Seq, SlotId};
use crate::limits::WORDS_AT_ONCE_BYTES;
use crate::words::{Language, TextWords, WordIndex, WordSearch};
use crate::work::Steps;

/// Words taken out in one step of work.
const STEP: usize = 256;

impl Index {
    /// Keeps words in this language, or none. Of entries that are there the texts are to be read.
    pub fn set_words(&mut self, language: Option<Language>) {
        let has = self.words.as_ref().map(|words| words.analyser().language());
        if has == language {
            return;
        }
        self.words = language.map(|language| {
            let mut words = WordIndex::new(language);
            words.set_unread_from((self.totals.entries > 0).then_some(0));
            Box::new(words)
        });
    }

    /// The words, where there are any.
    pub fn words(&self) -> Option<&WordIndex> {
        self.words.as_deref()
    }

    /// Whether entries are here whose words are not known yet.
    pub fn has_unread_texts(&self) -> bool {
        self.words.as_ref().is_some_and(|words| words.has_unread())
    }

    /// An entry whose text is to be read, if there is one; it is not named again.
    pub fn next_unread(&mut self) -> Option<(SlotId, Seq)> {
        let words = self.words.as_mut()?;
        while let Some(row) = words.take_unread_long() {
            if let Some(slot) = self.rows.slots.get(SlotId(row))
                && !words.has(row)
            {
                return Some((SlotId(row), slot.seq()));
            }
        }
        let mut from = words.unread_from()?;
        loop {
            let Some((id, slot)) = self.rows.slots.next_occupied(from) else {
                words.set_unread_from(None);
                return None;
            };
            from = id.0 + 1;
            if !words.has(id.0) {
                words.set_unread_from(Some(from));
                return Some((id, slot.seq()));
            }
        }
    }

    /// The text that is being read, and its words so far; else one that is to be read.
    pub fn take_reading(&mut self) -> Option<(SlotId, Seq, TextWords)> {
        if let Some(words) = &mut self.words
            && let Some((row, seq, read)) = words.reading().take().map(|reading| *reading)
        {
            return Some((SlotId(row), seq, read));
        }
        let (slot, seq) = self.next_unread()?;
        Some((slot, seq, TextWords::default()))
    }

    /// Reads about so many bytes more of the text of an entry, and notes its words at the end.
    pub fn note_text(
        &mut self,
        (slot, seq, mut read): (SlotId, Seq, TextWords),
        text: &[u8],
        most_bytes: usize,
    ) {
        let is_there = self.rows.slots.get(slot).is_some_and(|found| found.seq() == seq);
        let Some(words) = self.words.as_mut().filter(|_| is_there) else { return };
        if text.len() <= WORDS_AT_ONCE_BYTES {
            words.add(slot.0, text);
        } else if read.read(words.analyser(), text, most_bytes) {
            words.add_read(slot.0, &read);
        } else {
            *words.reading() = Some(Box::new((slot.0, seq, read)));
        }
    }

    /// Notes the words of an entry just inserted, whose text was read part by part.
    pub fn set_words_of(&mut self, slot: SlotId, read: &TextWords) {
        if self.rows.slots.get(slot).is_some()
            && let Some(words) = &mut self.words
        {
            words.add_read(slot.0, read);
        }
    }

    /// Leaves a long text of an entry just inserted to be read between commands.
    pub fn leave_unread(&mut self, slot: SlotId) {
        if self.rows.slots.get(slot).is_some()
            && let Some(words) = &mut self.words
        {
            words.leave_unread(slot.0);
        }
    }

    /// Notes the text of an entry just inserted.
    pub fn set_text(&mut self, slot: SlotId, text: &[u8]) {
        if self.rows.slots.get(slot).is_some()
            && let Some(words) = &mut self.words
        {
            words.add(slot.0, text);
        }
    }

    /// Takes out some words of entries that are gone; whether there were any.
    pub fn take_out_words(&mut self, steps: &mut Steps) -> bool {
        let has_work = self.has_work_on_words();
        if has_work {
            self.work_on_words();
            steps.path += STEP as u64;
        }
        has_work
    }

    /// Takes out some words of entries that are gone; whether more are left.
    pub(super) fn work_on_words(&mut self) -> bool {
        self.words.as_mut().is_some_and(|words| words.work(STEP))
    }

    pub(super) fn has_work_on_words(&self) -> bool {
        self.words.as_ref().is_some_and(|words| words.has_work())
    }

    /// Goes on with a search for about so many steps; whether it is done. Rows whose filter takes more steps than one
    /// entry may take are counted into `too_long`.
    pub fn search_words(
        &self,
        search: &mut WordSearch,
        gate: &Gate<'_>,
        most_steps: u64,
        steps: &mut Steps,
        too_long: &mut usize,
    ) -> bool {
        let Some(words) = &self.words else { return true };
        let mut of_filter = Steps::NONE;
        let is_done = search.run(words, most_steps, steps, |row| {
            let id = SlotId(row);
            let Some(slot) = self.rows.slots.get(id) else { return false };
            if !slot.is_visible(gate.now)
                || slot.seq() < gate.min_seq
                || self.is_gone_by_tag(id, &slot)
            {
                return false;
            }
            match gate.filter.map(|filter| filter.judge_record(slot.record, &mut of_filter)) {
                None | Some(Verdict::Yes | Verdict::NeedsEntry) => true,
                Some(Verdict::No) => false,
                Some(Verdict::TooLong) => {
                    *too_long += 1;
                    false
                }
            }
        });
        *steps += of_filter;
        is_done
    }

    /// How many sections save the words.
    pub fn word_section_count(&self) -> usize {
        self.words.as_ref().map_or(0, |words| words.section_count())
    }

    /// The sections that save the words.
    pub fn word_sections(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.words.iter().flat_map(|words| words.sections())
    }

    /// Takes in a section.
    ///
    /// # Errors
    ///
    /// Where it is not what was saved; the words are of no use then (`forget_words`).
    pub fn load_words(&mut self, section: &[u8]) -> Result<(), DecodeError> {
        let end = self.rows.slots.end();
        let words = self.words.as_mut().ok_or(DecodeError("words of an index without any"))?;
        words.load_section(section, end)
    }

    /// Ends loading: rows without words are read.
    pub fn finish_load_words(&mut self) {
        if let Some(words) = &mut self.words {
            words.finish_load();
            let is_whole = words.len() == self.totals.entries;
            words.set_unread_from((!is_whole).then_some(0));
        }
    }

    /// Forgets all words and has the texts of all entries read.
    pub fn forget_words(&mut self) {
        let language = self.words.take().map(|words| words.analyser().language());
        self.set_words(language);
    }
}
