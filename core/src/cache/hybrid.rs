//! Retrieval by words, alone or fused with retrieval by meaning.
//!
//! Owns: the order of steps: the best by words, the nearest by meaning, each of them opened and proven, and one order
//! of both. What is found on one side is scored on the other too, where the other side is asked and can tell. Main
//! thread.

use super::lookup::{
    Hit, Keyspace, Looked, LookupReport, LookupRequest, accepts_found, look_up, open_found,
};
use super::miss_reason::{Refused, miss_reason};
use super::{EntryView, Tier};
use crate::ids::{PartitionKey, SlotId};
use crate::index::Gate;
use crate::limits::{
    WORDS_DEPTH_A_RESULT, WORDS_DEPTH_MIN, WORDS_PHRASE_TEXTS_MAX, WORDS_SPARE_TEXTS,
};
use crate::words::{Fusion, Phrases, Ranked, Scored, WordQuery, WordSearch, fuse};
use crate::work::Steps;
use hashbrown::HashSet;
use std::cell::OnceCell;

/// A question of words.
#[derive(Debug)]
pub struct WordsRequest<'a> {
    /// The question of meaning, and what holds for both. Without a query vector words alone decide.
    pub lookup: LookupRequest<'a>,
    /// The words.
    pub words: &'a WordQuery,
    /// How both orders become one.
    pub fusion: Fusion,
}

/// What words and fusion say of a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fused {
    /// Cosine of question and entry, where the question has a vector and the entry too.
    pub similarity: Option<f64>,
    /// BM25.
    pub words: f64,
    /// What the order is by: BM25 where words alone were asked for.
    pub score: f64,
}

/// Candidates of each side, for so many results.
fn depth(count: usize) -> usize {
    (WORDS_DEPTH_A_RESULT * count)
        .clamp(WORDS_DEPTH_MIN, crate::limits::COUNT_MAX as usize)
        .max(count)
}

/// Answers a question of words. Beside each hit stands what is known of it.
///
/// # Errors
///
/// Where work goes on elsewhere, or is more than may be done.
pub fn look_up_words<K: Keyspace>(
    keyspace: &K,
    request: &WordsRequest<'_>,
) -> Looked<(LookupReport<K::Opened>, Vec<Fused>)> {
    let LookupRequest { count, query, now, filter, scope, .. } = request.lookup;
    let depth = depth(count);
    let min_seq = keyspace.with_cache(|cache| cache.epochs().min_seq(scope));
    let gate = Gate { now, min_seq, filter };
    let has_phrases = !request.words.phrases.is_empty();
    // Of texts with all words of a phrase, many may not have the phrase.
    let limit = match query {
        _ if has_phrases => WORDS_PHRASE_TEXTS_MAX,
        Some(_) => depth,
        // What is found by words alone need not be fused: little more is looked for than is asked for.
        None => depth.min(count + WORDS_SPARE_TEXTS),
    };
    let mut search = keyspace.search_words(request.words, limit, &gate)?;
    let is_cut = |search: &WordSearch| limit < depth && search.best().len() == limit;
    if is_cut(&search) && ends_within_equals(&search.best(), count) {
        search = keyspace.search_words(request.words, depth, &gate)?;
    }
    let mut refused = Refused::default();
    let mut report = match query {
        Some(_) => {
            look_up(keyspace, &LookupRequest { count: depth, chooses: true, ..request.lookup })?
        }
        None => LookupReport::nothing(-1.0),
    };
    let partition = PartitionKey::of(scope, request.lookup.context);
    report.candidates = keyspace.with_cache(|cache| cache.index.partition_len(partition));
    let mut found = Found { keyspace, request, search, refused: &mut refused, all: Vec::new() };
    found.take_nearest(&mut report)?;
    let take = if query.is_some() { depth } else { count };
    found.take_best(take, &mut report.opened)?;
    if query.is_none() && found.all.len() < count && is_cut(&found.search) {
        // Of what was found much was gone.
        found.search = keyspace.search_words(request.words, depth, &gate)?;
        found.all.clear();
        found.take_best(count, &mut report.opened)?;
    }
    let (hits, fused) = found.fused(count);
    report.hits = hits;
    if report.hits.is_empty() {
        let nearest = report.nearest_similarity;
        report.reason = Some(miss_reason(&refused, report.threshold, nearest));
    } else {
        report.reason = None;
    }
    Ok((report, fused))
}

/// Whether texts that score as the last one wanted does go on to the end of what was found: then more is looked for, as of
/// equals the smaller id comes first.
fn ends_within_equals(best: &[Scored], count: usize) -> bool {
    let last_wanted = count.checked_sub(1).and_then(|last| best.get(last));
    last_wanted.is_some_and(|wanted| best.last().is_some_and(|last| last.score == wanted.score))
}

/// A hit of either side.
struct OfEither<O> {
    hit: Hit<O>,
    similarity: Option<f64>,
    words: Option<f64>,
}

struct Found<'r, 'a, K: Keyspace> {
    keyspace: &'r K,
    request: &'r WordsRequest<'a>,
    search: WordSearch,
    refused: &'r mut Refused,
    all: Vec<OfEither<K::Opened>>,
}

impl<K: Keyspace> Found<'_, '_, K> {
    fn phrases(&self) -> &Phrases {
        &self.request.words.phrases
    }

    /// Whether a text has the phrases that it must have.
    fn has_phrases(&self, view: &EntryView<'_>) -> Looked<bool> {
        if self.phrases().is_empty() {
            return Ok(true);
        }
        // Unpacked only where it is looked into.
        let text = OnceCell::new();
        self.keyspace.judged(view.slot(), view.seq(), |reading| {
            let text = text.get_or_init(|| view.response());
            self.keyspace.with_cache(|cache| match cache.index.words() {
                Some(words) => self.phrases().read(words.analyser(), text, reading),
                None => Some(false),
            })
        })
    }

    /// Takes over what is near, with its score by words.
    fn take_nearest(&mut self, report: &mut LookupReport<K::Opened>) -> Looked<()> {
        for hit in report.hits.drain(..) {
            let mut steps = Steps::NONE;
            let row = hit.entry.view().slot().0;
            let words = self
                .keyspace
                .with_cache(|cache| self.search.score_of(cache.index.words()?, row, &mut steps));
            self.keyspace.spend(steps)?;
            let is_strict = self.request.words.is_strict();
            if is_strict && words.is_none() || !self.has_phrases(&hit.entry.view())? {
                continue;
            }
            let words = words.filter(|&score| score > 0.0);
            self.all.push(OfEither { similarity: Some(hit.similarity), words, hit });
        }
        Ok(())
    }

    /// Takes the best by words, `depth` of them, opens those that were not near, and tells how near they are.
    fn take_best(&mut self, depth: usize, opened: &mut usize) -> Looked<()> {
        let known: HashSet<SlotId> =
            self.all.iter().map(|one| one.hit.entry.view().slot()).collect();
        let (mut taken, mut least) = (0, f64::INFINITY);
        for scored in self.search.best() {
            // Equals are put in order by their ids.
            if taken >= depth && scored.score < least {
                break;
            }
            least = scored.score;
            let slot = SlotId(scored.row);
            if known.contains(&slot) {
                taken += 1;
                continue;
            }
            self.keyspace.spend(Steps { keys: 1, ..Steps::NONE })?;
            let Some(entry) = open_found(self.keyspace, slot) else { continue };
            *opened += 1;
            let lookup = &self.request.lookup;
            if !accepts_found(self.keyspace, lookup, &entry.view(), self.refused)?
                || !self.has_phrases(&entry.view())?
            {
                continue;
            }
            let similarity = lookup.query.and_then(|query| {
                let vector = entry.view().vector().filter(|vector| vector.dim() == query.dim())?;
                Some(vector.similarity(query))
            });
            let hit = Hit {
                tier: Tier::Semantic,
                similarity: similarity.unwrap_or(0.0),
                id: None,
                entry,
            };
            self.all.push(OfEither { similarity, words: Some(scored.score), hit });
            taken += 1;
        }
        Ok(())
    }

    /// The best of all, in one order.
    fn fused(self, count: usize) -> (Vec<Hit<K::Opened>>, Vec<Fused>) {
        let is_words_alone = self.request.lookup.query.is_none();
        let mut ranked: Vec<_> = self
            .all
            .iter()
            .enumerate()
            .map(|(place, one)| Ranked {
                item: (one.hit.entry.view().prompt().to_vec(), place),
                similarity: one.similarity,
                words: one.words,
                score: one.words.unwrap_or(0.0),
            })
            .collect();
        if is_words_alone {
            ranked.sort_by(|one, other| {
                other.score.total_cmp(&one.score).then_with(|| one.item.cmp(&other.item))
            });
        } else {
            fuse(self.request.fusion, &mut ranked);
        }
        let mut left: Vec<_> = self.all.into_iter().map(|one| Some(one.hit)).collect();
        let best = ranked.into_iter().take(count).filter_map(|ranked| {
            let fused = Fused {
                similarity: ranked.similarity,
                words: ranked.words.unwrap_or(0.0),
                score: ranked.score,
            };
            Some((left[ranked.item.1].take()?, fused))
        });
        best.unzip()
    }
}
