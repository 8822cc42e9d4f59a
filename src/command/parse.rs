//! Reads arguments: options in any order, each at most once, every number within its bound.
//!
//! Owns: the forms that several commands share: vectors, expiries, lists, filters, pages. Knows no server.

use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::filter::Filter;
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::is_json_object;
use llmcache_core::vector::normalise::{decode_fp16, decode_fp32};
use llmcache_core::vector::{Query, VectorError};

/// Walks over the arguments of a command.
#[derive(Debug, Clone)]
pub struct ArgReader<'a> {
    args: &'a [&'a [u8]],
    at: usize,
}

impl<'a> ArgReader<'a> {
    /// Starts at the first of these arguments.
    pub fn new(args: &'a [&'a [u8]]) -> Self {
        Self { args, at: 0 }
    }

    /// How many arguments were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next argument, if there is one.
    pub fn maybe_next(&mut self) -> Option<&'a [u8]> {
        let arg = self.args.get(self.at)?;
        self.at += 1;
        Some(arg)
    }

    /// The next argument, which `what` needs.
    pub fn next(&mut self, what: &str) -> Result<&'a [u8]> {
        self.maybe_next().ok_or_else(|| Error::err(format!("syntax error: {what} needs a value")))
    }

    /// The next argument as an upper-case option word.
    pub fn option(&mut self) -> Option<OptionWord> {
        self.maybe_next().map(OptionWord::new)
    }

    /// The next argument as a whole number within bounds.
    pub fn integer(&mut self, what: &str, min: u64, max: u64) -> Result<u64> {
        let text = self.next(what)?;
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        let plain = text.first().is_some_and(u8::is_ascii_digit);
        number.filter(|number| plain && (min..=max).contains(number)).ok_or_else(|| {
            Error::err(format!("{what} must be a whole number between {min} and {max}"))
        })
    }

    /// The next argument as an amount of memory in bytes, with the units that the server's own settings take.
    pub fn memory(&mut self, what: &str) -> Result<u64> {
        parse_memory(self.next(what)?).ok_or_else(|| {
            Error::err(format!(
                "{what} must be a number of bytes, or one with a unit such as 100mb or 2gb"
            ))
        })
    }

    /// The next argument as a decimal within bounds.
    pub fn decimal(&mut self, what: &str, min: f64, max: f64) -> Result<f64> {
        let number = parse_f64(self.next(what)?);
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| Error::err(format!("{what} must be a number between {min} and {max}")))
    }

    /// The next argument as a similarity.
    pub fn similarity(&mut self, what: &str) -> Result<f64> {
        let number = parse_f64(self.next(what)?);
        number
            .filter(|number| (-1.0..=1.0).contains(number))
            .ok_or_else(|| Error::err(format!("{what} must be a similarity between -1 and 1")))
    }

    /// The next argument, `ON` or `OFF`.
    pub fn on_or_off(&mut self, what: &str) -> Result<bool> {
        match self.next(what)?.to_ascii_uppercase().as_slice() {
            b"ON" => Ok(true),
            b"OFF" => Ok(false),
            _ => Err(Error::err(format!("{what} must be ON or OFF"))),
        }
    }

    /// The next argument, at most `max` bytes long.
    pub fn text(&mut self, what: &str, max: usize) -> Result<&'a [u8]> {
        let text = self.next(what)?;
        if text.len() > max {
            return Err(Error::too_big(what, text.len(), max, "bytes"));
        }
        Ok(text)
    }

    /// A count, then that many arguments.
    pub fn list(&mut self, what: &str, max: usize) -> Result<&'a [&'a [u8]]> {
        let count = self.integer(&format!("the count of {what}"), 1, max as u64)? as usize;
        let left = self.args.len() - self.at;
        if count > left {
            return Err(Error::err(format!(
                "syntax error: {what} announces {count} values, {left} follow"
            )));
        }
        self.at += count;
        Ok(&self.args[self.at - count..self.at])
    }

    /// Refuses what is left over.
    pub fn finish(mut self) -> Result<()> {
        match self.option() {
            None => Ok(()),
            Some(word) => Err(word.unknown()),
        }
    }
}

/// A finite number; `None` for anything else.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// An argument where an option is expected, in upper case; of a long one the beginning only.
#[derive(Debug, Clone, Copy)]
pub struct OptionWord {
    upper: [u8; OptionWord::MAX_BYTES],
    length: usize,
}

impl OptionWord {
    /// Options are shorter.
    const MAX_BYTES: usize = 24;

    fn new(arg: &[u8]) -> Self {
        let length = arg.len().min(Self::MAX_BYTES);
        let mut upper = [0; Self::MAX_BYTES];
        upper[..length].copy_from_slice(&arg[..length]);
        upper.make_ascii_uppercase();
        Self { upper, length }
    }

    /// The word; empty when it is not text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.upper[..self.length]).unwrap_or_default()
    }

    /// The error of a word that is no option of the command.
    pub fn unknown(&self) -> Error {
        let shown = String::from_utf8_lossy(&self.upper[..self.length]).into_owned();
        Error::err(format!("syntax error: unknown option '{shown}'"))
    }
}

/// Fills in an option, which must not have been given before.
pub fn set_once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if place.is_some() {
        return Err(Error::err(format!("syntax error: {what} is given twice")));
    }
    *place = Some(value);
    Ok(())
}

/// Sets a flag, which must not have been set before.
pub fn flag_once(place: &mut bool, what: &str) -> Result<()> {
    if std::mem::replace(place, true) {
        return Err(Error::err(format!("syntax error: {what} is given twice")));
    }
    Ok(())
}

/// Whether the word opens a vector.
pub fn is_vector_word(word: &OptionWord) -> bool {
    matches!(word.as_str(), "FP32" | "FP16" | "VALUES")
}

fn bad_vector(why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorWord::BadVector, why.to_string())
}

/// The vector that `word` opened: `FP32 blob`, `FP16 blob` or `VALUES n x1 … xn`.
pub fn vector(word: &OptionWord, args: &mut ArgReader<'_>) -> Result<Query> {
    Query::of(numbers(word, args)?).map_err(|error| bad_vector(&error))
}

/// Passes over the vector that `word` opened, which was read before.
pub fn skip_vector(word: &OptionWord, args: &mut ArgReader<'_>) -> Result<()> {
    match word.as_str() {
        "VALUES" => args.list("VALUES", limits::DIM_MAX as usize).map(|_| ()),
        name => args.next(name).map(|_| ()),
    }
}

/// The numbers of such a vector as they were given. Zeros alone are none.
pub fn numbers(word: &OptionWord, args: &mut ArgReader<'_>) -> Result<Vec<f32>> {
    let bad = bad_vector;
    let numbers = match word.as_str() {
        "FP32" => decode_fp32(args.next("FP32")?).map_err(|error| bad(&error))?,
        "FP16" => decode_fp16(args.next("FP16")?).map_err(|error| bad(&error))?,
        _ => {
            let texts = args
                .list("VALUES", limits::DIM_MAX as usize)
                .map_err(|error| bad(&error.message()))?;
            let mut numbers = Vec::with_capacity(texts.len());
            for (place, text) in texts.iter().enumerate() {
                let number: Option<f32> =
                    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                let number = number
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| bad(&format!("value {} is not a finite number", place + 1)))?;
                numbers.push(number);
            }
            numbers
        }
    };
    not_zero(numbers)
}

/// A vector as it was given, to be decoded later: a blob, or numbers that were written out.
#[derive(Debug)]
pub enum GivenVector {
    /// Little-endian, of so many bytes a number; how many arguments were read when it was the last of them.
    Blob { width: usize, position: usize },
    /// The numbers.
    Numbers(Vec<f32>),
}

/// The vector that `word` opened, decoded by `decode_given`. A length that none has is refused at once.
pub fn given_vector(word: &OptionWord, args: &mut ArgReader<'_>) -> Result<GivenVector> {
    let (name, width) = match word.as_str() {
        "FP32" => ("FP32", 4),
        "FP16" => ("FP16", 2),
        _ => return numbers(word, args).map(GivenVector::Numbers),
    };
    let blob = args.next(name)?;
    let is_possible = blob.len().is_multiple_of(width)
        && (1..=limits::DIM_MAX as usize).contains(&(blob.len() / width));
    if !is_possible {
        // The decoder says what is wrong.
        decode_given(blob, width)?;
    }
    Ok(GivenVector::Blob { width, position: args.position() })
}

/// The numbers of a blob, of so many bytes each. Zeros alone are none.
pub fn decode_given(blob: &[u8], width: usize) -> Result<Vec<f32>> {
    let decoded = if width == 4 { decode_fp32(blob) } else { decode_fp16(blob) };
    not_zero(decoded.map_err(|error| bad_vector(&error))?)
}

/// The error of numbers that are no vector.
pub fn bad_numbers(error: VectorError) -> Error {
    bad_vector(&error)
}

fn not_zero(numbers: Vec<f32>) -> Result<Vec<f32>> {
    if numbers.iter().all(|&x| x == 0.0) {
        return Err(bad_vector(&VectorError::ZeroNorm));
    }
    Ok(numbers)
}

/// META, which must be a JSON object.
pub fn meta<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    let meta = unchecked_meta(args)?;
    check_meta(meta).map(|()| meta)
}

/// The same, of which it is still to be checked that it is an object.
pub fn unchecked_meta<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    args.text("META", limits::META_MAX_BYTES)
}

/// Refuses META that is no object.
pub fn check_meta(meta: &[u8]) -> Result<()> {
    match serde_json::from_slice::<serde_json::Value>(meta) {
        Ok(value) if value.is_object() => Ok(()),
        Ok(_) => Err(Error::err("META must be a JSON object")),
        // The parser's own message may quote the document; its place does not.
        Err(error) => Err(Error::err(format!(
            "META is not valid JSON at line {} column {}",
            error.line(),
            error.column()
        ))),
    }
}

/// TAGS, none of which may be empty.
pub fn tags<'a>(args: &mut ArgReader<'a>) -> Result<&'a [&'a [u8]]> {
    let tags = args.list("TAGS", limits::TAGS_MAX)?;
    if tags.iter().any(|tag| tag.is_empty()) {
        return Err(Error::err("a tag must not be empty"));
    }
    match tags.iter().find(|tag| tag.len() > limits::TAG_MAX_BYTES) {
        Some(tag) => Err(Error::too_big("a tag", tag.len(), limits::TAG_MAX_BYTES, "bytes")),
        None => Ok(tags),
    }
}

/// Reads a filter expression.
pub fn parse_filter(args: &mut ArgReader<'_>) -> Result<Filter> {
    Filter::parse(args.text("FILTER", limits::FILTER_MAX_BYTES)?)
        .map_err(|error| Error::new(ErrorWord::BadFilter, error.to_string()))
}

/// Reads a JSON object.
pub fn json_object<'a>(args: &mut ArgReader<'a>, what: &str) -> Result<&'a [u8]> {
    let text = args.text(what, limits::META_MAX_BYTES)?;
    if is_json_object(text) {
        return Ok(text);
    }
    Err(Error::err(format!("{what} must be a JSON object")))
}

/// The options of a command that lists page by page.
#[derive(Debug)]
pub struct PageRequest {
    /// Where to go on; 0 to begin.
    pub cursor: u32,
    /// Most to visit.
    pub count: usize,
    /// What must hold of those that are listed.
    pub filter: Option<Filter>,
}

/// Most that a page visits when nothing is said, as `SCAN` of the server.
/// Bytes from `1024`, `100mb`, `2gb`: a unit of one letter is decimal, one that ends with `b` binary, as in redis.conf.
fn parse_memory(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let scale = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(scale)
}

const PAGE_DEFAULT: u64 = 10;

/// The whole of `cursor [COUNT n] [FILTER e]`.
pub fn page_request(mut args: ArgReader<'_>) -> Result<PageRequest> {
    let cursor = args.integer("the cursor", 0, limits::CURSOR_MAX)? as u32;
    let (mut count, mut filter) = (None, None);
    while let Some(word) = args.option() {
        match word.as_str() {
            "COUNT" => {
                let most = u64::from(limits::SCAN_COUNT_MAX);
                set_once(&mut count, args.integer("COUNT", 1, most)?, "COUNT")?;
            }
            "FILTER" => set_once(&mut filter, parse_filter(&mut args)?, "FILTER")?,
            _ => return Err(word.unknown()),
        }
    }
    Ok(PageRequest { cursor, count: count.unwrap_or(PAGE_DEFAULT) as usize, filter })
}

/// When something expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At this time.
    At(UnixMs),
    /// Never.
    Persist,
}

/// Whether the word opens an expiry.
pub fn is_expiry_word(word: &OptionWord) -> bool {
    matches!(word.as_str(), "EX" | "PX" | "EXAT" | "PXAT" | "PERSIST")
}

/// The expiry that `word` opened: `EX s`, `PX ms`, `EXAT s`, `PXAT ms` or `PERSIST`.
pub fn expiry(word: &OptionWord, args: &mut ArgReader<'_>, now: UnixMs) -> Result<Expiry> {
    let name = word.as_str();
    let (unit_ms, base_ms) = match name {
        "PERSIST" => return Ok(Expiry::Persist),
        "EX" => (1_000, now.0),
        "PX" => (1, now.0),
        "EXAT" => (1_000, 0),
        _ => (1, 0),
    };
    let most = limits::TTL_MAX_MS + if base_ms == 0 { now.0 } else { 0 };
    let amount = args.integer(name, 1, most / unit_ms)?;
    Ok(Expiry::At(UnixMs(base_ms + amount * unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn read_expiry(args: &[&[u8]]) -> Result<Expiry> {
        let mut reader = ArgReader::new(args);
        let word = reader.option().unwrap();
        expiry(&word, &mut reader, NOW)
    }

    #[test]
    fn expiries() {
        for (args, at) in [
            ([&b"EX"[..], b"10"], 1_010_000),
            ([b"px", b"10"], 1_000_010),
            ([b"EXAT", b"2000"], 2_000_000),
            ([b"PxAt", b"1"], 1),
        ] {
            assert_eq!(read_expiry(&args).unwrap(), Expiry::At(UnixMs(at)), "{args:?}");
        }
        for bad in [&b"0"[..], b"-1", b"+5", b"1.5", b"x", b"", b"99999999999999999999"] {
            assert!(read_expiry(&[b"EX", bad]).is_err(), "{bad:?}");
        }
        assert!(read_expiry(&[b"EX"]).is_err());
        assert_eq!(read_expiry(&[b"persist"]).unwrap(), Expiry::Persist);
    }

    #[test]
    fn lists_must_be_whole() {
        let args: [&[u8]; 3] = [b"2", b"a", b"b"];
        let mut reader = ArgReader::new(&args);
        assert_eq!(reader.list("TAGS", 8).unwrap(), [b"a", b"b"]);
        reader.finish().unwrap();
        for bad in [&[&b"3"[..], b"a", b"b"][..], &[b"0"], &[b"x", b"a"], &[b"9", b"a"], &[]] {
            assert!(ArgReader::new(bad).list("TAGS", 8).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn vectors() {
        let read = |args: &[&[u8]]| {
            let mut reader = ArgReader::new(args);
            let word = reader.option().unwrap();
            vector(&word, &mut reader).map(|query| query.normalised().to_vec())
        };
        let expected = vec![0.6f32, 0.8];
        let blob: Vec<u8> = [3f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(&[b"FP32", &blob]).unwrap(), expected);
        assert_eq!(read(&[b"fp16", &[0x00, 0x42, 0x00, 0x44]]).unwrap(), expected);
        assert_eq!(read(&[b"VALUES", b"2", b"3", b"4e0"]).unwrap(), expected);
        for bad in [
            &[&b"FP32"[..], b"abc"][..],
            &[b"FP32", b""],
            &[b"VALUES", b"2", b"1"],
            &[b"VALUES", b"2", b"1", b"nan"],
            &[b"VALUES", b"1", b"1e39"],
            &[b"VALUES", b"2", b"0", b"0"],
            &[b"VALUES", b"0"],
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.word(), ErrorWord::BadVector, "{bad:?}: {error}");
        }
    }
}
