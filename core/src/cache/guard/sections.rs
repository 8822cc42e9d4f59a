//! The form of the guards' files of words: sections of lines.
//!
//! Used by what reads one of those files. Any thread.

/// The sections of a table file: each line with its section's name, comments and blank lines left out.
pub(super) fn lines(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter_map(move |line| {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None if !line.is_empty() => return Some((section, line)),
            None => {}
        }
        None
    })
}
