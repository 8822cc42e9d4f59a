//! Which of the nearest to take so that they do not all say the same: maximal marginal relevance, after
//! Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998).
//!
//! Owns: the order. Any thread.

/// Picks `count` of the candidates, which stand most relevant first: each time the one with the largest
/// `lambda * relevance - (1 - lambda) * (its largest similarity to one picked before)`; of equals the more
/// relevant. The first is the most relevant whatever `lambda`. Answers their places.
///
/// `similarity` is asked for each pair of a pick and one not yet picked, once.
pub fn pick_diverse(
    relevance: &[f64],
    lambda: f64,
    count: usize,
    mut similarity: impl FnMut(usize, usize) -> f64,
) -> Vec<usize> {
    // The largest similarity to a pick so far; none has one before the first pick.
    let mut nearest = vec![f64::NEG_INFINITY; relevance.len()];
    let mut left: Vec<usize> = (0..relevance.len()).collect();
    let mut picked = Vec::with_capacity(count.min(left.len()));
    while picked.len() < count && !left.is_empty() {
        let marginal = |place: usize| lambda * relevance[place] - (1.0 - lambda) * nearest[place];
        let mut best = 0;
        if !picked.is_empty() {
            for at in 1..left.len() {
                if marginal(left[at]) > marginal(left[best]) {
                    best = at;
                }
            }
        }
        let pick = left.remove(best);
        for &other in &left {
            nearest[other] = nearest[other].max(similarity(pick, other));
        }
        picked.push(pick);
    }
    picked
}

/// How many of these, in their order, stay within a budget of tokens: up to the first that does not fit.
pub fn within_budget(tokens: impl IntoIterator<Item = u64>, budget: u64) -> usize {
    let mut left = budget;
    let fits = |tokens: &u64| {
        let rest = left.checked_sub(*tokens);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    tokens.into_iter().take_while(fits).count()
}

/// Tokens of a text of which nobody said how many it has: a token has about four bytes of English.
pub fn estimated_tokens(text: &[u8]) -> u64 {
    text.len().div_ceil(4) as u64
}
