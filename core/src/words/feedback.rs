//! What the best texts for a question have in common: words that are added to it, so that texts of its matter come first.
//!
//! Owns: which words, and how much they count (relevance model RM3, Abdul-Jaleel and others 2004, with the parameters that
//! are common: ten texts, half the weight for what was asked). Main thread.

use super::bm25::{Scored, idf};
use super::index::WordIndex;
use super::packed::unpack;
use crate::limits::{WORDS_FEEDBACK_TEXT_BYTES, WORDS_FEEDBACK_WORDS};
use crate::work::Steps;
use hashbrown::HashMap;

/// A word that is added to a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Added {
    pub(super) term: String,
    /// In how many texts it is.
    pub(super) rows: u32,
    pub(super) idf: f64,
    pub(super) weight: f64,
}

/// The words that the best texts have, for a question whose words weigh so much together.
pub(super) fn words_of(
    index: &WordIndex,
    best: &[Scored],
    asked: f64,
    steps: &mut Steps,
) -> Vec<Added> {
    let sum: f64 = best.iter().map(|scored| scored.score).sum();
    let idf_of = |rows: u32| idf(f64::from(rows), index.len() as f64);
    let mut weights: HashMap<u32, f64> = HashMap::new();
    for scored in best {
        let words = index.words_of(scored.row);
        if words.len() > WORDS_FEEDBACK_TEXT_BYTES {
            continue;
        }
        steps.rows += 1 + words.len() as u64 / 4;
        let length = f64::from(index.length_of(scored.row));
        for (number, count) in unpack(words) {
            let rows = index.dictionary().term(number).map_or(0, |term| term.postings.rows());
            let weight = scored.score / sum * (f64::from(count) / length) * idf_of(rows);
            *weights.entry(number).or_default() += weight;
        }
    }
    let known = weights.into_iter().filter_map(|(number, weight)| {
        let term = index.dictionary().term(number)?;
        let rows = term.postings.rows();
        Some(Added { term: term.text.to_string(), rows, idf: idf_of(rows), weight })
    });
    let mut added: Vec<Added> = known.collect();
    added.sort_unstable_by(|one, other| {
        other.weight.total_cmp(&one.weight).then_with(|| one.term.cmp(&other.term))
    });
    added.truncate(WORDS_FEEDBACK_WORDS);
    let all: f64 = added.iter().map(|added| added.weight).sum();
    added.iter_mut().for_each(|added| added.weight *= asked / all);
    added
}
