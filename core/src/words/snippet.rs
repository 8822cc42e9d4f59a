//! The place of a text that has most of the words asked for.
//!
//! Owns: the choice of the window. Any thread.

use super::analyser::Analyser;
use super::query::{Clause, Means, Need};
use super::reading::count_read;
use hashbrown::HashMap;

/// A part of a text, in bytes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snippet {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Words asked for, in their order.
    pub marks: Vec<(usize, usize)>,
}

struct Word {
    start: usize,
    end: usize,
    clause: Option<usize>,
}

/// The window of at most `words` words that has most of the words asked for, each counted by its weight once and again
/// a tenth of it; of equals the first. `weight_of` tells how much a word of the text weighs, by its clause.
pub fn snippet(
    analyser: &Analyser,
    text: &str,
    clauses: &[Clause],
    words: usize,
    weight_of: impl Fn(usize) -> f64,
) -> Snippet {
    let all = marked(analyser, text, clauses);
    let Some(last) = all.last() else { return Snippet::default() };
    let width = words.max(1);
    let mut counts = vec![0u32; clauses.len()];
    let (mut score, mut best, mut at) = (0.0, (0.0, 0), 0);
    for (place, word) in all.iter().enumerate() {
        if let Some(clause) = word.clause {
            score += weight_of(clause) * if counts[clause] == 0 { 1.0 } else { AGAIN };
            counts[clause] += 1;
        }
        if place - at >= width {
            if let Some(clause) = all[at].clause {
                counts[clause] -= 1;
                score -= weight_of(clause) * if counts[clause] == 0 { 1.0 } else { AGAIN };
            }
            at += 1;
        }
        // What rounding leaves of a sum is no better window.
        if score > best.0 * (1.0 + 1e-9) + 1e-12 {
            best = (score, at);
        }
    }
    let from = centred(&all, best.1, width);
    let window = &all[from..all.len().min(from + width)];
    let start = if from == 0 { 0 } else { window[0].start };
    let end = match window.last() {
        Some(word) if word.end < last.end => word.end,
        _ => text.len(),
    };
    let mut marks: Vec<(usize, usize)> = Vec::new();
    for word in window.iter().filter(|word| word.clause.is_some()) {
        match marks.last_mut() {
            // Pairs of characters overlap.
            Some(last) if word.start < last.1 => last.1 = word.end,
            _ => marks.push((word.start, word.end)),
        }
    }
    Snippet { start, end, marks }
}

/// How much a word counts that is there already.
const AGAIN: f64 = 0.1;

/// Moves a window so that what it has stands in its middle.
fn centred(all: &[Word], from: usize, width: usize) -> usize {
    let window = &all[from..all.len().min(from + width)];
    let first = window.iter().position(|word| word.clause.is_some()).unwrap_or(0);
    let last = window.iter().rposition(|word| word.clause.is_some()).unwrap_or(first);
    let room = width.saturating_sub(last - first + 1) / 2;
    (from + first).saturating_sub(room).min(all.len().saturating_sub(width))
}

/// The words of a text, each once, with the clause that it is meant by.
fn marked(analyser: &Analyser, text: &str, clauses: &[Clause]) -> Vec<Word> {
    let mut all: Vec<Word> = Vec::new();
    let mut code: Option<(usize, usize)> = None;
    let looked_for = || clauses.iter().enumerate().filter(|(_, c)| c.need != Need::Excluded);
    let mut exact: HashMap<&str, usize> = HashMap::new();
    for (place, clause) in looked_for().filter(|(_, clause)| clause.means == Means::Exact) {
        exact.entry(&clause.term).or_insert(place);
    }
    // A few at most.
    let wide: Vec<_> = looked_for().filter(|(_, clause)| clause.means != Means::Exact).collect();
    count_read(text.len());
    analyser.words(text, |token| {
        let widely = wide.iter().find(|(_, clause)| clause.means(token.term)).map(|(at, _)| *at);
        let clause = exact.get(token.term).copied().into_iter().chain(widely).min();
        if token.is_code {
            code = clause.map(|clause| (clause, token.end));
            return;
        }
        // A code that is asked for is marked with all its parts.
        let whole = code.filter(|&(_, end)| token.end <= end).map(|(clause, _)| clause);
        all.push(Word { start: token.start, end: token.end, clause: whole.or(clause) });
    });
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Language, WordQuery};
    use super::*;

    fn shown(query: &str, text: &str, words: usize) -> String {
        let analyser = Analyser::new(Language::parse(b"english").unwrap());
        let query = WordQuery::parse(&analyser, query.as_bytes()).unwrap();
        let found = snippet(&analyser, text, &query.clauses, words, |_| 1.0);
        let mut out = String::new();
        let mut at = found.start;
        for (start, end) in found.marks {
            out += &format!("{}[{}]", &text[at..start], &text[start..end]);
            at = end;
        }
        out + &text[at..found.end]
    }

    #[test]
    fn the_window_with_most_words_is_shown() {
        let text =
            "One two three. A wing here, four five six seven; then wings and tails eight nine ten.";
        assert_eq!(shown("wing tail", text, 5), "then [wings] and [tails] eight");
        assert_eq!(shown("wing", text, 3), "A [wing] here");
        assert_eq!(shown("nothing", text, 3), "One two three");
        assert_eq!(shown("ten", text, 2), "nine [ten].");
        assert_eq!(shown("one", text, 100), format!("[One]{}", &text[3..]));
        assert_eq!(shown("x", "", 3), "");
    }

    #[test]
    fn codes_beginnings_and_other_scripts_are_marked() {
        assert_eq!(shown("ERR-4711", "saw ERR-4711 twice", 9), "saw [ERR]-[4711] twice");
        assert_eq!(shown("win*", "saw wings twice", 9), "saw [wings] twice");
        assert_eq!(shown("wimg~", "saw a wing", 9), "saw a [wing]");
    }
}
