//! The word tables of the guards, read once from `english.txt`.

use hashbrown::{HashMap, HashSet};
use std::sync::LazyLock;

/// What is known of a language.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) negations: HashSet<&'static str>,
    pub(super) idioms: Vec<Vec<&'static str>>,
    pub(super) common: HashSet<&'static str>,
    pub(super) articles: HashSet<&'static str>,
    pub(super) directions: HashSet<&'static str>,
    pub(super) prefixes: Vec<&'static str>,
    pub(super) numbers: HashMap<&'static str, f64>,
    pub(super) months: HashMap<&'static str, u8>,
    pub(super) days: HashSet<&'static str>,
    pub(super) same: HashMap<&'static str, &'static str>,
    pub(super) opposites: HashSet<(&'static str, &'static str)>,
}

/// The tables in use.
pub(super) fn tables() -> &'static Tables {
    static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::parse(include_str!("english.txt")));
    &TABLES
}

impl Tables {
    /// Reads the form that `english.txt` describes. A line that says nothing is skipped: the tests hold
    /// the file to what it should say.
    fn parse(text: &'static str) -> Self {
        let mut tables = Self::default();
        let mut section = "";
        let mut idioms = String::new();
        for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name;
                continue;
            }
            let words = line.split_whitespace();
            let pair = line.split_once(' ');
            match section {
                "negation" => tables.negations.extend(words),
                "common" => tables.common.extend(words),
                "article" => tables.articles.extend(words),
                "direction" => tables.directions.extend(words),
                "prefix" => tables.prefixes.extend(words),
                "day" => tables.days.extend(words),
                "idiom" => {
                    idioms.push(' ');
                    idioms.push_str(line);
                }
                "number" => {
                    tables.numbers.extend(pair.and_then(|(w, n)| Some((w, n.parse().ok()?))))
                }
                "month" => tables.months.extend(pair.and_then(|(w, n)| Some((w, n.parse().ok()?)))),
                "same" => tables.same.extend(pair),
                "opposite" => {
                    tables.opposites.extend(pair.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]))
                }
                _ => {}
            }
        }
        let idioms: &'static str = idioms.leak();
        tables.idioms = idioms
            .split(',')
            .map(|idiom| idiom.split_whitespace().collect::<Vec<_>>())
            .filter(|idiom| !idiom.is_empty())
            .collect();
        // The longest first: "whether or not" before "or not".
        tables.idioms.sort_by_key(|idiom| std::cmp::Reverse(idiom.len()));
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_read() {
        let tables = tables();
        assert!(tables.negations.contains("never") && tables.negations.len() > 15);
        assert!(tables.idioms.iter().any(|idiom| idiom == &["whether", "or", "not"]));
        assert!(tables.common.contains("the") && tables.articles.contains("the"));
        assert!(tables.directions.contains("to") && tables.prefixes.contains(&"un"));
        assert_eq!(tables.numbers.get("twelve"), Some(&12.0));
        assert_eq!((tables.months.len(), tables.months.get("dec")), (24, Some(&12)));
        assert!(tables.days.contains("tomorrow"));
        assert!(tables.opposites.contains(&("open", "closed")));
        assert!(tables.opposites.contains(&("closed", "open")));
        assert!(
            tables.opposites.iter().all(|(a, b)| a != b && !a.contains(' ') && !b.contains(' '))
        );
    }
}
