//! How a question is answered: the exact prompt first, then the nearest of its partition above the
//! threshold.
//!
//! Owns: the order of steps and the proof of each hit. An index only suggests; an entry counts after
//! its key was opened and named the same container, slot and store order. No borrow of the cache is
//! alive while a key is opened, because opening an expired key deletes it. Main thread only.

use super::guard::{EXCHANGE_PENALTY, Finding, GuardLevel, Question, Refusal, Rules, Unseen};
use super::maxerror::SimilarityE4;
use super::miss_reason::{MissReason, Nearest, Refused, id_text, miss_reason};
use super::{Cache, Entry, EntryView, Severity};
use crate::error::{Error, ErrorWord};
use crate::filter::{Filter, Verdict};
use crate::ids::{ContainerUid, EntryId, PartitionKey, Seq, SlotId, UnixMs};
use crate::index::{Candidate, Gate, SearchMode, SearchRequest, SearchResult};
use crate::limits::{LOOKUP_REFUSED_MAX, RESCORE_EXTRA_MAX};
use crate::vector::Query;
use crate::vector::quantise::error_bound;
use crate::words::{WordQuery, WordSearch};
use crate::work::Steps;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::ops::Deref;

/// How entries are opened and the cache is reached.
pub trait Keyspace {
    /// An opened entry; reading it is valid while this lives.
    type Opened: Deref<Target = Entry>;

    /// Opens an entry key: `None` when there is no such key, it is due, or it holds something else.
    /// May delete a key that is due. Counts as a use of the key where it is `served` for certain; of
    /// the rest the caller of the lookup counts what it serves.
    fn open(&self, key: &[u8], served: bool) -> Option<Self::Opened>;

    /// Asks for the first bytes of an opened entry, ahead of their use.
    fn prefetch(&self, _opened: &Self::Opened, _bytes: usize) {}

    /// Works on the cache; must not be nested, and must not open keys.
    fn with_cache<R>(&self, work: impl FnOnce(&mut Cache) -> R) -> R;

    /// Searches the cache's index.
    fn search(&self, request: &SearchRequest<'_>) -> Looked<SearchResult> {
        Ok(self.with_cache(|cache| cache.index.search(request)))
    }

    /// Has the filter records of a partition answer what a filter asks for, because a search met many that do not;
    /// answers whether they do now.
    fn learn(&self, _request: &SearchRequest<'_>) -> Looked<bool> {
        Ok(false)
    }

    /// Searches the words of the cache's texts, to the end.
    fn search_words(&self, query: &WordQuery, limit: usize, gate: &Gate<'_>) -> Looked<WordSearch> {
        self.with_cache(|cache| {
            let mut steps = Steps::NONE;
            while cache.index.take_out_words(&mut steps) {}
            let words = cache.index.words().ok_or_else(no_words)?;
            let mut search = WordSearch::new(words, query, limit);
            while !run_words(cache, &mut search, gate, u64::MAX, &mut steps)? {}
            Ok(search)
        })
    }

    /// What is to be found out of an entry at some cost; found out once, in however many rounds a command goes.
    fn judged(&self, _slot: SlotId, _seq: Seq, judge: impl FnOnce() -> bool) -> Looked<bool> {
        Ok(judge())
    }

    /// Counts work; refuses to go on where it is more than a command may do that cannot be made to wait.
    fn spend(&self, _steps: Steps) -> Looked<()> {
        Ok(())
    }
}

/// Why a question has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The work goes on elsewhere, and the question is to be asked again when it is done.
    Elsewhere,
    /// It is refused.
    Refused(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What may halt.
pub type Looked<T> = std::result::Result<T, Halt>;

/// Rows that a filter could not judge by their records, up to which their keys are opened one by one.
const UNDECIDED_MAX: usize = 32;

/// META up to this size is judged anew when its entry is opened; of longer the record, which was made of it, is
/// believed where it decides: parsing it would take longer than all the rest.
const JUDGED_AGAIN_MAX_BYTES: usize = 512;

/// The error of work that is too much for a client that cannot be made to wait, with what else helps.
pub fn too_much_at_once(advice: &str) -> Error {
    let message = format!(
        "this takes too long where the client cannot be made to wait; {advice}send it outside of MULTI and scripts"
    );
    Error::new(ErrorWord::Busy, message)
}

/// The error of a filter that takes too long on one entry.
pub fn too_many_steps() -> Error {
    let message = format!(
        "the expression takes more than {} steps on the META of one entry; compare shorter members, or fewer of them",
        crate::limits::FILTER_STEPS_MAX
    );
    Error::new(ErrorWord::BadFilter, message)
}

/// A question.
#[derive(Debug)]
pub struct LookupRequest<'a> {
    /// Scope asked in.
    pub scope: &'a [u8],
    /// Context asked in.
    pub context: &'a [u8],
    /// The prompt, for the exact tier.
    pub prompt: Option<&'a [u8]>,
    /// Its vector, for the semantic tier.
    pub query: Option<&'a Query>,
    /// What that vector does not show of the prompt, where a model made it of the prompt.
    pub unseen: Option<&'a Unseen>,
    /// Least similarity of a semantic hit; the cache's own when `None`.
    pub threshold: Option<f64>,
    /// Most hits wanted.
    pub count: usize,
    /// Width of a walk over a graph; the cache's own when `None`.
    pub ef: Option<usize>,
    /// How strictly answers by meaning are judged, where that is stricter than the cache's own level.
    pub guard: GuardLevel,
    /// Condition on META.
    pub filter: Option<&'a Filter>,
    /// Oldest entry wanted.
    pub max_age_ms: Option<u64>,
    /// Whether statistics tell why nothing was found; see [`SearchRequest::counts_refused`].
    pub counts_refused: bool,
    /// Whether the nearest entry is wanted even where it is no hit.
    pub explain: bool,
    /// Whether the caller chooses among the hits, so that none is certain to be served.
    pub chooses: bool,
    /// The time.
    pub now: UnixMs,
}

impl LookupRequest<'_> {
    /// A question about nothing yet, without scope and conditions, as a lookup without options asks it.
    pub fn new(now: UnixMs) -> Self {
        Self {
            scope: b"",
            context: b"",
            prompt: None,
            query: None,
            unseen: None,
            threshold: None,
            count: 1,
            ef: None,
            guard: GuardLevel::Off,
            filter: None,
            max_age_ms: None,
            counts_refused: true,
            explain: false,
            chooses: false,
            now,
        }
    }
}

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The prompt was stored byte for byte.
    Exact,
    /// A prompt of like meaning was stored.
    Semantic,
}

impl Tier {
    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }
}

/// A hit, its key still open.
#[derive(Debug)]
pub struct Hit<O> {
    /// Which tier found it.
    pub tier: Tier,
    /// Cosine of question and entry; 1 for the exact tier.
    pub similarity: f64,
    /// The entry.
    pub entry: O,
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct LookupReport<O> {
    /// Best first.
    pub hits: Vec<Hit<O>>,
    /// Why there was none.
    pub reason: Option<MissReason>,
    /// Similarity of the nearest entry, where a search by meaning found one.
    pub nearest_similarity: Option<f64>,
    /// That entry, when an explanation was asked for.
    pub nearest: Option<Nearest>,
    /// The guard that refused the nearest of those that guards refused.
    pub guard: Option<Box<Finding>>,
    /// The threshold applied.
    pub threshold: f64,
    /// Entries of the partition.
    pub candidates: usize,
    /// How the last search went about it; `None` when there was none.
    pub mode: Option<SearchMode>,
    /// Distances computed.
    pub scanned: usize,
    /// Entries near enough that FILTER refused.
    pub filtered: usize,
    /// Entries whose filter could be judged only after opening them.
    pub judged_by_entry: usize,
    /// Entries opened.
    pub opened: usize,
    /// In a cache with MAXERROR whether what is served by meaning is so by a proven threshold.
    pub verified: Option<bool>,
    /// In a cache with MAXERROR the first candidate of a near lookup.
    pub near: Option<Box<Near<O>>>,
}

/// The first candidate of a near lookup: one by meaning, near enough to be told right from wrong.
#[derive(Debug)]
pub struct Near<O> {
    /// Which entry it is.
    pub id: EntryId,
    /// Similarity that is held against thresholds.
    pub similarity: SimilarityE4,
    /// The candidate, where it is not served.
    pub candidate: Option<Hit<O>>,
}

impl<O> LookupReport<O> {
    /// A report without any finding.
    pub fn nothing(threshold: f64) -> Self {
        Self {
            hits: Vec::new(),
            reason: None,
            nearest_similarity: None,
            nearest: None,
            guard: None,
            threshold,
            candidates: 0,
            mode: None,
            scanned: 0,
            filtered: 0,
            judged_by_entry: 0,
            opened: 0,
            verified: None,
            near: None,
        }
    }
}

/// From which similarity on a lookup serves by meaning, and from which on it looks at candidates.
#[derive(Debug, Clone, Copy)]
struct Bar {
    /// Least similarity served; infinite where nothing is.
    threshold: f64,
    /// Least similarity of a candidate: the same, but lower in a cache with MAXERROR.
    floor: f64,
    /// In a cache with MAXERROR whether the threshold is proven.
    verified: Option<bool>,
    /// The threshold in a cache like it without MAXERROR.
    usual: f64,
    /// Whether the nearest entry is to be known.
    keeps_nearest: bool,
}

impl Bar {
    fn of(cache: &Cache, request: &LookupRequest<'_>) -> Self {
        let settings = &cache.settings;
        let usual = request.threshold.unwrap_or(settings.threshold);
        let keeps_nearest = request.explain || settings.near_misses > 0;
        let plain = Self { threshold: usual, floor: usual, verified: None, usual, keeps_nearest };
        let Some(audit) = cache.audit() else { return plain };
        let least = audit.least().as_f64();
        let threshold = match audit.serves_from(settings.threshold) {
            // A lookup can only be stricter.
            Some(from) => request.threshold.map_or(from, |asked| asked.max(from)),
            None => f64::INFINITY,
        };
        let verified = Some(audit.is_proven());
        Self { threshold, floor: least.min(threshold), verified, usual, keeps_nearest }
    }

    /// Whether so near an entry is served.
    fn serves(&self, similarity: f64) -> bool {
        match self.verified {
            // Evidence counts in ten-thousandths: what is served is what a label would count for.
            Some(_) => {
                self.threshold.is_finite()
                    && similarity + f64::EPSILON >= self.threshold
                    && SimilarityE4::of(similarity) >= SimilarityE4::of(self.threshold)
            }
            None => similarity >= self.threshold,
        }
    }
}

/// An entry opened and scored.
struct Scored<O> {
    similarity: f64,
    /// What of it is held against thresholds.
    judged: f64,
    id: EntryId,
    entry: O,
}

/// Looks a question up: the exact prompt first, then the nearest entries by vector.
///
/// ```
/// use llmcache_core::cache::maxerror::TicketSecret;
/// use llmcache_core::cache::{
///     Cache, Entry, Keyspace, LookupRequest, MissReason, Settings, look_up,
/// };
/// use llmcache_core::ids::{ContainerUid, UnixMs};
/// use std::cell::RefCell;
///
/// /// A server that holds an empty cache. A real one opens the key and checks its type.
/// struct Server(RefCell<Cache>);
///
/// impl Keyspace for Server {
///     type Opened = Box<Entry>;
///
///     fn open(&self, _key: &[u8], _served: bool) -> Option<Box<Entry>> {
///         None
///     }
///
///     fn with_cache<R>(&self, work: impl FnOnce(&mut Cache) -> R) -> R {
///         work(&mut self.0.borrow_mut())
///     }
/// }
///
/// let secret = TicketSecret([0; 2]);
/// let cache = Cache::new(b"faq", ContainerUid(1), Settings::default(), secret).unwrap();
/// let server = Server(RefCell::new(cache));
/// let question = LookupRequest { prompt: Some(b"Where is my parcel?"), ..LookupRequest::new(UnixMs(0)) };
/// let Ok(report) = look_up(&server, &question) else { panic!("nothing else has to be done first") };
/// assert!(report.hits.is_empty());
/// assert_eq!(report.reason, Some(MissReason::Empty));
/// ```
///
/// # Errors
///
/// Where work goes on elsewhere, or is more than may be done.
pub fn look_up<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
) -> Looked<LookupReport<K::Opened>> {
    let bar = keyspace.with_cache(|cache| Bar::of(cache, request));
    let mut report = LookupReport::nothing(bar.threshold);
    report.verified = bar.verified;
    let (mut refused, mut refused_exact) = (Refused::default(), Refused::default());
    let exact = match request.prompt {
        Some(prompt) => {
            open_exact(keyspace, request, prompt, &mut refused_exact, &mut report.opened)?
        }
        None => None,
    };
    let exact_id = exact.as_ref().map(|(id, _)| *id);
    if let Some((_, entry)) = exact {
        report.hits.push(Hit { tier: Tier::Exact, similarity: 1.0, entry });
    }
    if let Some(query) = request.query
        && (report.hits.len() < request.count || request.explain)
    {
        search(keyspace, (request, bar), query, exact_id, &mut report, &mut refused)?;
    }
    refused.merge_exact(&refused_exact);
    report.filtered += refused.filter.count;
    note_guarded(bar, refused.nearest_guarded.take(), &mut report);
    if report.hits.is_empty() {
        let nearest = report.nearest_similarity;
        // What would be served if anything were.
        let is_shut = bar.threshold.is_infinite();
        let threshold = if is_shut { bar.usual } else { bar.threshold };
        let is_unproven = is_shut && nearest.is_some_and(|nearest| nearest >= bar.usual);
        report.reason = Some(match miss_reason(&refused, threshold, nearest) {
            _ if keyspace.with_cache(|cache| cache.is_filling()) => MissReason::Filling,
            MissReason::BelowThreshold if is_unproven => MissReason::Unproven,
            reason => reason,
        });
    }
    Ok(report)
}

/// Makes an entry that a guard refused the nearest, where it is.
fn note_guarded<O>(bar: Bar, guarded: Option<(Nearest, Finding)>, report: &mut LookupReport<O>) {
    let Some((nearest, finding)) = guarded else { return };
    report.guard = Some(Box::new(finding));
    if report.nearest_similarity.is_none_or(|other| nearest.similarity > other) {
        report.nearest_similarity = Some(nearest.similarity);
        report.nearest = bar.keeps_nearest.then_some(nearest);
    }
}

fn open_exact<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
    prompt: &[u8],
    refused: &mut Refused,
    opened: &mut usize,
) -> Looked<Option<(EntryId, K::Opened)>> {
    let id = EntryId::of(request.scope, request.context, prompt);
    let (key, uid) = keyspace.with_cache(|cache| (cache.entry_key(&id), cache.uid()));
    let served = request.filter.is_none() && request.max_age_ms.is_none();
    keyspace.spend(Steps { keys: 1, bytes: prompt.len() as u64, ..Steps::NONE })?;
    let Some(entry) = keyspace.open(&key, served) else { return Ok(None) };
    *opened += 1;
    let view = entry.view();
    let proven = view.uid() == uid && view.answers(request.scope, request.context, prompt);
    if proven && is_gone(keyspace, &view) {
        refused.invisible.add(1.0);
        return Ok(None);
    }
    let accepted = proven && accepts(keyspace, request, &view, 1.0, refused)?;
    Ok(accepted.then_some((id, entry)))
}

/// Whether the entry was invalidated.
fn is_gone<K: Keyspace>(keyspace: &K, view: &EntryView<'_>) -> bool {
    keyspace.with_cache(|cache| cache.epochs().standing(view) == Some(Severity::Gone))
}

/// Applies what can only be judged on the opened entry.
fn accepts<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
    view: &EntryView<'_>,
    similarity: f64,
    refused: &mut Refused,
) -> Looked<bool> {
    if request.max_age_ms.is_some_and(|max| request.now.0.saturating_sub(view.created().0) > max) {
        refused.too_old.add(similarity);
        return Ok(false);
    }
    let passes = match request.filter {
        Some(filter) => passes(keyspace, filter, view)?,
        None => true,
    };
    if !passes {
        refused.filter.add(similarity);
    }
    Ok(passes)
}

/// Whether an opened entry, which is proven to be what the index believes or was found without it, passes a filter.
fn passes<K: Keyspace>(keyspace: &K, filter: &Filter, view: &EntryView<'_>) -> Looked<bool> {
    let mut steps = Steps::default();
    let (slot, seq) = (view.slot(), view.seq());
    let of_record = keyspace.with_cache(|cache| {
        let slot = cache.index.slot_of(slot, seq)?;
        Some(filter.judge_record(slot.record, &mut steps))
    });
    let is_long = view.meta().is_some_and(|meta| meta.len() > JUDGED_AGAIN_MAX_BYTES);
    let verdict = match of_record {
        Some(verdict) if is_long && verdict != Verdict::NeedsEntry => verdict,
        _ => {
            let meta = view.meta_object().unwrap_or(serde_json::Value::Null);
            steps.bytes += view.meta().map_or(0, |meta| meta.len()) as u64;
            if let (Some(Verdict::NeedsEntry), Some(meta)) = (of_record, meta.as_object()) {
                keyspace.with_cache(|cache| {
                    cache.index.note_asked(filter);
                    cache.index.widen_record(slot, seq, meta, filter);
                });
            }
            filter.judge(&meta, &mut steps)
        }
    };
    keyspace.spend(steps)?;
    match verdict {
        Verdict::Yes => Ok(true),
        Verdict::No | Verdict::NeedsEntry => Ok(false),
        Verdict::TooLong => Err(too_many_steps().into()),
    }
}

impl<O: Deref<Target = Entry>> Scored<O> {
    fn id_text(&self) -> Vec<u8> {
        id_text(&self.entry.view(), self.id)
    }
}

/// What a search by meaning compares candidates with.
struct Asked<'r, 'a> {
    request: &'r LookupRequest<'a>,
    query: &'r Query,
    /// The prompt, for the guards.
    question: Question,
    rules: Rules,
    bar: Bar,
    /// Entries to be scored.
    wanted: usize,
    /// The hit of the exact tier: it is open already, and no key is opened twice.
    exact_id: Option<EntryId>,
    /// Of an entry, what scoring it reads: up to the end of its vector, and a little of what is behind.
    entry_bytes: usize,
}

impl Asked<'_, '_> {
    /// How far the similarity of a slot's code may lie from that of its entry.
    fn bound(&self, cache: &Cache, slot: SlotId) -> f32 {
        let scale = cache.index.code(slot).map_or(f32::MAX, |(_, scale)| scale);
        error_bound(self.query.scale(), scale)
    }

    /// Whether guards may refuse what is near enough.
    fn guards_judge(&self) -> bool {
        self.request.unseen.is_some()
            || self.rules.level == GuardLevel::Strict
            || (self.rules.level == GuardLevel::On && self.request.prompt.is_some())
    }

    /// How many keys are opened at once: more than one only where each would be opened in any case.
    fn ahead(&self) -> usize {
        if self.guards_judge() { 1 } else { OPEN_AHEAD }
    }

    /// Why an answer to a prompt that is so near should not be served, if it should not.
    fn refuses(&self, prompt: &[u8], similarity: f64) -> Option<Finding> {
        let headroom = match self.bar.verified {
            // Whether an exchanged word counts is asked of every candidate, however near.
            Some(_) => 0.0,
            None => similarity - self.bar.threshold,
        };
        self.question.refuses(prompt, self.rules, headroom)
    }

    /// Whether an entry that is near enough is certain to be served.
    fn nothing_refuses(&self) -> bool {
        let request = self.request;
        let refusable =
            self.guards_judge() || request.filter.is_some() || request.max_age_ms.is_some();
        !refusable && !request.chooses
    }
}

/// Candidates that were looked at: in the searches before, and by this one, which names each once.
struct Seen {
    before: HashSet<SlotId>,
    now: Vec<SlotId>,
    /// Of how many the key was opened.
    opened: usize,
}

impl Seen {
    fn count(&self) -> usize {
        self.before.len() + self.now.len()
    }
}

fn search<K: Keyspace>(
    keyspace: &K,
    (request, bar): (&LookupRequest<'_>, Bar),
    query: &Query,
    exact_id: Option<EntryId>,
    report: &mut LookupReport<K::Opened>,
    refused: &mut Refused,
) -> Looked<()> {
    let partition = PartitionKey::of(request.scope, request.context);
    report.candidates = keyspace.with_cache(|cache| cache.index.partition_len(partition));
    let (rules, quant, min_seq) = keyspace.with_cache(|cache| {
        let settings = &cache.settings;
        let rules = settings.rules(request.guard);
        (rules, settings.quant, cache.epochs().min_seq(request.scope))
    });
    let asked = Asked {
        request,
        query,
        question: Question::new(request.prompt.filter(|_| rules.level > GuardLevel::Off))
            .with_unseen(request.unseen),
        rules,
        bar,
        wanted: request.count,
        exact_id,
        entry_bytes: Entry::HEADER_BYTES + quant.encoded_len(query.dim()) + 64,
    };
    let mut limit = asked.wanted + RESCORE_EXTRA_MAX;
    let mut seen = Seen { before: HashSet::new(), now: Vec::with_capacity(limit), opened: 0 };
    let mut scored: Vec<Scored<K::Opened>> = Vec::with_capacity(limit);
    loop {
        let searched = SearchRequest {
            code: query.code(),
            scale: query.scale(),
            partition,
            limit,
            ef: request.ef,
            now: request.now,
            min_seq,
            filter: request.filter,
            counts_refused: request.counts_refused,
        };
        let found = keyspace.search(&searched)?;
        if found.too_long > 0 {
            return Err(too_many_steps().into());
        }
        if found.undecided > UNDECIDED_MAX && keyspace.learn(&searched)? {
            continue;
        }
        report.scanned += found.scanned;
        report.mode = Some(found.mode);
        let decided = open_candidates(keyspace, &asked, &found, &mut seen, &mut scored, refused)?;
        let exhausted = found.candidates.len() < limit;
        if decided || exhausted {
            report.judged_by_entry = found.undecided;
            refused.filter.join(found.filtered);
            refused.invisible.join(found.invisible);
            break;
        }
        limit *= 4;
        seen.before.extend(seen.now.drain(..));
    }
    report.opened += seen.opened;
    finish_search(&asked, scored, report);
    Ok(())
}

/// Opens the candidates in their order until no unopened one could displace a result: until enough
/// were scored and the next one's code is further below the last place than codes can err; or until
/// guards refused so many that this is a question of which only the number changes. Answers whether
/// that point was reached.
fn open_candidates<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    found: &SearchResult,
    seen: &mut Seen,
    scored: &mut Vec<Scored<K::Opened>>,
    refused: &mut Refused,
) -> Looked<bool> {
    let mut spare = RESCORE_EXTRA_MAX;
    let new = |found: &&Candidate| !seen.before.contains(&found.slot);
    let mut left = found.candidates.iter().filter(new).peekable();
    let mut opened = SmallVec::<[Opened<K::Opened>; OPEN_AHEAD]>::new();
    loop {
        if refused.is_enough() || seen.count() >= asked.wanted + LOOKUP_REFUSED_MAX {
            return Ok(true);
        }
        let missing = asked.wanted.saturating_sub(scored.len());
        for candidate in left.by_ref().take(missing.clamp(1, asked.ahead())) {
            if missing == 0 {
                let last = scored[asked.wanted - 1].judged;
                let bound = keyspace.with_cache(|cache| asked.bound(cache, candidate.slot));
                if spare == 0 || f64::from(candidate.approx + bound) < last {
                    return Ok(true);
                }
                spare -= 1;
            }
            seen.now.push(candidate.slot);
            keyspace.spend(Steps { keys: 1, ..Steps::NONE })?;
            if let Some(next) = open(keyspace, asked, candidate, missing > 0) {
                seen.opened += 1;
                opened.push(next);
            }
        }
        if opened.is_empty() && left.peek().is_none() {
            return Ok(scored.len() >= asked.wanted);
        }
        for opened in opened.drain(..) {
            let Some(next) = score(keyspace, asked, opened, refused)? else { continue };
            let place = scored.partition_point(|s| {
                s.judged > next.judged || (s.judged == next.judged && s.id_text() < next.id_text())
            });
            scored.insert(place, next);
        }
    }
}

/// Keys that are opened before the first of their entries is scored, which waits less for its memory
/// then.
const OPEN_AHEAD: usize = 16;

/// A candidate whose key was opened, or could not be.
struct Opened<O> {
    candidate: Candidate,
    uid: ContainerUid,
    id: EntryId,
    seq: Seq,
    entry: Option<O>,
}

/// Opens the key of a candidate, if the index still has it.
fn open<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    candidate: &Candidate,
    wanted: bool,
) -> Option<Opened<K::Opened>> {
    let slot = candidate.slot;
    let (key, uid, id, seq, bound) = keyspace.with_cache(|cache| {
        let found = cache.index.slot(slot).filter(|found| asked.exact_id != Some(found.id))?;
        let (id, seq) = (found.id, found.seq());
        Some((cache.entry_key(&id), cache.uid(), id, seq, asked.bound(cache, slot)))
    })?;
    let served = wanted
        && asked.nothing_refuses()
        && f64::from(candidate.approx - bound) >= asked.bar.threshold;
    let entry = keyspace.open(&key, served);
    if let Some(entry) = &entry {
        keyspace.prefetch(entry, asked.entry_bytes);
    }
    Some(Opened { candidate: *candidate, uid, id, seq, entry })
}

/// Proves that an opened candidate is what the index believes, and scores it exactly.
fn score<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    opened: Opened<K::Opened>,
    refused: &mut Refused,
) -> Looked<Option<Scored<K::Opened>>> {
    let Opened { candidate: Candidate { slot, approx }, uid, id, seq, entry } = opened;
    let Some(entry) = entry else {
        keyspace.with_cache(|cache| cache.index.hide(slot, seq));
        refused.invisible.add(f64::from(approx));
        return Ok(None);
    };
    let view = entry.view();
    if !is_claimed(&view, uid, slot, seq) {
        // The key lives and says otherwise: this slot is a leftover.
        keyspace.with_cache(|cache| cache.index.remove(slot, seq));
        return Ok(None);
    }
    let request = asked.request;
    if !view.is_in(request.scope, request.context) {
        return Ok(None);
    }
    if is_gone(keyspace, &view) {
        refused.invisible.add(f64::from(approx));
        return Ok(None);
    }
    let Some(vector) = view.vector() else { return Ok(None) };
    let similarity = vector.similarity(asked.query);
    if !accepts(keyspace, request, &view, similarity, refused)? {
        return Ok(None);
    }
    let mut judged = similarity;
    if similarity >= asked.bar.floor && asked.guards_judge() {
        // A guard takes both apart, letter by letter.
        keyspace.spend(Steps { path: view.prompt().len() as u64, ..Steps::NONE })?;
        if let Some(finding) = asked.refuses(view.prompt(), similarity) {
            // What is only not near enough is a candidate still, at less than its similarity.
            let is_candidate = asked.bar.verified.is_some() && finding.refusal == Refusal::Exchange;
            if !is_candidate {
                refused.note_guarded(&view, id, similarity, finding);
                return Ok(None);
            }
            judged = similarity - EXCHANGE_PENALTY;
            if asked.bar.serves(similarity) && !asked.bar.serves(judged) {
                refused.note_guarded(&view, id, similarity, finding);
            }
        }
    }
    Ok(Some(Scored { similarity, judged, id, entry }))
}

/// Opens the entry in a slot that words named, and proves it.
pub(super) fn open_found<K: Keyspace>(keyspace: &K, slot: SlotId) -> Option<K::Opened> {
    let (key, uid, seq) = keyspace.with_cache(|cache| {
        let found = cache.index.slot(slot)?;
        Some((cache.entry_key(&found.id), cache.uid(), found.seq()))
    })?;
    let Some(entry) = keyspace.open(&key, false) else {
        keyspace.with_cache(|cache| cache.index.hide(slot, seq));
        return None;
    };
    if !is_claimed(&entry.view(), uid, slot, seq) {
        // The key lives and says otherwise: this slot is a leftover.
        keyspace.with_cache(|cache| cache.index.remove(slot, seq));
        return None;
    }
    Some(entry)
}

/// Whether an entry that words named is what is asked for.
pub(super) fn accepts_found<K: Keyspace>(
    keyspace: &K,
    request: &LookupRequest<'_>,
    view: &EntryView<'_>,
    refused: &mut Refused,
) -> Looked<bool> {
    if !view.is_in(request.scope, request.context) || is_gone(keyspace, view) {
        return Ok(false);
    }
    accepts(keyspace, request, view, 0.0, refused)
}

fn is_claimed(view: &EntryView<'_>, uid: ContainerUid, slot: SlotId, seq: Seq) -> bool {
    view.uid() == uid && view.is_at(slot, seq)
}

fn finish_search<O: Deref<Target = Entry>>(
    asked: &Asked<'_, '_>,
    scored: Vec<Scored<O>>,
    report: &mut LookupReport<O>,
) {
    let (request, query) = (asked.request, asked.query);
    let of_exact = report.hits.first().zip(asked.exact_id).and_then(|(hit, id)| {
        let view = hit.entry.view();
        let vector = view.vector().filter(|vector| vector.dim() == query.dim())?;
        Some((vector.similarity(query), view, id))
    });
    let of_scored = scored.first().map(|first| (first.similarity, first.entry.view(), first.id));
    let nearest =
        of_exact.into_iter().chain(of_scored).reduce(|a, b| if b.0 > a.0 { b } else { a });
    report.nearest_similarity = nearest.as_ref().map(|nearest| nearest.0);
    if asked.bar.keeps_nearest {
        report.nearest = nearest.map(|(similarity, view, id)| Nearest {
            id: id_text(&view, id),
            prompt: view.prompt().to_vec(),
            similarity,
        });
    }
    report.hits.reserve(scored.len().min(request.count));
    let is_near = |first: &Scored<O>| first.judged >= asked.bar.floor;
    let audits = asked.bar.verified.is_some() && report.hits.is_empty();
    if audits && let Some(first) = scored.first().filter(|first| is_near(first)) {
        let similarity = SimilarityE4::of(first.judged);
        report.near = Some(Box::new(Near { id: first.id, similarity, candidate: None }));
    }
    for next in scored {
        let is_served = report.hits.len() < request.count && asked.bar.serves(next.judged);
        let hit = Hit { tier: Tier::Semantic, similarity: next.similarity, entry: next.entry };
        if is_served {
            report.hits.push(hit);
            continue;
        }
        if report.hits.is_empty()
            && let Some(near) = &mut report.near
        {
            near.candidate = Some(hit);
        }
        break;
    }
}

/// Goes on with a search of words; whether it is done.
///
/// # Errors
///
/// Where a filter takes too long.
pub fn run_words(
    cache: &Cache,
    search: &mut WordSearch,
    gate: &Gate<'_>,
    most_steps: u64,
    steps: &mut Steps,
) -> Looked<bool> {
    let mut too_long = 0;
    let is_done = cache.index.search_words(search, gate, most_steps, steps, &mut too_long);
    if too_long > 0 {
        return Err(too_many_steps().into());
    }
    Ok(is_done)
}

/// The error of a question of words where none are indexed.
pub fn no_words() -> Error {
    Error::err("the index has no words: it is made with WORDS and a language")
}
