//! The index of words against a naive one: the same texts found, with equal scores to the bit, in the same order,
//! whatever came and went before, and in however short rounds a search goes.

use llmcache_core::words::{
    Analyser, Language, Means, Need, Scored, WordIndex, WordQuery, WordSearch,
};
use llmcache_core::work::Steps;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of the largest index here.
const ROWS_MAX: u32 = 18_000;

/// A small generator, so that a seed says all.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Small numbers more often than large ones, as words are.
    fn skewed(&mut self, end: u64) -> u64 {
        let most = 1 + self.below(end);
        self.below(most)
    }
}

const SYLLABLES: [&str; 16] = [
    "ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "xu", "ing", "er-7", "4711", "_a",
    "東京", "é",
];

fn word(random: &mut Random) -> String {
    let mut number = random.skewed(400);
    let mut word = String::new();
    loop {
        word += SYLLABLES[(number % 16) as usize];
        number /= 16;
        if number == 0 {
            return word;
        }
    }
}

fn text(random: &mut Random) -> String {
    let words = random.skewed(60);
    (0..words).map(|_| word(random)).collect::<Vec<_>>().join(" ")
}

fn question(random: &mut Random) -> String {
    let part = |random: &mut Random| {
        let word = word(random);
        match random.below(12) {
            0 => format!("+{word}"),
            1 => format!("-{word}"),
            2 => format!("{}*", word.chars().take(3).collect::<String>()),
            3 => format!("{word}~"),
            _ => word,
        }
    };
    let parts = 1 + random.below(6);
    (0..parts).map(|_| part(random)).collect::<Vec<_>>().join(" ")
}

/// Every text as a map from word to how often it stands there.
#[derive(Default)]
struct Naive(BTreeMap<u32, BTreeMap<String, u32>>);

impl Naive {
    fn add(&mut self, analyser: &Analyser, row: u32, text: &str) {
        let mut words = BTreeMap::new();
        analyser.words(text, |token| {
            if !token.is_stop {
                *words.entry(token.term.to_owned()).or_insert(0) += 1;
            }
        });
        self.0.insert(row, words);
    }

    fn meant(&self, term: &str, means: Means) -> Vec<String> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for word in self.0.values().flat_map(BTreeMap::keys) {
            let is_meant = match means {
                Means::Exact => word == term,
                Means::Prefix => word.starts_with(term),
                Means::Fuzzy => edits(word, term) <= 1,
            };
            if is_meant {
                *counts.entry(word).or_insert(0) += 1;
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
        counts.into_iter().take(32).map(|(word, _)| word.to_owned()).collect()
    }

    fn idf(&self, texts: f64) -> f64 {
        (1.0 + (self.0.len() as f64 - texts + 0.5) / (texts + 0.5)).ln()
    }

    /// What a search finds that adds words of the best texts.
    fn search(&self, query: &WordQuery, limit: usize, refused: &BTreeSet<u32>) -> Vec<Scored> {
        if !query.learns {
            return self.search_for(query, &[], limit, refused);
        }
        let best = self.search_for(query, &[], 10, refused);
        let sum: f64 = best.iter().map(|scored| scored.score).sum();
        let texts_of =
            |word: &String| self.0.values().filter(|text| text.contains_key(word)).count() as f64;
        let mut weights: BTreeMap<&String, f64> = BTreeMap::new();
        for scored in &best {
            let text = &self.0[&scored.row];
            let length: u32 = text.values().sum();
            for (word, &count) in text {
                let part = f64::from(count) / f64::from(length);
                *weights.entry(word).or_default() +=
                    scored.score / sum * part * self.idf(texts_of(word));
            }
        }
        let mut weights: Vec<_> = weights.into_iter().collect();
        weights.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        weights.truncate(20);
        let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let asked: f64 = query.clauses.iter().map(|clause| f64::from(clause.times)).sum();
        let added: Vec<_> =
            weights.into_iter().map(|(word, weight)| (word, weight * (asked / all))).collect();
        self.search_for(query, &added, limit, refused)
    }

    fn search_for(
        &self,
        query: &WordQuery,
        added: &[(&String, f64)],
        limit: usize,
        refused: &BTreeSet<u32>,
    ) -> Vec<Scored> {
        let total: u64 =
            self.0.values().flat_map(BTreeMap::values).map(|&count| u64::from(count)).sum();
        let mean = (total as f64 / self.0.len().max(1) as f64).max(1.0);
        let clauses: Vec<_> = query
            .clauses
            .iter()
            .map(|clause| {
                let words = self.meant(&clause.term, clause.means);
                let has =
                    |word: &String| self.0.values().filter(|text| text.contains_key(word)).count();
                let texts = words.iter().map(has).sum::<usize>().min(self.0.len()) as f64;
                (clause, words, self.idf(texts))
            })
            .collect();
        let mut found = Vec::new();
        for (&row, text) in &self.0 {
            let length: u32 = text.values().sum();
            let (mut score, mut is_wanted, mut has_any) = (0.0, true, false);
            for (clause, words, idf) in &clauses {
                let counts: Vec<u32> =
                    words.iter().filter_map(|word| text.get(word)).copied().collect();
                is_wanted &= match clause.need {
                    Need::Counts | Need::Adds => true,
                    Need::Required => !counts.is_empty(),
                    Need::Excluded => counts.is_empty(),
                };
                if clause.need == Need::Excluded {
                    continue;
                }
                for count in counts {
                    has_any = true;
                    let count = f64::from(count);
                    let norm = 2.0 * (1.0 - 0.75 + 0.75 * f64::from(length) / mean);
                    score += idf * f64::from(clause.times) * (count * (2.0 + 1.0) / (count + norm));
                }
            }
            for (word, weight) in added {
                let Some(&count) = text.get(*word) else { continue };
                let texts = self.0.values().filter(|text| text.contains_key(*word)).count();
                let count = f64::from(count);
                let norm = 2.0 * (1.0 - 0.75 + 0.75 * f64::from(length) / mean);
                score += self.idf(texts as f64) * weight * (count * (2.0 + 1.0) / (count + norm));
            }
            if is_wanted && has_any && !refused.contains(&row) {
                found.push(Scored { row, score });
            }
        }
        found.sort_by(|one, other| other.score.total_cmp(&one.score).then(one.row.cmp(&other.row)));
        found.truncate(limit);
        found
    }
}

/// Edits between two words, a swap of neighbours as one.
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(one[i - 1] != other[j - 1]);
                let plain =
                    (table[i - 1][j] + 1).min(table[i][j - 1] + 1).min(table[i - 1][j - 1] + same);
                let is_swap =
                    i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                if is_swap { plain.min(table[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    table[one.len()][other.len()]
}

fn find(
    index: &WordIndex,
    query: &WordQuery,
    limit: usize,
    round: u64,
    refused: &BTreeSet<u32>,
) -> Vec<Scored> {
    let mut search = WordSearch::new(index, query, limit);
    let mut steps = Steps::default();
    while !search.run(index, round, &mut steps, |row| !refused.contains(&row)) {}
    assert_eq!(search.score_of(index, u32::MAX, &mut steps), None);
    let alone: Vec<_> = (0..ROWS_MAX).map(|row| search.score_of(index, row, &mut steps)).collect();
    let found = search.best();
    for scored in &found {
        let score = alone[scored.row as usize];
        assert_eq!(score, Some(scored.score), "the score of a row asked for alone");
    }
    found
}

/// Saves and loads.
fn reloaded(index: &WordIndex, language: Language, row_end: u32) -> WordIndex {
    let mut loaded = WordIndex::new(language);
    let sections: Vec<_> = index.sections().collect();
    assert_eq!(sections.len(), index.section_count());
    for section in sections {
        loaded.load_section(&section, row_end).unwrap();
    }
    loaded.finish_load();
    loaded
}

fn run(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let language =
        if seed.is_multiple_of(2) { Language::NONE } else { Language::parse(b"english").unwrap() };
    let (analyser, mut naive) = (Analyser::new(language), Naive::default());
    let mut index = WordIndex::new(language);
    let rows = 1 + random.below(400);
    for step in 0..steps {
        let row = random.below(rows) as u32;
        match random.below(20) {
            0..12 => {
                let text = text(&mut random);
                index.add(row, text.as_bytes());
                naive.add(&analyser, row, &text);
            }
            12..17 => {
                index.mark_removed(row);
                naive.0.remove(&row);
            }
            17 => {
                index.work(random.below(50) as usize);
            }
            18 if random.below(40) == 0 => index = reloaded(&index, language, 400),
            _ => {
                while index.work(1_000) {}
                let text = question(&mut random);
                let Ok(mut query) = WordQuery::parse(&analyser, text.as_bytes()) else { continue };
                query.learns = random.below(4) == 0;
                let limit = random.below(30) as usize;
                let refused = (0..random.below(40)).map(|_| random.below(rows) as u32).collect();
                let round = [1, 7, 100, u64::MAX / 2][random.below(4) as usize];
                let expected = naive.search(&query, limit, &refused);
                let found = find(&index, &query, limit, round, &refused);
                assert_eq!(found, expected, "seed {seed}, step {step}: {text}");
            }
        }
        assert_eq!(index.len(), naive.0.len() as u64);
        if random.below(100) == 0 {
            index.check_invariants();
        }
    }
    index.check_invariants();
    (0..rows as u32).for_each(|row| index.mark_removed(row));
    while index.work(10) {}
    index.check_invariants();
    assert_eq!((index.len(), index.term_count()), (0, 0));
}

#[test]
fn a_search_finds_what_comparing_every_text_finds() {
    for seed in 0..24 {
        run(seed, 1_000);
    }
}

#[test]
fn a_saved_index_finds_the_same() {
    let mut random = Random(5);
    let language = Language::parse(b"english").unwrap();
    let mut index = WordIndex::new(language);
    for row in 0..ROWS_MAX / 2 {
        index.add(row * 2, text(&mut random).as_bytes());
    }
    for row in 0..900 {
        index.mark_removed(row * 20);
    }
    let mut loaded = reloaded(&index, language, ROWS_MAX);
    loaded.check_invariants();
    while index.work(1_000) {}
    assert_eq!((loaded.len(), loaded.term_count()), (index.len(), index.term_count()));
    for _ in 0..50 {
        let text = question(&mut random);
        let Ok(query) = WordQuery::parse(index.analyser(), text.as_bytes()) else { continue };
        let none = BTreeSet::new();
        assert_eq!(find(&loaded, &query, 10, 1_000, &none), find(&index, &query, 10, 1_000, &none));
    }
    loaded.add(3, b"more");
    loaded.check_invariants();
}

#[test]
fn hostile_sections_are_refused_or_working() {
    let mut random = Random(11);
    let mut index = WordIndex::new(Language::NONE);
    for row in 0..60 {
        index.add(row, text(&mut random).as_bytes());
    }
    let sections: Vec<_> = index.sections().collect();
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..20_000 {
        let mut loaded = WordIndex::new(Language::NONE);
        let mut is_fine = true;
        for section in &sections {
            let mut section = section.clone();
            for _ in 0..random.below(3) {
                let at = random.below(section.len() as u64 - 4) as usize;
                section[at] = random.below(256) as u8;
            }
            // With a right checksum, so that what is behind it is tried.
            let body = section.len() - 4;
            let checksum = crc32fast::hash(&section[..body]);
            section[body..].copy_from_slice(&checksum.to_le_bytes());
            is_fine = is_fine && loaded.load_section(&section, 256).is_ok();
        }
        if is_fine {
            loaded.finish_load();
            loaded.check_invariants();
            taken += 1;
        } else {
            refused += 1;
        }
    }
    assert!(refused > 1_000 && taken > 1_000, "{refused} refused, {taken} taken");
}

#[test]
fn a_search_reads_a_small_part_of_long_lists() {
    let mut index = WordIndex::new(Language::NONE);
    for row in 0..40_000u32 {
        let often = if row % 5_000 == 77 { "rare rare" } else { "" };
        let filling = "filler ".repeat(row as usize % 7);
        index.add(row, format!("common {often} {filling} w{}", row % 50).as_bytes());
    }
    let query = WordQuery::parse(index.analyser(), b"common rare w7").unwrap();
    let (mut search, mut steps) = (WordSearch::new(&index, &query, 10), Steps::default());
    assert!(search.run(&index, u64::MAX / 2, &mut steps, |_| true));
    assert_eq!(search.best().len(), 10);
    assert!(steps.rows < 8_000, "{} steps", steps.rows);
}

#[test]
fn memory_is_that_of_the_words() {
    let mut random = Random(3);
    let mut index = WordIndex::new(Language::NONE);
    for row in 0..20_000u32 {
        index.add(row, text(&mut random).as_bytes());
    }
    let per_text = index.bytes() / 20_000;
    assert!(per_text < 120, "{per_text} bytes a text of 15 words on average");
}

#[test]
fn a_removal_costs_the_words_of_its_text() {
    let mut index = WordIndex::new(Language::NONE);
    for row in 0..20_000u32 {
        index.add(row, format!("common words of all texts w{}", row % 500).as_bytes());
    }
    // Six of the old text, two of the new, and the row itself.
    assert_eq!(index.add(777, b"common words"), 6 + 2 + 1);
    assert_eq!(index.add(777, b""), 2 + 1);
    for row in 0..100 {
        index.mark_removed(row * 7);
    }
    let mut rounds = 0;
    while index.work(1) {
        rounds += 1;
    }
    assert_eq!((rounds, index.len()), (99, 19_900));
    index.check_invariants();
}
