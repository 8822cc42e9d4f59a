//! Which of the nearest to take so that they do not all say the same: maximal marginal relevance, after
//! Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998).
//!
//! Owns: the order. Any thread.

/// Picks `count` of the candidates, which stand most relevant first: each time the one with the largest
/// `lambda * relevance - (1 - lambda) * (its largest similarity to one picked before)`; of equals the more
/// relevant. The first is the most relevant whatever `lambda`. Returns their places.
///
/// `similarity` is asked for each pair of a pick and one not yet picked, once.
pub fn pick_diverse(
    relevance: &[f64],
    lambda: f64,
    count: usize,
    mut similarity: impl FnMut(usize, usize) -> f64,
) -> Vec<usize> {
    let mut diversity = Diversity::new(relevance.to_vec(), lambda, count);
    while let Some((pick, other)) = diversity.pair() {
        diversity.tell(similarity(pick, other));
    }
    diversity.into_picks()
}

/// The same comparison by comparison, for who has other things to do in between.
#[derive(Debug)]
pub struct Diversity {
    relevance: Vec<f64>,
    lambda: f64,
    count: usize,
    /// The largest similarity to a pick so far; none has one before the first pick.
    nearest: Vec<f64>,
    left: Vec<usize>,
    picked: Vec<usize>,
    /// Of those left the next to be compared with the last pick.
    at: usize,
}

impl Diversity {
    /// Nothing picked yet.
    pub fn new(relevance: Vec<f64>, lambda: f64, count: usize) -> Self {
        let all = relevance.len();
        let (nearest, left) = (vec![f64::NEG_INFINITY; all], (0..all).collect());
        Self { relevance, lambda, count, nearest, left, picked: Vec::new(), at: 0 }
    }

    /// The next pick and candidate whose similarity is wanted; none where all are picked.
    pub fn pair(&mut self) -> Option<(usize, usize)> {
        loop {
            if self.picked.len() >= self.count {
                return None;
            }
            if let (Some(&pick), Some(&other)) = (self.picked.last(), self.left.get(self.at)) {
                return Some((pick, other));
            }
            if self.left.is_empty() {
                return None;
            }
            self.pick();
        }
    }

    /// How similar the two are that were asked for.
    pub fn tell(&mut self, similarity: f64) {
        let Some(&other) = self.left.get(self.at) else { return };
        self.nearest[other] = self.nearest[other].max(similarity);
        self.at += 1;
    }

    /// The places of those picked, in their order.
    pub fn into_picks(self) -> Vec<usize> {
        self.picked
    }

    fn pick(&mut self) {
        let Self { relevance, lambda, nearest, .. } = self;
        let marginal = |place: usize| *lambda * relevance[place] - (1.0 - *lambda) * nearest[place];
        let mut best = 0;
        if !self.picked.is_empty() {
            for at in 1..self.left.len() {
                if marginal(self.left[at]) > marginal(self.left[best]) {
                    best = at;
                }
            }
        }
        self.picked.push(self.left.remove(best));
        self.at = 0;
    }
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
pub fn estimated_tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}
