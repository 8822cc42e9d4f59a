//! The settings of a container: given at CREATE, changed by CONFIG, saved with it.
//!
//! Owns: the values, their bounds, their canonical bytes. Reading them from arguments is the
//! adapter's; every value passes `check` before it takes effect.

use super::Kind;
use super::guard::{GuardLevel, NumberRule, Rules};
use super::maxerror::{Cold, MaxError, SimilarityE4};
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::UnixMs;
use crate::index::{GraphSettings, IndexMode};
use crate::limits;
use crate::vector::Quant;
use crate::words::Language;

/// Tags of the settings that came after the first release.
const TAG_NUMBERS: u8 = 1;
const TAG_EXCHANGE: u8 = 2;
const TAG_RESTORED: u8 = 3;
const TAG_MAXERROR: u8 = 4;
const TAG_CONFIDENCE: u8 = 5;
const TAG_AUDIT: u8 = 6;
const TAG_COLD: u8 = 7;
const TAG_MINSIM: u8 = 8;
const TAG_NEARMISSES: u8 = 9;
const TAG_MATRYOSHKA: u8 = 10;
const TAG_WORDS: u8 = 16;

/// A stream that a container names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// Where misses of FETCH VIA are written to.
    Loader = 1,
    /// Where stored answers are written to.
    Sink = 2,
}

/// Settings of one cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the container is for; fixed when it is made.
    pub kind: Kind,
    /// Dimension of the vectors; `None` until the first one sets it.
    pub dim: Option<u32>,
    /// Name of the embedding model, for people; empty when not given.
    pub model: Box<[u8]>,
    /// Least similarity of a semantic hit.
    pub threshold: f64,
    /// Time to live of entries stored without one; 0 for none.
    pub ttl_ms: u64,
    /// Largest share, in percent, by which a time to live is shortened at random.
    pub jitter_pct: u8,
    /// Most entries; 0 for no bound.
    pub max_entries: u64,
    /// Most memory of index and entries together, in bytes; 0 for no bound.
    pub max_memory_bytes: u64,
    /// How entries keep their vectors.
    pub quant: Quant,
    /// How many of the first dimensions the index compares; all where `None`.
    pub matryoshka: Option<u32>,
    /// How neighbours are found.
    pub graph: GraphSettings,
    /// How strictly answers found by meaning are judged before they are served.
    pub guard: GuardLevel,
    /// How guards compare numbers.
    pub numbers: NumberRule,
    /// Whether one exchanged word lowers the similarity that is held against the threshold.
    pub exchange: bool,
    /// The share of wrong answers that is promised, and how it is learnt.
    pub max_error: MaxError,
    /// Lookups by meaning that came near and were not served which are remembered; 0 for none.
    pub near_misses: u32,
    /// How long entries are served as stale after their time to live.
    pub grace_s: u32,
    /// The stream that misses of FETCH VIA are written to; empty for none.
    pub loader: Box<[u8]>,
    /// The stream that stored answers are written to; empty for none.
    pub sink: Box<[u8]>,
    /// Which of these two came with a dump, as bits of `Outlet`: nobody was asked whether whoever restored it may write
    /// to them, so whoever calls is asked each time.
    pub restored: u8,
    /// The language in which the words of texts are indexed; `None` where they are not.
    pub words: Option<Language>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            dim: None,
            model: Box::default(),
            threshold: 0.90,
            ttl_ms: 0,
            jitter_pct: 0,
            max_entries: 0,
            max_memory_bytes: 0,
            quant: Quant::F16,
            matryoshka: None,
            graph: GraphSettings::default(),
            guard: GuardLevel::On,
            numbers: NumberRule::Equal,
            exchange: false,
            max_error: MaxError::default(),
            near_misses: 0,
            grace_s: 0,
            loader: Box::default(),
            sink: Box::default(),
            restored: 0,
            words: None,
        }
    }
}

impl Settings {
    /// Refuses values past their bounds.
    pub fn check(&self) -> Result<()> {
        if let Some(dim) = self.dim
            && !(limits::DIM_MIN..=limits::DIM_MAX).contains(&dim)
        {
            return Err(out_of_range("DIM", limits::DIM_MIN, limits::DIM_MAX));
        }
        if self.model.len() > limits::MODEL_MAX_BYTES {
            let (got, max) = (self.model.len(), limits::MODEL_MAX_BYTES);
            return Err(Error::too_big("MODEL", got, max, "bytes"));
        }
        if !(-1.0..=1.0).contains(&self.threshold) {
            return Err(out_of_range("THRESHOLD", -1, 1));
        }
        if self.ttl_ms > limits::TTL_MAX_MS {
            return Err(out_of_range("TTL", 0, limits::TTL_MAX_MS / 1_000));
        }
        if self.jitter_pct > 100 {
            return Err(out_of_range("JITTER", 0, 100));
        }
        if self.max_entries > limits::MAXENTRIES_MAX {
            return Err(out_of_range("MAXENTRIES", 0, limits::MAXENTRIES_MAX));
        }
        if self.grace_s > limits::GRACE_MAX_S {
            return Err(out_of_range("GRACE", 0, limits::GRACE_MAX_S));
        }
        let longest = limits::STREAM_NAME_MAX_BYTES;
        for (what, name) in [("loader", &self.loader), ("sink", &self.sink)] {
            if name.len() > longest {
                return Err(Error::too_big(what, name.len(), longest, "bytes"));
            }
        }
        if self.near_misses > limits::NEAR_MISSES_MAX {
            return Err(out_of_range("NEARMISSES", 0, limits::NEAR_MISSES_MAX));
        }
        self.check_matryoshka()?;
        self.max_error.check()?;
        if !self.graph.are_valid() {
            return Err(Error::err("M, EFC or EF is out of range"));
        }
        Ok(())
    }

    /// The name of a stream; empty for none.
    pub fn stream(&self, outlet: Outlet) -> &[u8] {
        match outlet {
            Outlet::Loader => &self.loader,
            Outlet::Sink => &self.sink,
        }
    }

    /// Whether it came with a dump and was not named here since.
    pub fn is_restored(&self, outlet: Outlet) -> bool {
        self.restored & outlet as u8 != 0
    }

    /// Names a stream, which the caller may write to.
    pub fn set_stream(&mut self, outlet: Outlet, name: &[u8]) {
        match outlet {
            Outlet::Loader => self.loader = name.into(),
            Outlet::Sink => self.sink = name.into(),
        }
        self.restored &= !(outlet as u8);
    }

    /// Notes that the settings came with a dump.
    pub fn note_restored(&mut self) {
        let named = [Outlet::Loader, Outlet::Sink].into_iter();
        let named = named.filter(|outlet| !self.stream(*outlet).is_empty());
        self.restored = named.fold(0, |bits, outlet| bits | outlet as u8);
    }

    /// What guards ask, at this level or the container's own, whichever is stricter.
    pub fn rules(&self, level: GuardLevel) -> Rules {
        Rules { level: self.guard.max(level), numbers: self.numbers, exchange: self.exchange }
    }

    /// When an entry stored at `now` without an expiry of its own stops being fresh. `random` spreads
    /// these times by JITTER, so that entries stored together do not all go together.
    pub fn fresh_until(&self, now: UnixMs, random: u64) -> UnixMs {
        if self.ttl_ms == 0 {
            return UnixMs::NEVER;
        }
        let widest = self.ttl_ms / 100 * u64::from(self.jitter_pct)
            + self.ttl_ms % 100 * u64::from(self.jitter_pct) / 100;
        let cut = if widest == 0 { 0 } else { random % (widest + 1) };
        UnixMs(now.0 + (self.ttl_ms - cut).max(1))
    }

    /// The deadline of an entry that is fresh until then.
    pub fn deadline(&self, fresh_until: UnixMs) -> UnixMs {
        match fresh_until {
            UnixMs::NEVER => UnixMs::NEVER,
            UnixMs(at) => UnixMs(at + u64::from(self.grace_s) * 1_000),
        }
    }

    /// Appends the canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u8(self.kind.as_byte());
        out.u32(self.dim.unwrap_or(0)).bytes(&self.model).f64(self.threshold);
        out.u64(self.ttl_ms).u8(self.jitter_pct);
        out.u64(self.max_entries).u64(self.max_memory_bytes);
        let GraphSettings { mode, m, efc, ef } = self.graph;
        out.u8(self.quant.as_byte()).u8(mode.as_byte()).u32(m).u32(efc).u32(ef);
        out.u8(self.guard.as_byte());
        out.u32(self.grace_s).bytes(&self.loader).bytes(&self.sink);
    }

    /// The settings that `write` has no place for, where they are not the defaults: tag and value of
    /// each, by ascending tag.
    pub fn extensions(&self) -> Vec<(u8, Vec<u8>)> {
        let defaults = Self::default();
        let mut given: Vec<(u8, Vec<u8>)> = Vec::new();
        if self.numbers != defaults.numbers {
            given.push((TAG_NUMBERS, vec![self.numbers.as_byte()]));
        }
        if self.exchange != defaults.exchange {
            given.push((TAG_EXCHANGE, vec![u8::from(self.exchange)]));
        }
        if self.restored != 0 {
            given.push((TAG_RESTORED, vec![self.restored]));
        }
        let (own, default) = (self.max_error, defaults.max_error);
        for (tag, value, default) in [
            (TAG_MAXERROR, own.max_error_ppm, default.max_error_ppm),
            (TAG_CONFIDENCE, own.confidence_ppm, default.confidence_ppm),
            (TAG_AUDIT, own.audit_ppm, default.audit_ppm),
        ] {
            if value != default {
                given.push((tag, value.to_le_bytes().to_vec()));
            }
        }
        if own.cold != default.cold {
            given.push((TAG_COLD, vec![own.cold as u8]));
        }
        if let Some(SimilarityE4(least)) = own.min_similarity {
            given.push((TAG_MINSIM, least.to_le_bytes().to_vec()));
        }
        if self.near_misses != defaults.near_misses {
            given.push((TAG_NEARMISSES, self.near_misses.to_le_bytes().to_vec()));
        }
        given.extend(self.matryoshka.map(|dims| (TAG_MATRYOSHKA, dims.to_le_bytes().to_vec())));
        given.extend(self.words.map(|language| (TAG_WORDS, vec![language.as_byte()])));
        given
    }

    /// Appends them: how many, then each. Nothing where there are none.
    pub fn write_extensions(given: &[(u8, Vec<u8>)], out: &mut Writer) {
        if !given.is_empty() {
            out.u8(given.len() as u8);
            for (tag, value) in given {
                out.u8(*tag).bytes(value);
            }
        }
    }

    /// Reads what `write_extensions` wrote, which was not nothing.
    pub fn read_extensions(
        &mut self,
        from: &mut Reader<'_>,
    ) -> std::result::Result<(), DecodeError> {
        let mut before = None;
        let count = from.u8()?;
        for _ in 0..count {
            let tag = from.u8()?;
            let mut value = Reader::new(from.bytes(limits::SETTING_MAX_BYTES)?);
            if before.is_some_and(|before| before >= tag) {
                return Err(DecodeError("settings are not in their order"));
            }
            before = Some(tag);
            let unknown = DecodeError("a setting of another version");
            match tag {
                TAG_NUMBERS => self.numbers = NumberRule::from_byte(value.u8()?).ok_or(unknown)?,
                TAG_EXCHANGE if value.u8()? == 1 => self.exchange = true,
                TAG_WORDS => {
                    self.words = Some(Language::from_byte(value.u8()?).ok_or(unknown)?);
                }
                TAG_RESTORED => {
                    let restored = value.u8()?;
                    self.note_restored();
                    self.restored &= restored;
                    if self.restored != restored {
                        return Err(DecodeError("a stream that has no name"));
                    }
                }
                TAG_MAXERROR => self.max_error.max_error_ppm = value.u32()?,
                TAG_CONFIDENCE => self.max_error.confidence_ppm = value.u32()?,
                TAG_AUDIT => self.max_error.audit_ppm = value.u32()?,
                TAG_COLD => {
                    let cold = usize::from(value.u8()?);
                    self.max_error.cold = *Cold::ALL.get(cold).ok_or(unknown)?;
                }
                TAG_MINSIM => self.max_error.min_similarity = Some(SimilarityE4(value.u16()?)),
                TAG_NEARMISSES => self.near_misses = value.u32()?,
                TAG_MATRYOSHKA => self.matryoshka = Some(value.u32()?),
                _ => return Err(unknown),
            }
            value.finish()?;
        }
        self.check().map_err(|_| DecodeError("a setting is out of range"))?;
        let canonical = count > 0 && self.extensions().len() == usize::from(count);
        canonical.then_some(()).ok_or(DecodeError("a setting that need not be said"))
    }

    /// Reads what `write` wrote; hostile bytes are refused.
    pub fn read(from: &mut Reader<'_>) -> std::result::Result<Self, DecodeError> {
        let settings = Self {
            kind: Kind::from_byte(from.u8()?).ok_or(DecodeError("unknown kind of container"))?,
            dim: match from.u32()? {
                0 => None,
                dim => Some(dim),
            },
            model: from.bytes(limits::MODEL_MAX_BYTES)?.into(),
            threshold: from.f64()?,
            ttl_ms: from.u64()?,
            jitter_pct: from.u8()?,
            max_entries: from.u64()?,
            max_memory_bytes: from.u64()?,
            quant: Quant::from_byte(from.u8()?).ok_or(DecodeError("unknown quantisation"))?,
            graph: GraphSettings {
                mode: IndexMode::from_byte(from.u8()?)
                    .ok_or(DecodeError("unknown kind of index"))?,
                m: from.u32()?,
                efc: from.u32()?,
                ef: from.u32()?,
            },
            guard: GuardLevel::from_byte(from.u8()?).ok_or(DecodeError("unknown guard level"))?,
            matryoshka: None,
            numbers: NumberRule::default(),
            exchange: false,
            max_error: MaxError::default(),
            near_misses: 0,
            grace_s: from.u32()?,
            loader: from.bytes(limits::STREAM_NAME_MAX_BYTES)?.into(),
            sink: from.bytes(limits::STREAM_NAME_MAX_BYTES)?.into(),
            restored: 0,
            words: None,
        };
        settings.check().map_err(|_| DecodeError("a setting is out of range"))?;
        Ok(settings)
    }
}

/// The error of a number outside its bounds.
pub fn out_of_range(what: &str, min: impl std::fmt::Display, max: impl std::fmt::Display) -> Error {
    Error::err(format!("{what} must be between {min} and {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::open_section;

    #[test]
    fn bytes_round_trip() {
        let settings = Settings {
            kind: Kind::Documents,
            dim: Some(384),
            model: (*b"minilm").into(),
            threshold: 0.83,
            ttl_ms: 86_400_000,
            jitter_pct: 10,
            max_entries: 7,
            max_memory_bytes: 1 << 30,
            quant: Quant::Q8,
            matryoshka: Some(128),
            graph: GraphSettings { mode: IndexMode::Hnsw, m: 12, efc: 70, ef: 90 },
            guard: GuardLevel::Strict,
            numbers: NumberRule::Conflict,
            exchange: true,
            max_error: MaxError {
                max_error_ppm: 20_000,
                confidence_ppm: 990_000,
                audit_ppm: 0,
                cold: Cold::Static,
                min_similarity: Some(SimilarityE4(6_500)),
            },
            near_misses: 128,
            grace_s: 60,
            loader: (*b"todo").into(),
            sink: (*b"done").into(),
            restored: Outlet::Sink as u8,
            words: Language::parse(b"english"),
        };
        let mut out = Writer::section(1, 1);
        settings.write(&mut out);
        Settings::write_extensions(&settings.extensions(), &mut out);
        let bytes = out.finish();
        let (_, _, mut body) = open_section(&bytes).unwrap();
        let mut read = Settings::read(&mut body).unwrap();
        read.read_extensions(&mut body).unwrap();
        assert_eq!(read, settings);
        body.finish().unwrap();
    }

    #[test]
    fn streams_of_a_dump_are_known_as_such_until_they_are_named_here() {
        let both = [Outlet::Loader, Outlet::Sink];
        let mut settings = Settings::default();
        settings.note_restored();
        assert_eq!(both.map(|outlet| settings.is_restored(outlet)), [false, false]);
        settings.set_stream(Outlet::Sink, b"done");
        settings.set_stream(Outlet::Loader, b"todo");
        settings.note_restored();
        assert_eq!(both.map(|outlet| settings.is_restored(outlet)), [true, true]);
        settings.set_stream(Outlet::Loader, b"todo");
        assert_eq!(both.map(|outlet| settings.is_restored(outlet)), [false, true]);
        // A head that speaks of a stream which it does not name is refused.
        let mut out = Writer::section(1, 1);
        Settings::write_extensions(&[(TAG_RESTORED, vec![3])], &mut out);
        let bytes = out.finish();
        let (_, _, mut body) = open_section(&bytes).unwrap();
        settings.set_stream(Outlet::Loader, b"");
        assert!(settings.read_extensions(&mut body).is_err());
    }

    #[test]
    fn jitter_shortens_by_at_most_its_share() {
        let settings = Settings { ttl_ms: 1_000, jitter_pct: 20, ..Settings::default() };
        let now = UnixMs(5_000);
        let deadlines: Vec<u64> = (0..1_000).map(|r| settings.fresh_until(now, r).0).collect();
        assert_eq!(deadlines.iter().max(), Some(&6_000));
        assert_eq!(deadlines.iter().min(), Some(&5_800));
        let plain = Settings { jitter_pct: 0, ..settings };
        assert_eq!(plain.fresh_until(now, 77), UnixMs(6_000));
        assert_eq!(Settings::default().fresh_until(now, 77), UnixMs::NEVER);
    }
}
