//! The lookup of an answer: the exact prompt first, then the nearest entry of its partition above the threshold.
//!
//! Owns: the order of steps and the proof of each hit. An index only suggests; an entry counts after
//! its key was opened and named the same container, slot and store order. No borrow of the cache is
//! alive while a key is opened, because opening an expired key deletes it. Main thread only.

mod bar;
mod candidates;
mod keyspace;
mod proof;
mod request;

pub use keyspace::{Halt, Keyspace, Looked, no_words, run_words, too_many_steps, too_much_at_once};
pub use proof::{accepts_found, open_found};
pub use request::{Hit, LookupReport, LookupRequest, Near};

use bar::Bar;
use candidates::{Asked, Scored, Seen, open_candidates};
use proof::{accepts, is_gone};

use crate::cache::guard::Finding;
use crate::cache::maxerror::SimilarityE4;
use crate::cache::miss_reason::{MissReason, Nearest, Refused, id_text, miss_reason};
use crate::cache::{Entry, Tier};
use crate::ids::{EntryId, PartitionKey};
use crate::index::SearchRequest;
use crate::vector::Query;
use crate::work::Steps;
use hashbrown::HashSet;
use std::ops::Deref;

/// Rows that a filter could not judge by their records, up to which their keys are opened one by one.
const UNDECIDED_MAX: usize = 32;

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
    if let Some((id, entry)) = exact {
        report.hits.push(Hit { tier: Tier::Exact, similarity: 1.0, id: Some(id), entry });
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
    let (rules, quant, dims, min_seq) = keyspace.with_cache(|cache| {
        let settings = &cache.settings;
        let rules = settings.rules(request.guard);
        let min_seq = cache.epochs().min_seq(request.scope);
        (rules, settings.quant, settings.matryoshka, min_seq)
    });
    let prefix = dims.map(|dims| query.prefix(dims as usize));
    if let Some(None) = prefix {
        // Of what nothing is compared, nothing is near. Commands refuse such a vector.
        return Ok(());
    }
    let prefix = prefix.flatten();
    let rest = if prefix.is_some() { Vec::new() } else { query.rest() };
    let asked = Asked::new((request, bar), (rules, quant, prefix), query, exact_id);
    let (code, scale) = asked.code();
    let mut limit = asked.wanted + asked.spare();
    let mut seen = Seen { before: HashSet::new(), now: Vec::with_capacity(limit), opened: 0 };
    let mut scored: Vec<Scored<K::Opened>> = Vec::with_capacity(limit);
    loop {
        let searched = SearchRequest {
            code,
            scale,
            rest: &rest,
            partition,
            limit,
            ef: request.ef,
            now: request.now,
            min_seq,
            filter: request.filter,
            counts_refused: request.counts_refused,
        };
        let found = asked.widened(keyspace.search(&searched)?);
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
        let Scored { similarity, id, entry, .. } = next;
        let hit = Hit { tier: Tier::Semantic, similarity, id: Some(id), entry };
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
