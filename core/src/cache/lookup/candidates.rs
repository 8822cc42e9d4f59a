//! Opens the candidates of a search and scores them by their stored vectors.
//!
//! Owns: how many keys are opened, in which order, and when no unopened candidate can change the result. No
//! borrow of the cache is alive while a key is opened. Main thread only.

use super::bar::Bar;
use super::keyspace::{Keyspace, Looked};
use super::proof::{accepts, agrees_with_meta, is_claimed, is_gone};
use super::request::LookupRequest;
use crate::cache::Entry;
use crate::cache::guard::{EXCHANGE_PENALTY, Finding, GuardLevel, Question, Refusal, Rules};
use crate::cache::miss_reason::{Refused, id_text};
use crate::filter::{Filter, Verdict};
use crate::ids::{ContainerUid, EntryId, Seq, SlotId};
use crate::index::{Candidate, SearchResult};
use crate::limits::{
    LOOKUP_REFUSED_MAX, RESCORE_EXTRA_MAX, RESCORE_PREFIX_EACH, RESCORE_PREFIX_MAX,
    RESCORE_PREFIX_MIN,
};
use crate::vector::prefix::Prefix;
use crate::vector::{Quant, Query};
use crate::work::Steps;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::ops::Deref;

/// What a search by meaning compares candidates with.
pub struct Asked<'r, 'a> {
    pub request: &'r LookupRequest<'a>,
    pub query: &'r Query,
    /// The prompt, for the guards.
    pub question: Question,
    pub rules: Rules,
    pub bar: Bar,
    /// Entries to be scored.
    pub wanted: usize,
    /// The hit of the exact tier: it is open already, and no key is opened twice.
    pub exact_id: Option<EntryId>,
    /// The first dimensions of the query, where the index compares those alone.
    pub prefix: Option<Prefix>,
    /// Of an entry, what scoring it reads: up to the end of its vector, and a little of what is behind.
    pub entry_bytes: usize,
}

impl<'r, 'a> Asked<'r, 'a> {
    /// What a request compares candidates with, in a cache of these guards and this form of vectors.
    pub fn new(
        (request, bar): (&'r LookupRequest<'a>, Bar),
        (rules, quant, prefix): (Rules, Quant, Option<Prefix>),
        query: &'r Query,
        exact_id: Option<EntryId>,
    ) -> Self {
        let judged = request.prompt.filter(|_| rules.level > GuardLevel::Off);
        Self {
            request,
            query,
            question: Question::new(judged).with_unseen(request.unseen),
            rules,
            bar,
            wanted: request.count,
            exact_id,
            prefix,
            entry_bytes: Entry::HEADER_BYTES + quant.encoded_len(query.dim()) + 64,
        }
    }
}

impl Asked<'_, '_> {
    /// Whether guards may refuse what is near enough.
    fn guards_judge(&self) -> bool {
        self.request.unseen.is_some()
            || self.rules.level == GuardLevel::Strict
            || (self.rules.level == GuardLevel::On && self.request.prompt.is_some())
    }

    /// How many keys are opened at once, while so many results are missing: more than one only where each would be
    /// opened in any case, or most of them because only whole vectors tell which is nearest.
    fn ahead(&self, missing: usize) -> usize {
        match missing {
            _ if self.guards_judge() => 1,
            0 if self.prefix.is_some() => RESCORED_AHEAD,
            _ => missing.clamp(1, OPEN_AHEAD),
        }
    }

    /// What the index is searched with: a code, and its scale.
    pub fn code(&self) -> (&[i8], f32) {
        match &self.prefix {
            None => (self.query.code(), self.query.scale()),
            Some(prefix) => (prefix.code(), prefix.scale()),
        }
    }

    /// Candidates opened beyond those wanted, because what the index knows does not decide which are nearest.
    pub fn spare(&self) -> usize {
        match self.prefix {
            None => RESCORE_EXTRA_MAX,
            Some(_) => {
                (RESCORE_PREFIX_EACH * self.wanted).clamp(RESCORE_PREFIX_MIN, RESCORE_PREFIX_MAX)
            }
        }
    }

    /// Whether a candidate is certain to change nothing, where as many as wanted were scored, the last of them at `last`.
    fn is_too_far(&self, candidate: &Candidate, last: f64) -> bool {
        let most = f64::from(candidate.approx + candidate.bound);
        let is_below_all =
            self.prefix.is_some() && !self.bar.keeps_nearest && most < self.bar.floor;
        is_below_all || most < last
    }

    /// What a search found; where it compared the first dimensions, with the most that the whole similarities may be.
    pub fn widened(&self, mut found: SearchResult) -> SearchResult {
        let Some(prefix) = &self.prefix else { return found };
        for candidate in &mut found.candidates {
            let most = prefix.most_similar(f64::from(candidate.approx + candidate.bound));
            (candidate.approx, candidate.bound) = (most as f32, f32::EPSILON);
        }
        for refused in [&mut found.filtered, &mut found.invisible] {
            refused.nearest = refused.nearest.map(|nearest| prefix.most_similar(nearest));
        }
        found
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

    /// Whether an entry that is near enough and passes the filter is certain to be served.
    fn nothing_else_refuses(&self) -> bool {
        let request = self.request;
        !self.guards_judge() && request.max_age_ms.is_none() && !request.chooses
    }

    /// Whether a candidate is certain to be near enough.
    fn reaches(&self, candidate: &Candidate) -> bool {
        // Where the rest of two vectors may be opposite, nothing is certain.
        self.prefix.is_none() && f64::from(candidate.approx - candidate.bound) >= self.bar.threshold
    }
}

/// Candidates that were looked at: in the searches before, and by this one, which names each once.
pub struct Seen {
    pub before: HashSet<SlotId>,
    pub now: Vec<SlotId>,
    /// Of how many the key was opened.
    pub opened: usize,
}

impl Seen {
    fn count(&self) -> usize {
        self.before.len() + self.now.len()
    }
}

/// An entry opened and scored.
pub struct Scored<O> {
    pub similarity: f64,
    /// What of it is held against thresholds.
    pub judged: f64,
    pub id: EntryId,
    pub entry: O,
}

impl<O: Deref<Target = Entry>> Scored<O> {
    fn id_text(&self) -> Vec<u8> {
        id_text(&self.entry.view(), self.id)
    }
}

/// Entries up to which a question measures all it looks at in one go.
const MEASURED_AT_ONCE: usize = 64;

/// Keys that are opened before the first of their entries is scored, which waits less for its memory
/// then.
const OPEN_AHEAD: usize = 16;

/// The same where more are opened than wanted.
const RESCORED_AHEAD: usize = 8;

/// A candidate whose key was opened, or could not be.
struct Opened<O> {
    candidate: Candidate,
    uid: ContainerUid,
    id: EntryId,
    seq: Seq,
    /// Whether it is to be served if it is what the index believes: its record passed the filter, and nothing else
    /// refuses.
    served: bool,
    entry: Option<O>,
}

/// Opens the candidates in their order until no unopened one could displace a result: until enough
/// were scored and the next one's code is further below the last place than codes can err; or until
/// guards refused so many that this is a question of which only the number changes. Returns whether
/// that point was reached.
pub fn open_candidates<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    found: &SearchResult,
    seen: &mut Seen,
    scored: &mut Vec<Scored<K::Opened>>,
    refused: &mut Refused,
) -> Looked<bool> {
    let mut spare = asked.spare();
    let new = |found: &&Candidate| !seen.before.contains(&found.slot);
    let mut left = found.candidates.iter().filter(new).peekable();
    let mut opened = SmallVec::<[Opened<K::Opened>; OPEN_AHEAD]>::new();
    loop {
        if refused.is_enough() || seen.count() >= asked.wanted + LOOKUP_REFUSED_MAX {
            return Ok(true);
        }
        let missing = asked.wanted.saturating_sub(scored.len());
        let mut is_decided = false;
        for candidate in left.by_ref().take(asked.ahead(missing)) {
            if missing == 0 {
                let last = scored[asked.wanted - 1].judged;
                is_decided = spare == 0 || asked.is_too_far(candidate, last);
                if is_decided {
                    break;
                }
                spare -= 1;
            }
            seen.now.push(candidate.slot);
            keyspace.spend(Steps { keys: 1, ..Steps::NONE })?;
            if let Some(next) = open(keyspace, asked, candidate, missing > 0)? {
                seen.opened += 1;
                opened.push(next);
            }
        }
        if !is_decided && opened.is_empty() && left.peek().is_none() {
            return Ok(scored.len() >= asked.wanted);
        }
        for opened in opened.drain(..) {
            let Some(next) = score(keyspace, asked, opened, refused)? else { continue };
            let place = scored.partition_point(|s| {
                s.judged > next.judged || (s.judged == next.judged && s.id_text() < next.id_text())
            });
            scored.insert(place, next);
        }
        if is_decided {
            return Ok(true);
        }
    }
}

/// Opens the key of a candidate, if the index still has it.
fn open<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    candidate: &Candidate,
    wanted: bool,
) -> Looked<Option<Opened<K::Opened>>> {
    let slot = candidate.slot;
    let may_be_served = wanted && asked.nothing_else_refuses() && asked.reaches(candidate);
    let mut of_filter = Steps::NONE;
    let found = keyspace.with_cache(|cache| {
        let found = cache.index.slot(slot).filter(|found| asked.exact_id != Some(found.id))?;
        let (id, seq) = (found.id, found.seq());
        let mut passes =
            |filter: &Filter| filter.judge_record(found.record, &mut of_filter) == Verdict::Yes;
        let served = may_be_served && asked.request.filter.is_none_or(&mut passes);
        Some((cache.entry_key(&id), cache.uid(), id, seq, served))
    });
    let Some((key, uid, id, seq, served)) = found else { return Ok(None) };
    keyspace.spend(of_filter)?;
    let entry = keyspace.open(&key, served);
    if let Some(entry) = &entry {
        keyspace.prefetch(entry, asked.entry_bytes);
    }
    Ok(Some(Opened { candidate: *candidate, uid, id, seq, served, entry }))
}

/// Proves that an opened candidate is what the index believes, and scores it exactly.
fn score<K: Keyspace>(
    keyspace: &K,
    asked: &Asked<'_, '_>,
    opened: Opened<K::Opened>,
    refused: &mut Refused,
) -> Looked<Option<Scored<K::Opened>>> {
    let Opened { candidate: Candidate { slot, approx, .. }, uid, id, seq, served, entry } = opened;
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
    let similarity = if asked.wanted > MEASURED_AT_ONCE {
        let measure = || vector.similarity(asked.query);
        keyspace.measured(slot, seq, asked.query.dim(), measure)?
    } else {
        vector.similarity(asked.query)
    };
    if served {
        debug_assert!(request.filter.is_none_or(|f| agrees_with_meta(f, &view, Verdict::Yes)));
    } else if !accepts(keyspace, request, &view, similarity, refused)? {
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
