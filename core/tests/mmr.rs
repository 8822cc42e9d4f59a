//! Maximal marginal relevance against the definition, word by word, and the budget of tokens.

use llmcache_core::cache::{estimated_tokens, pick_diverse, within_budget};
use proptest::prelude::*;

/// Carbonell and Goldstein: argmax over what is not picked of lambda sim(d, q) - (1 - lambda) max over
/// what is picked of sim(d, s).
fn naive(relevance: &[f64], similarity: &[Vec<f64>], lambda: f64, count: usize) -> Vec<usize> {
    let mut picked: Vec<usize> = Vec::new();
    while picked.len() < count.min(relevance.len()) {
        let mut best: Option<(f64, usize)> = None;
        for one in (0..relevance.len()).filter(|one| !picked.contains(one)) {
            let near = picked.iter().map(|&other| similarity[other][one]).reduce(f64::max);
            let value = match near {
                Some(near) => lambda * relevance[one] - (1.0 - lambda) * near,
                None => relevance[one],
            };
            if best.is_none_or(|(most, _)| value > most) {
                best = Some((value, one));
            }
        }
        picked.extend(best.map(|(_, one)| one));
    }
    picked
}

fn cosine(one: &[f64], other: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

proptest! {
    #[test]
    fn it_is_the_definition(
        rows in prop::collection::vec(prop::collection::vec(-1.0_f64..1.0, 4), 1..40),
        lambda in prop::sample::select(vec![0.0, 0.3, 0.5, 0.9, 1.0]),
        count in 0_usize..50,
    ) {
        prop_assume!(rows.iter().all(|row| row.iter().any(|x| x.abs() > 0.01)));
        let query = [1.0, 0.5, 0.25, 0.125];
        let mut rows = rows;
        rows.sort_by(|a, b| cosine(b, &query).total_cmp(&cosine(a, &query)));
        let relevance: Vec<f64> = rows.iter().map(|row| cosine(row, &query)).collect();
        let similarity: Vec<Vec<f64>> =
            rows.iter().map(|a| rows.iter().map(|b| cosine(a, b)).collect()).collect();
        let picked = pick_diverse(&relevance, lambda, count, |a, b| similarity[a][b]);
        prop_assert_eq!(&picked, &naive(&relevance, &similarity, lambda, count));
        if lambda == 1.0 {
            prop_assert_eq!(picked, (0..count.min(rows.len())).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_budget_is_never_exceeded_and_nothing_that_fits_is_left(
        tokens in prop::collection::vec(0_u64..100, 0..30),
        budget in 0_u64..1_500,
    ) {
        let fit = within_budget(tokens.iter().copied(), budget);
        let taken: u64 = tokens[..fit].iter().sum();
        prop_assert!(taken <= budget);
        if let Some(next) = tokens.get(fit) {
            prop_assert!(taken + next > budget);
        }
    }
}

#[test]
fn pairs_are_compared_once() {
    let mut asked = std::collections::HashSet::new();
    pick_diverse(&[0.9, 0.8, 0.7, 0.6], 0.5, 4, |a, b| {
        assert!(asked.insert((a.min(b), a.max(b))), "{a} and {b} again");
        0.1
    });
}

#[test]
fn huge_counts_do_not_overflow_a_budget() {
    assert_eq!(within_budget([u64::MAX, 1], u64::MAX), 1);
    assert_eq!(within_budget([1, u64::MAX], u64::MAX - 1), 1);
}

#[test]
fn a_token_has_about_four_bytes() {
    for (bytes, tokens) in [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)] {
        assert_eq!(estimated_tokens(bytes), tokens);
    }
}
