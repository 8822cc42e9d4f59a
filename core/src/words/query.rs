//! What a user asks of words: words that count, words that must or must not occur, phrases, beginnings and near misses
//! of words.
//!
//! Owns: the language of `WORDS`. A question is read in time that its length bounds. Parts are divided by spaces: `word`, `+word` (must occur), `-word` (must not),
//! `"some words"` (must occur so), `-"some words"`, `begin*`, `word~` (one edit away at most). Any thread.

use super::analyser::Analyser;
use super::language::Language;
use super::phrase::Phrases;
use super::reading::count_read;
use crate::error::{Error, Result};
use crate::limits::{
    WORDS_EXPANDED_MAX, WORDS_FUZZY_MIN_CHARS, WORDS_PHRASES_MAX, WORDS_PREFIX_MIN_CHARS,
    WORDS_QUERY_MAX_BYTES, WORDS_QUERY_TERMS_MAX,
};
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

/// Whether a text has to have a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It counts where it occurs.
    Counts,
    /// Texts without it are not found.
    Required,
    /// Texts with it are not found.
    Excluded,
    /// It counts in texts that are found by another: the best texts have it ([`WordQuery::learns`]).
    Adds,
}

/// Which words of texts are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Means {
    /// The word itself.
    Exact,
    /// Every word that begins so.
    Prefix,
    /// Every word that one edit makes of it.
    Fuzzy,
}

/// One word that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// The word as it is indexed.
    pub term: String,
    /// Which words are meant.
    pub means: Means,
    /// Whether it has to occur.
    pub need: Need,
    /// How often the question names it.
    pub times: u32,
}

impl Clause {
    /// Whether it means a word of a text.
    pub(super) fn means(&self, word: &str) -> bool {
        match self.means {
            Means::Exact => self.term == word,
            Means::Prefix => word.starts_with(&self.term),
            Means::Fuzzy => is_one_edit(&self.term, word),
        }
    }
}

/// A question of words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordQuery {
    /// The words, each once.
    pub clauses: Vec<Clause>,
    /// Phrases, which only the text itself can tell.
    pub phrases: Phrases,
    /// Whether words that the best texts have are added, as suits a question in the words of somebody who does not know
    /// those of the texts.
    pub learns: bool,
}

/// A part of a question, as it is written.
struct Part<'a> {
    text: &'a str,
    sign: Option<char>,
    is_quoted: bool,
}

impl WordQuery {
    /// A question without a language of its own: each word counts. Of more words than a question may have, and of a longer
    /// text, the first.
    pub fn plain(analyser: &Analyser, text: &[u8]) -> Self {
        let mut query = Asked { most: WORDS_QUERY_TERMS_MAX, ..Asked::default() };
        let text = &text[..text.len().min(WORDS_QUERY_MAX_BYTES)];
        count_read(text.len());
        analyser.words(&String::from_utf8_lossy(text), |token| {
            if !token.is_stop {
                query.add(token.term, Means::Exact, Need::Counts);
            }
        });
        Self { learns: true, ..query.query }
    }

    /// Reads a question.
    ///
    /// # Errors
    ///
    /// Where it is too long, a quote has no end, or nothing in it can be found.
    pub fn parse(analyser: &Analyser, text: &[u8]) -> Result<Self> {
        if text.len() > WORDS_QUERY_MAX_BYTES {
            return Err(Error::too_big("WORDS", text.len(), WORDS_QUERY_MAX_BYTES, "bytes"));
        }
        let text = String::from_utf8_lossy(text);
        count_read(text.len());
        let mut asked = Asked { most: usize::MAX, ..Asked::default() };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (part, behind) = next_part(rest)?;
            asked.take(analyser, &part)?;
            rest = behind.trim_start();
        }
        let query = asked.query;
        if query.clauses.len() > WORDS_QUERY_TERMS_MAX {
            let count = query.clauses.len();
            return Err(Error::too_big("WORDS", count, WORDS_QUERY_TERMS_MAX, "words"));
        }
        let expanded = query.clauses.iter().filter(|clause| clause.means != Means::Exact).count();
        if expanded > WORDS_EXPANDED_MAX {
            return Err(Error::too_big("WORDS", expanded, WORDS_EXPANDED_MAX, "words with * or ~"));
        }
        if query.phrases.len() > WORDS_PHRASES_MAX {
            let count = query.phrases.len();
            return Err(Error::too_big("WORDS", count, WORDS_PHRASES_MAX, "phrases"));
        }
        let asks_something = !query.clauses.is_empty() || !query.phrases.is_empty();
        if asks_something && query.clauses.iter().all(|clause| clause.need == Need::Excluded) {
            return Err(Error::err("WORDS only excludes: it needs a word that may occur"));
        }
        Ok(query)
    }

    /// Whether the words alone decide which texts are found, so that others are not, however near they are.
    pub fn is_strict(&self) -> bool {
        self.clauses.iter().any(|clause| clause.need != Need::Counts) || !self.phrases.is_empty()
    }
}

/// A question that is being read.
#[derive(Default)]
struct Asked {
    query: WordQuery,
    /// Where each clause is.
    places: HashMap<(String, Means, Need), usize>,
    /// The phrases, and whether each is excluded.
    phrases: HashSet<(Vec<String>, bool)>,
    /// Most words that are taken.
    most: usize,
}

impl Asked {
    fn take(&mut self, analyser: &Analyser, part: &Part<'_>) -> Result<()> {
        let need = match part.sign {
            Some('+') => Need::Required,
            Some(_) => Need::Excluded,
            None if part.is_quoted => Need::Required,
            None => Need::Counts,
        };
        if !part.is_quoted {
            if let Some(beginning) = part.text.strip_suffix('*') {
                return self.expand(analyser, beginning, Means::Prefix, need);
            }
            if let Some(word) = part.text.strip_suffix('~') {
                return self.expand(analyser, word, Means::Fuzzy, need);
            }
        }
        let (mut words, mut phrase, mut has_code) = (Vec::new(), Vec::new(), false);
        analyser.words(part.text, |token| {
            has_code |= token.is_code;
            if !token.is_code {
                phrase.push(token.term.to_owned());
            }
            if !token.is_stop {
                words.push((token.term.to_owned(), token.is_code));
            }
        });
        let is_phrase = phrase.len() > 1 && (part.is_quoted || need == Need::Excluded && !has_code);
        if is_phrase && need == Need::Excluded {
            self.add_phrase(phrase, true);
            return Ok(());
        }
        if is_phrase {
            if words.is_empty() {
                return Err(Error::err(
                    "WORDS: a phrase of stop words alone cannot be found; add a word to it",
                ));
            }
            self.add_phrase(phrase, false);
        }
        for (word, is_code) in words {
            // Of a code that must occur, or must not, the whole decides.
            let decides = !has_code || is_code || is_phrase;
            match need {
                Need::Excluded if !decides => {}
                _ => self.add(&word, Means::Exact, if decides { need } else { Need::Counts }),
            }
        }
        Ok(())
    }

    /// Adds a phrase, once.
    fn add_phrase(&mut self, words: Vec<String>, is_excluded: bool) {
        if self.phrases.insert((words.clone(), is_excluded)) {
            self.query.phrases.add(words, is_excluded);
        }
    }

    fn expand(&mut self, analyser: &Analyser, word: &str, means: Means, need: Need) -> Result<()> {
        let (least, what) = match means {
            Means::Fuzzy => (WORDS_FUZZY_MIN_CHARS, "WORDS: a word before ~"),
            _ => (WORDS_PREFIX_MIN_CHARS, "WORDS: a beginning before *"),
        };
        let mut terms = Vec::new();
        if means == Means::Fuzzy {
            analyser.words(word, |token| terms.push(token.term.to_owned()));
        } else {
            // A beginning has no ending to be taken off.
            Analyser::new(Language::NONE).words(word, |token| terms.push(token.term.to_owned()));
        }
        match &terms[..] {
            [term] if term.chars().count() >= least => self.add(term, means, need),
            _ => {
                return Err(Error::err(format!(
                    "{what} needs to be one word of at least {least} characters"
                )));
            }
        }
        Ok(())
    }

    fn add(&mut self, term: &str, means: Means, need: Need) {
        let clauses = &mut self.query.clauses;
        let key = (term.to_owned(), means, need);
        if let Some(&place) = self.places.get(&key) {
            clauses[place].times += 1;
        } else if clauses.len() < self.most {
            self.places.insert(key, clauses.len());
            clauses.push(Clause { term: term.to_owned(), means, need, times: 1 });
        }
    }
}

/// The next part of a question, and what is behind it.
fn next_part(rest: &str) -> Result<(Part<'_>, &str)> {
    let sign = rest.chars().next().filter(|&c| c == '+' || c == '-');
    let body = if sign.is_some() { &rest[1..] } else { rest };
    if let Some(quoted) = body.strip_prefix('"') {
        let Some((text, behind)) = quoted.split_once('"') else {
            return Err(Error::err("WORDS: a quote has no end"));
        };
        return Ok((Part { text, sign, is_quoted: true }, behind));
    }
    let end = body.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(body.len());
    let (text, behind) = body.split_at(end);
    Ok((Part { text, sign, is_quoted: false }, behind))
}

/// Whether two words are equal but for one character that is added, left out, another, or in the place of its neighbour.
fn is_one_edit(one: &str, other: &str) -> bool {
    if one.len().abs_diff(other.len()) > 4 {
        return false;
    }
    let (one, other): (SmallVec<[char; 32]>, SmallVec<[char; 32]>) =
        (one.chars().collect(), other.chars().collect());
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same..], &other[same..]);
    match (one, other) {
        ([], []) => true,
        _ if one.len() == other.len() => {
            one[1..] == other[1..]
                || one.len() > 1
                    && one[0] == other[1]
                    && one[1] == other[0]
                    && one[2..] == other[2..]
        }
        _ if one.len() + 1 == other.len() => *one == other[1..],
        _ if one.len() == other.len() + 1 => one[1..] == *other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Language;
    use super::*;

    fn shown(text: &str) -> String {
        let analyser = Analyser::new(Language::parse(b"english").unwrap());
        let query = match WordQuery::parse(&analyser, text.as_bytes()) {
            Ok(query) => query,
            Err(error) => return error.to_string(),
        };
        let clauses = query.clauses.iter().map(|clause| {
            let need = match clause.need {
                Need::Counts => "",
                Need::Required => "+",
                Need::Excluded => "-",
                Need::Adds => "?",
            };
            let means = match clause.means {
                Means::Exact => "",
                Means::Prefix => "*",
                Means::Fuzzy => "~",
            };
            let times = if clause.times > 1 { format!("^{}", clause.times) } else { String::new() };
            format!("{need}{}{means}{times}", clause.term)
        });
        clauses.chain(query.phrases.shown()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parts_are_words_signs_and_quotes() {
        let cases = [
            ("wings of planes", "wing plane"),
            ("wing wings", "wing^2"),
            ("+wing -tail", "+wing -tail"),
            ("+ERR-4711", "+err-4711 err 4711"),
            ("-ERR-4711 broken", "-err-4711 broken"),
            ("\"heat shield\" nose", "+heat +shield nose +\"heat shield\""),
            ("nose -\"heat shield\"", "nose -\"heat shield\""),
            ("nose -heat-shield", "nose -\"heat shield\""),
            ("\"the wing\"", "+wing +\"the wing\""),
            ("\"wing\"", "+wing"),
            ("aero* wingz~", "aero* wingz~"),
            ("+aero*", "+aero*"),
            ("a*", "ERR WORDS: a beginning before * needs to be one word of at least 2 characters"),
            ("ab~", "ERR WORDS: a word before ~ needs to be one word of at least 3 characters"),
            ("\"open", "ERR WORDS: a quote has no end"),
            ("-wing", "ERR WORDS only excludes: it needs a word that may occur"),
            ("-\"heat shield\"", "ERR WORDS only excludes: it needs a word that may occur"),
            (
                "\"to be\"",
                "ERR WORDS: a phrase of stop words alone cannot be found; add a word to it",
            ),
            ("the of", ""),
            ("", ""),
            ("+ - \"\"", ""),
            ("one\"two three\"", "one +two +three +\"two three\""),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_plain_question_has_no_signs() {
        let analyser = Analyser::new(Language::NONE);
        let query = WordQuery::plain(&analyser, b"why -x \"a b\" c*?");
        assert!(!query.is_strict());
        assert_eq!(query.clauses.len(), 5);
    }

    #[test]
    fn one_edit() {
        let cases = [
            ("wing", "wing", true),
            ("wing", "wings", true),
            ("wing", "ing", true),
            ("wing", "wong", true),
            ("wing", "wnig", true),
            ("wing", "wign", true),
            ("wing", "swing", true),
            ("wing", "wi", false),
            ("wing", "wong2", false),
            ("wing", "gniw", false),
            ("", "a", true),
            ("é", "e", true),
            ("ab", "ba", true),
            ("abc", "cba", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(is_one_edit(one, other), expected, "{one} {other}");
            assert_eq!(is_one_edit(other, one), expected, "{other} {one}");
        }
    }
}
