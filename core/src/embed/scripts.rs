//! In which scripts a text is written, and which of them a model knows.
//!
//! Owns: the scripts that are told apart, by blocks of code points, and the rule by which a vocabulary knows one.
//! A model sees words of a script it does not know as noise: all of them are alike to it, and unrelated questions
//! come out equal.

/// A script, or a family of them that a vocabulary has or lacks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Hebrew,
    Arabic,
    Devanagari,
    Bengali,
    Tamil,
    Thai,
    Georgian,
    Hangul,
    Kana,
    Han,
    Other,
}

/// All of them.
pub(super) const SCRIPTS: usize = Script::Other as usize + 1;

const BLOCKS: [(u32, u32, Script); 37] = [
    (0x0041, 0x024F, Script::Latin),
    (0x0250, 0x02AF, Script::Latin),
    (0x0370, 0x03FF, Script::Greek),
    (0x0400, 0x052F, Script::Cyrillic),
    (0x0530, 0x058F, Script::Armenian),
    (0x0590, 0x05FF, Script::Hebrew),
    (0x0600, 0x06FF, Script::Arabic),
    (0x0750, 0x077F, Script::Arabic),
    (0x08A0, 0x08FF, Script::Arabic),
    (0x0900, 0x097F, Script::Devanagari),
    (0x0980, 0x09FF, Script::Bengali),
    (0x0B80, 0x0BFF, Script::Tamil),
    (0x0E00, 0x0E7F, Script::Thai),
    (0x10A0, 0x10FF, Script::Georgian),
    (0x1100, 0x11FF, Script::Hangul),
    (0x1C80, 0x1C8F, Script::Cyrillic),
    (0x1C90, 0x1CBF, Script::Georgian),
    (0x1D00, 0x1DBF, Script::Latin),
    (0x1E00, 0x1EFF, Script::Latin),
    (0x1F00, 0x1FFF, Script::Greek),
    (0x2C60, 0x2C7F, Script::Latin),
    (0x2DE0, 0x2DFF, Script::Cyrillic),
    (0x3040, 0x30FF, Script::Kana),
    (0x3130, 0x318F, Script::Hangul),
    (0x31F0, 0x31FF, Script::Kana),
    (0x3400, 0x4DBF, Script::Han),
    (0x4E00, 0x9FFF, Script::Han),
    (0xA640, 0xA69F, Script::Cyrillic),
    (0xA720, 0xA7FF, Script::Latin),
    (0xAB30, 0xAB6F, Script::Latin),
    (0xAC00, 0xD7FF, Script::Hangul),
    (0xF900, 0xFAFF, Script::Han),
    (0xFB00, 0xFB06, Script::Latin),
    (0xFB50, 0xFEFF, Script::Arabic),
    (0xFF21, 0xFF5A, Script::Latin),
    (0xFF66, 0xFF9F, Script::Kana),
    (0x20000, 0x3FFFF, Script::Han),
];

/// The script of a letter; `None` of what is no letter.
pub(super) fn script_of(letter: char) -> Option<Script> {
    if letter.is_ascii() {
        return letter.is_ascii_alphabetic().then_some(Script::Latin);
    }
    // Signs that modify letters (ª, ʰ) and numbers are not told apart by language.
    if !letter.is_alphabetic() {
        return None;
    }
    let point = u32::from(letter);
    let at = BLOCKS.partition_point(|&(_, last, _)| last < point);
    match BLOCKS.get(at) {
        Some(&(first, _, script)) if first <= point => Some(script),
        _ => Some(Script::Other),
    }
}

/// The scripts that a vocabulary has words of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known([bool; SCRIPTS]);

/// Pieces of two letters and more by which a script is known: BERT's English vocabulary has 27,000 Latin ones and
/// less than 100 of any other; a multilingual one has thousands of each.
const PIECES: usize = 500;
/// Ideographs are pieces by themselves: English vocabularies have some hundreds, Chinese ones 7,000.
const IDEOGRAPHS: usize = 3_000;

impl Known {
    pub(super) fn of<'a>(pieces: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = [0; SCRIPTS];
        for piece in pieces {
            let mut letters = piece.chars().filter_map(script_of);
            let Some(script) = letters.next() else { continue };
            if script == Script::Han || letters.next().is_some() {
                counts[script as usize] += 1;
            }
        }
        // A vocabulary as small as those of tests knows what most of it is written in.
        let small = counts.iter().sum::<usize>() / 4;
        let mut known = [false; SCRIPTS];
        for (at, &count) in counts.iter().enumerate() {
            let least = if at == Script::Han as usize { IDEOGRAPHS } else { PIECES };
            known[at] = count > 0 && count >= least.min(small);
        }
        Self(known)
    }

    pub(super) fn has(&self, script: Script) -> bool {
        self.0[script as usize]
    }
}
