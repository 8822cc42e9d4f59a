//! One order of two: what is near by meaning, and what has the words.
//!
//! Owns: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009) and the weighted sum. Any thread.

/// How the two orders become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// The sum over both sides of 1 / (k + rank), ranks from 1.
    Rrf {
        /// How little the first ranks stand out.
        k: f64,
    },
    /// w x similarity + (1 - w) x score of words. Both sides are brought to [0, 1] first: of what is fused the least
    /// becomes 0 and the largest 1.
    Linear {
        /// The weight of meaning.
        weight: f64,
    },
}

/// A text with what either side says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked<T> {
    /// Which.
    pub item: T,
    /// Its similarity, where it is known.
    pub similarity: Option<f64>,
    /// Its score by words, where it has any.
    pub words: Option<f64>,
    /// The fused score.
    pub score: f64,
}

/// Gives each its fused score, and sorts: best first, of equals the smaller item.
pub fn fuse<T: Ord>(fusion: Fusion, all: &mut [Ranked<T>]) {
    match fusion {
        Fusion::Rrf { k } => {
            all.iter_mut().for_each(|ranked| ranked.score = 0.0);
            add_ranks(all, k, |ranked| ranked.similarity);
            add_ranks(all, k, |ranked| ranked.words);
        }
        Fusion::Linear { weight } => {
            let meaning = range(all.iter().filter_map(|ranked| ranked.similarity));
            let words = range(all.iter().map(|ranked| ranked.words.unwrap_or(0.0)));
            for ranked in all.iter_mut() {
                let near = ranked.similarity.map_or(0.0, |score| scaled(score, meaning));
                let worded = scaled(ranked.words.unwrap_or(0.0), words);
                ranked.score = weight * near + (1.0 - weight) * worded;
            }
        }
    }
    all.sort_by(|one, other| {
        by_score(one.score, other.score).then_with(|| one.item.cmp(&other.item))
    });
}

fn by_score(one: f64, other: f64) -> std::cmp::Ordering {
    other.total_cmp(&one)
}

fn add_ranks<T: Ord>(all: &mut [Ranked<T>], k: f64, side: impl Fn(&Ranked<T>) -> Option<f64>) {
    let mut order: Vec<usize> =
        (0..all.len()).filter(|&place| side(&all[place]).is_some()).collect();
    order.sort_by(|&one, &other| {
        let scores = (side(&all[one]).unwrap_or(0.0), side(&all[other]).unwrap_or(0.0));
        by_score(scores.0, scores.1).then_with(|| all[one].item.cmp(&all[other].item))
    });
    for (before, place) in order.into_iter().enumerate() {
        all[place].score += 1.0 / (k + 1.0 + before as f64);
    }
}

fn range(scores: impl Iterator<Item = f64>) -> (f64, f64) {
    scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), score| {
        (least.min(score), most.max(score))
    })
}

fn scaled(score: f64, (least, most): (f64, f64)) -> f64 {
    if most > least { (score - least) / (most - least) } else { f64::from(u8::from(score > 0.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(item: u32, similarity: Option<f64>, words: Option<f64>) -> Ranked<u32> {
        Ranked { item, similarity, words, score: 0.0 }
    }

    fn order(fusion: Fusion, mut all: Vec<Ranked<u32>>) -> Vec<(u32, f64)> {
        fuse(fusion, &mut all);
        all.iter().map(|ranked| (ranked.item, ranked.score)).collect()
    }

    #[test]
    fn ranks_of_both_sides_are_added() {
        let all = vec![
            ranked(1, Some(0.9), None),
            ranked(2, Some(0.8), Some(3.0)),
            ranked(3, None, Some(7.0)),
        ];
        let (first, second) = (1.0 / 61.0, 1.0 / 62.0);
        let expected = [(2, second + second), (1, first), (3, first)];
        assert_eq!(order(Fusion::Rrf { k: 60.0 }, all), expected);
    }

    #[test]
    fn scores_of_both_sides_are_weighed() {
        let all = vec![
            ranked(1, Some(0.9), None),
            ranked(2, Some(0.5), Some(4.0)),
            ranked(3, Some(0.1), Some(8.0)),
        ];
        let expected = [(1, 0.75), (2, 0.5), (3, 0.25)];
        let got = order(Fusion::Linear { weight: 0.75 }, all);
        for ((item, score), (expected_item, expected_score)) in got.into_iter().zip(expected) {
            assert_eq!(item, expected_item);
            assert!((score - expected_score).abs() < 1e-12, "{score} {expected_score}");
        }
    }

    #[test]
    fn one_alone_keeps_what_it_has() {
        assert_eq!(
            order(Fusion::Linear { weight: 0.5 }, vec![ranked(1, Some(0.3), Some(2.0))]),
            [(1, 1.0)]
        );
        assert_eq!(order(Fusion::Linear { weight: 0.5 }, vec![]), []);
    }
}
