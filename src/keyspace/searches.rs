//! The searches of a running command: done at once while they are short, otherwise left to threads and slices, or
//! refused where the client cannot be made to wait.
//!
//! Owns: what a command that is run in rounds knows of the rounds before (what was found and opened, how many
//! questions are answered), and what it leaves for the next (`search_rounds`). Main thread only.

use super::choice::{Choice, Place};
use super::search_before::{Before, OpenedKeys};
use super::search_load::{self, Asker};
use super::search_rest::{Asked, Chore, Lesson, Rest, Told};
use crate::config;
use crate::ffi::Ctx;
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Halt, Looked, no_words, run_words, too_much_at_once};
use llmcache_core::error::Result;
use llmcache_core::filter::Filter;
use llmcache_core::ids::{ContainerUid, PartitionKey};
use llmcache_core::index::{Gate, SearchRequest, SearchResult, Searched};
use llmcache_core::limits;
use llmcache_core::vector::Query;
use llmcache_core::words::{PhraseReading, WordQuery, WordSearch};
use llmcache_core::work::{self, Counter, Steps};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// How long a round of a command may take.
const ROUND: Duration = Duration::from_micros(500);
/// Searches that one round leaves to threads, at most: as many as make the round's own cost small.
const TASKS_PER_ROUND: usize = 64;
/// A search that is estimated to take less is not worth handing over, which takes about 10 us.
const HANDED_OVER_NS: u64 = 20_000;
/// How much longer than one search all that a command does at once may take.
const INLINE_SEARCHES: u64 = 3;
/// Steps of a search between two looks at what is left.
const STEPS_PER_LOOK: u64 = 1 << 14;
/// Steps of a search of words between two looks at the clock.
const WORD_STEPS: u64 = 1 << 12;

/// Numbers of a vector that are compared with a question's in the time of a step, and steps of a round so.
const NUMBERS_PER_STEP: usize = 64;
const MEASURED_PER_ROUND: u64 = 1 << 14;

/// What becomes of work that is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It continues elsewhere, as far as the server lets the client wait.
    Yields,
    /// Beyond so many steps it is refused.
    Bounded(u64),
    /// It is done all the same: a replica obeys, an operator unblocked the client.
    Unbounded,
}

/// For commands that are answered now.
fn never(_: Ctx<'_>) -> bool {
    false
}

/// The searches of a running command.
#[derive(Debug)]
pub struct Searches {
    mode: Cell<Mode>,
    /// Tells whether the running command may leave something to a later round.
    can_yield: fn(Ctx<'_>) -> bool,
    is_round: bool,
    began: Instant,
    /// Who asks, and how many searches threads have; not in a round.
    asker: Option<Asker>,
    /// Questions that the command has yet to answer.
    expected: Cell<usize>,
    before: RefCell<Before>,
    /// Keys that this run opens.
    opened: RefCell<OpenedKeys>,
    /// What searches may still take at once, in nanoseconds.
    inline_ns: Cell<u64>,
    rest: RefCell<Rest>,
    steps: Counter,
    /// Steps that measuring similarities took in this round.
    measured: Cell<u64>,
    /// Time that reading texts took in this round.
    read: Cell<Duration>,
}

impl Searches {
    fn new(mode: Mode, can_yield: fn(Ctx<'_>) -> bool, began: Instant, before: Before) -> Self {
        Self {
            mode: Cell::new(mode),
            can_yield,
            is_round: false,
            began,
            asker: None,
            expected: Cell::new(1),
            before: RefCell::new(before),
            opened: RefCell::default(),
            inline_ns: Cell::new(config::search_inline_us() * 1_000 * INLINE_SEARCHES),
            rest: RefCell::default(),
            steps: Counter::default(),
            measured: Cell::default(),
            read: Cell::default(),
        }
    }

    /// Those of a command of a client that just came.
    pub(super) fn first(can_yield: fn(Ctx<'_>) -> bool, began: Instant, asker: Asker) -> Self {
        let new = Self::new(Mode::Yields, can_yield, began, Before::default());
        Self { asker: Some(asker), ..new }
    }

    /// Those of one that goes on.
    pub(super) fn again(can_yield: fn(Ctx<'_>) -> bool, began: Instant, before: Before) -> Self {
        Self { is_round: true, ..Self::new(Mode::Yields, can_yield, began, before) }
    }

    /// Those of one that has to be answered now, from its first question on.
    pub(super) fn at_last(before: Before) -> Self {
        let before = Before { answered: 0, replied_bytes: 0, ..before };
        Self::new(Mode::Unbounded, never, Instant::now(), before)
    }

    /// Those of one that is answered in the moment it asks, or refused.
    pub fn inline() -> Self {
        let mode = Mode::Bounded(limits::UNBLOCKABLE_STEPS_MAX);
        Self::new(mode, never, Instant::now(), Before::default())
    }

    /// Those of one that waited for something else, and cannot be made to wait again.
    pub(super) fn after_wait() -> Self {
        let mode = Mode::Bounded(limits::WAITED_STEPS_MAX);
        Self::new(mode, never, Instant::now(), Before::default())
    }

    /// Steps that a command may take at once.
    fn most_steps(&self) -> u64 {
        match self.mode.get() {
            Mode::Bounded(most) => most,
            Mode::Yields | Mode::Unbounded => u64::MAX,
        }
    }

    /// What is left to do, and what the next round finds there.
    pub(super) fn into_rest(self) -> (Rest, Before) {
        let (mut before, opened) = (self.before.into_inner(), self.opened.into_inner());
        before.opened.extend(opened);
        // Of one that was opened twice, what counted.
        before.opened.sort_unstable_by(|one, other| other.cmp(one));
        before.opened.dedup_by_key(|&mut (end, _)| end);
        before.opened.reverse();
        (self.rest.into_inner(), before)
    }

    /// Whether a former run of the command opened a key, so that it must not count twice; and whether it
    /// counted as a use.
    pub fn opened_before(&self, key: &[u8]) -> Option<bool> {
        let before = self.before.borrow();
        if before.opened.is_empty() {
            return None;
        }
        let end = key.last_chunk()?;
        let place = before.opened.binary_search_by_key(end, |&(end, _)| end).ok()?;
        Some(before.opened[place].1)
    }

    /// Notes that a key is opened, for a run to come.
    pub fn note_opened(&self, key: &[u8], is_used: bool) {
        if self.yields()
            && let Some(&end) = key.last_chunk()
        {
            self.opened.borrow_mut().push((end, is_used));
        }
    }

    /// Whether some may continue elsewhere, so that the command must not reply before it has done all.
    pub fn yields(&self) -> bool {
        self.mode.get() == Mode::Yields
    }

    /// Whether the command goes on: what it replies is added to what it replied in former rounds.
    pub fn is_round(&self) -> bool {
        self.is_round
    }

    /// Says how many questions the command has yet to answer.
    pub fn expect(&self, questions: usize) {
        self.expected.set(questions);
    }

    /// The vector that a former round read of the command's arguments.
    pub fn take_query(&self) -> Option<Query> {
        self.before.borrow_mut().query.take()
    }

    /// Keeps the vector that was read of the command's arguments for the next round.
    pub fn keep_query(&self, query: Option<Query>) {
        self.before.borrow_mut().query = query;
    }

    /// Questions that former rounds answered.
    pub fn answered(&self) -> usize {
        self.before.borrow().answered
    }

    /// Notes that the next question, which was asked by this code, is answered.
    pub fn note_answered(&self, code: &[i8]) {
        let mut before = self.before.borrow_mut();
        before.answered += 1;
        before.found.retain(|(asked, _)| *asked.code != *code);
    }

    /// Bytes that former rounds and this one replied.
    pub fn replied_bytes(&self) -> u64 {
        self.before.borrow().replied_bytes
    }

    /// Notes bytes of the reply.
    pub fn note_replied(&self, bytes: u64) {
        self.before.borrow_mut().replied_bytes += bytes;
    }

    /// Whether the round has taken its time, or left as much to threads as is of use.
    pub fn is_spent(&self) -> bool {
        self.rest.borrow().tasks.len() >= TASKS_PER_ROUND || self.began.elapsed() >= ROUND
    }

    /// Has the command go on in another round; false where it cannot.
    pub fn pause(&self, ctx: Ctx<'_>) -> bool {
        let yields = self.may_yield(ctx);
        self.rest.borrow_mut().is_paused |= yields;
        yields
    }

    /// Asks the server whether the client may be made to wait, where that matters.
    fn may_yield(&self, ctx: Ctx<'_>) -> bool {
        if self.yields()
            && !self.is_round
            && self.rest.borrow().is_empty()
            && !(self.can_yield)(ctx)
        {
            // Who has no threads chose to have all done at once.
            let is_free = ctx.state().must_obey() || config::search_threads() == 0;
            let bounded = Mode::Bounded(limits::UNBLOCKABLE_STEPS_MAX);
            self.mode.set(if is_free { Mode::Unbounded } else { bounded });
        }
        self.yields()
    }

    /// Whether the command may go on in another round.
    pub fn may_go_on(&self, ctx: Ctx<'_>) -> bool {
        self.may_yield(ctx)
    }

    /// Has the reply written part by part, where the command may go on.
    pub fn reply_in_parts(&self, told: Box<dyn Told>) {
        self.rest.borrow_mut().chore = Some(Chore::Reply(told));
    }

    /// What was chosen between two rounds.
    pub fn picks(&self) -> Option<Vec<Place>> {
        self.before.borrow().picks.clone()
    }

    /// Has a choice made between this round and the next.
    pub fn leave_choice(&self, choice: Choice) {
        self.rest.borrow_mut().chore = Some(Chore::Choice(choice));
    }

    /// The similarity of an entry, measured once in however many rounds; halts where a round has measured as much as it
    /// may. For commands that measure many.
    pub fn measured(
        &self,
        ctx: Ctx<'_>,
        place: Place,
        numbers: usize,
        measure: impl FnOnce() -> f64,
    ) -> Looked<f64> {
        if let Some(similarity) = self.before.borrow().similarities.get(&place) {
            return Ok(*similarity);
        }
        let steps = (1 + numbers / NUMBERS_PER_STEP) as u64;
        work::count(Steps { rows: steps, ..Steps::NONE });
        let similarity = measure();
        let measured = self.measured.get() + steps;
        self.measured.set(measured);
        if self.yields() {
            self.before.borrow_mut().similarities.insert(place, similarity);
        }
        if measured >= MEASURED_PER_ROUND && self.pause(ctx) {
            return Err(Halt::Elsewhere);
        }
        Ok(similarity)
    }

    /// Counts work; refuses to continue where the client cannot be made to wait for so much.
    pub fn spend(&self, ctx: Ctx<'_>, steps: Steps) -> Looked<()> {
        // Keys are counted where they are opened.
        work::count(Steps { keys: 0, ..steps });
        self.note_spent(ctx, steps)
    }

    /// The same for work that is counted already.
    fn note_spent(&self, ctx: Ctx<'_>, steps: Steps) -> Looked<()> {
        self.steps.add(steps);
        let is_much = self.steps.get().weight() > limits::UNBLOCKABLE_STEPS_MAX;
        if is_much && !self.may_yield(ctx) && self.steps.get().weight() > self.most_steps() {
            return Err(too_much_at_once("").into());
        }
        Ok(())
    }

    /// Searches, or halts where that continues elsewhere and the command is to end without a reply.
    pub fn search(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        request: &SearchRequest<'_>,
    ) -> Looked<SearchResult> {
        if let Some(found) = self.found_before(cache, request) {
            return Ok(found);
        }
        if self.mode.get() == Mode::Unbounded {
            return Ok(cache.with(|cache| cache.index.search(request)));
        }
        let (left_ns, dim) = (self.inline_ns.get(), request.code.len());
        let long_ns = left_ns.min(config::search_inline_us() * 1_000);
        let by_load = long_ns > HANDED_OVER_NS && self.goes_by_load() && self.may_yield(ctx);
        let most_ns = if by_load { HANDED_OVER_NS } else { long_ns };
        let task = match cache.with(|cache| cache.index.search_or_task(request, most_ns)) {
            Searched::Done(result) => {
                let took_ns = result.took_ns(dim);
                self.inline_ns.set(left_ns.saturating_sub(took_ns));
                self.spend(ctx, result.steps)?;
                self.note_found(cache, request, &result);
                return Ok(result);
            }
            Searched::Task(task) => task,
        };
        if self.may_yield(ctx) {
            let uid = cache.with(|cache| cache.uid());
            search_load::note_handed_over(by_load.into());
            self.rest.borrow_mut().tasks.push((Asked::of(uid, request), task));
            return Err(Halt::Elsewhere);
        }
        let most = self.most_steps().saturating_sub(self.steps.get().weight());
        let mut looks = most / STEPS_PER_LOOK;
        let goes_on = || {
            looks = looks.saturating_sub(1);
            looks > 0
        };
        let found = cache.with(|cache| cache.index.finish(task, STEPS_PER_LOOK, goes_on));
        let found = found.map_err(|_| Halt::from(too_much_at_once("")))?;
        self.spend(ctx, found.steps)?;
        Ok(found)
    }

    /// Whether even a short search is left to threads.
    fn goes_by_load(&self) -> bool {
        if !self.yields() {
            return false;
        }
        let is_much = |asker| search_load::hands_over(asker, self.began);
        let by_load = self.asker.is_some_and(is_much);
        let mut before = self.before.borrow_mut();
        before.is_long |= by_load && self.expected.get() > 1;
        by_load || before.is_long
    }

    /// Notes what one of many questions found: by it, whether what is left of them is long and goes to threads, where
    /// nothing that was found is to be searched again.
    fn note_found(&self, cache: &SharedCache, request: &SearchRequest<'_>, found: &SearchResult) {
        let expected = self.expected.get();
        // One that is to learn more of its filter searches again.
        if expected == 1 || found.undecided > 0 || !self.yields() {
            return;
        }
        let mut before = self.before.borrow_mut();
        let all_ns = found.took_ns(request.code.len()) * expected as u64;
        before.is_long |=
            config::search_threads() > 0 && all_ns > config::search_inline_us() * 1_000;
        let asked = Asked::of(cache.with(|cache| cache.uid()), request);
        before.found.push((asked, found.clone()));
    }

    /// Searches words, or halts where the command is to go on in another round.
    pub fn search_words(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        query: &WordQuery,
        limit: usize,
        gate: &Gate<'_>,
    ) -> Looked<WordSearch> {
        let uid = cache.with(|cache| cache.uid());
        // One that looks for more texts does as well: a command that looks again for more begins anew with the fewer.
        let fits =
            |(of, search, _): &(_, WordSearch, _)| *of == uid && search.texts_wanted() >= limit;
        let before = self.before.borrow_mut().words.take().filter(fits);
        let new = || {
            cache
                .with(|cache| cache.index.words().map(|words| WordSearch::new(words, query, limit)))
        };
        let (mut search, mut is_done) = match before {
            Some((_, search, is_done)) => (search, is_done),
            None => (new().ok_or_else(no_words)?, false),
        };
        while !is_done {
            let mut steps = Steps::NONE;
            is_done = cache.with(|cache| {
                // Words of texts that are gone would count.
                if cache.index.take_out_words(&mut steps) {
                    return Ok(false);
                }
                run_words(cache, &mut search, gate, WORD_STEPS, &mut steps)
            })?;
            self.spend(ctx, steps)?;
            if !is_done && self.is_spent() && self.pause(ctx) {
                self.before.borrow_mut().words = Some((uid, search, false));
                return Err(Halt::Elsewhere);
            }
        }
        if self.yields() {
            self.before.borrow_mut().words = Some((uid, search.clone(), true));
        }
        Ok(search)
    }

    /// The question of words, which is read once in however many rounds.
    pub fn question(
        &self,
        uid: ContainerUid,
        read: impl FnOnce() -> Result<WordQuery>,
    ) -> Result<WordQuery> {
        if let Some((_, known)) =
            self.before.borrow().question.as_ref().filter(|(of, _)| *of == uid)
        {
            return Ok(known.clone());
        }
        let question = read()?;
        if self.yields() {
            self.before.borrow_mut().question = Some((uid, question.clone()));
        }
        Ok(question)
    }

    /// Reads of a text; whether the command is to go on in another round. What a round does before it comes to where the
    /// last one was does not count, so that each gets on.
    fn read<R>(&self, ctx: Ctx<'_>, read: impl FnOnce() -> R) -> (R, bool) {
        let began = Instant::now();
        let made = read();
        self.read.set(self.read.get() + began.elapsed());
        (made, self.read.get() >= ROUND && self.pause(ctx))
    }

    /// The snippet of an entry: made once, in however many rounds; halts where the command is to go on in another.
    pub fn snippet(
        &self,
        ctx: Ctx<'_>,
        place: Place,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Looked<Vec<u8>> {
        if let Some(made) = self.before.borrow().snippets.get(&place) {
            return Ok(made.clone());
        }
        let (made, is_spent) = self.read(ctx, make);
        if self.yields() {
            self.before.borrow_mut().snippets.insert(place, made.clone());
        }
        if is_spent { Err(Halt::Elsewhere) } else { Ok(made) }
    }

    /// Whether the text of an entry has what is asked for, as `part` tells once it is known, which reads on; found out once,
    /// in however many rounds. Halts where the command is to go on in another, or may not read so much.
    pub fn judged(
        &self,
        ctx: Ctx<'_>,
        place: Place,
        mut part: impl FnMut(&mut PhraseReading) -> Option<bool>,
    ) -> Looked<bool> {
        if let Some(verdict) = self.before.borrow().verdicts.get(&place) {
            return Ok(*verdict);
        }
        let before = self.before.borrow_mut().reading.take().filter(|(of, _)| *of == place);
        let mut reading = before.map(|(_, reading)| reading).unwrap_or_default();
        loop {
            let before = work::counted().weight();
            let (verdict, is_spent) = self.read(ctx, || part(&mut reading));
            let rows = work::counted().weight().saturating_sub(before);
            self.note_spent(ctx, Steps { rows, ..Steps::NONE })?;
            let mut before = self.before.borrow_mut();
            if let Some(verdict) = verdict {
                before.verdicts.insert(place, verdict);
            }
            match (verdict, is_spent) {
                (Some(verdict), false) => return Ok(verdict),
                (None, false) => {}
                (_, true) => {
                    before.reading = Some((place, reading));
                    return Err(Halt::Elsewhere);
                }
            }
        }
    }

    fn found_before(
        &self,
        cache: &SharedCache,
        request: &SearchRequest<'_>,
    ) -> Option<SearchResult> {
        let before = self.before.borrow();
        if before.found.is_empty() {
            return None;
        }
        let asked = Asked::of(cache.with(|cache| cache.uid()), request);
        let found = before.found.iter().find(|(other, _)| *other == asked);
        found.map(|(_, found)| found.clone())
    }

    /// Has records of a partition answer what a filter asks for; false where that was done before.
    pub fn learn(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        partition: PartitionKey,
        filter: &Filter,
    ) -> Looked<bool> {
        if std::mem::replace(&mut self.before.borrow_mut().has_learned, true) {
            return Ok(false);
        }
        let mut lesson = Lesson::new(ctx, cache, partition, filter.clone());
        if self.may_yield(ctx) {
            self.rest.borrow_mut().lesson = Some(lesson);
            return Err(Halt::Elsewhere);
        }
        while let Some(steps) = lesson.step(ctx) {
            self.spend(ctx, steps)?;
        }
        Ok(true)
    }
}
