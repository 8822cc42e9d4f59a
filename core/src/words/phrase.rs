//! Phrases: words that stand one behind the other in a text.
//!
//! Owns: the check of a text that was opened. Positions are not kept in the index: a phrase is looked for in texts
//! that have all its words. Any thread.

use super::analyser::Analyser;

/// Phrases that a text must have, and such as it must not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Phrases {
    required: Vec<Vec<String>>,
    excluded: Vec<Vec<String>>,
}

impl Phrases {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.excluded.is_empty()
    }

    pub(super) fn require(&mut self, words: Vec<String>) {
        self.required.push(words);
    }

    pub(super) fn exclude(&mut self, words: Vec<String>) {
        self.excluded.push(words);
    }

    /// Whether a text has those that it must have and none of the others.
    pub fn accept(&self, analyser: &Analyser, text: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut words: Vec<String> = Vec::new();
        analyser.words(&String::from_utf8_lossy(text), |token| {
            if !token.is_code {
                words.push(token.term.to_owned());
            }
        });
        let has = |phrase: &Vec<String>| words.windows(phrase.len()).any(|window| window == phrase);
        self.required.iter().all(has) && !self.excluded.iter().any(has)
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> impl Iterator<Item = String> + '_ {
        let required = self.required.iter().map(|words| format!("+\"{}\"", words.join(" ")));
        required.chain(self.excluded.iter().map(|words| format!("-\"{}\"", words.join(" "))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Language, WordQuery};
    use super::*;

    #[test]
    fn words_stand_one_behind_the_other() {
        let analyser = Analyser::new(Language::parse(b"english").unwrap());
        let accepts = |query: &str, text: &str| {
            let query = WordQuery::parse(&analyser, query.as_bytes()).unwrap();
            query.phrases.accept(&analyser, text.as_bytes())
        };
        assert!(accepts("\"heat shields\"", "The Heat-Shield is hot."));
        assert!(!accepts("\"heat shield\"", "shield of heat"));
        assert!(!accepts("\"heat shield\"", "heat the shield"));
        assert!(accepts("\"heat the shield\"", "heat the shields"));
        assert!(!accepts("nose -\"heat shield\"", "a nose with a heat shield"));
        assert!(accepts("nose -\"heat shield\"", "a nose with a shield"));
        assert!(accepts("\"error ERR-4711 found\"", "an error: ERR-4711, found"));
        assert!(accepts("\"東京都\"", "ここは東京都です"));
    }
}
