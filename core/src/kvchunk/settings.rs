//! The settings of a namespace, and the fingerprint that keeps incompatible tensors apart.
//!
//! Owns: the values, their bounds, their canonical bytes, the fingerprint. Any thread.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::UnixMs;
use crate::limits;
use sha2::{Digest, Sha256};

/// Type of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype(u8);

/// Names as torch writes them, and bytes a number takes; the place is the code in headers. Code 0 says
/// that nothing is known.
const DTYPES: [(&str, u64); 9] = [
    ("", 0),
    ("float16", 2),
    ("bfloat16", 2),
    ("float32", 4),
    ("float64", 8),
    ("uint8", 1),
    ("int8", 1),
    ("fp8_e4m3", 1),
    ("fp8_e5m2", 1),
];
/// Other spellings in use.
const ALIASES: [(&str, &str); 8] = [
    ("half", "float16"),
    ("fp16", "float16"),
    ("bf16", "bfloat16"),
    ("float", "float32"),
    ("fp32", "float32"),
    ("double", "float64"),
    ("fp8_e4m3fn", "fp8_e4m3"),
    ("float8_e4m3fn", "fp8_e4m3"),
];

impl Dtype {
    /// Not stated.
    pub const UNKNOWN: Self = Self(0);

    /// Reads a name in any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
        let name = ALIASES.iter().find(|alias| alias.0 == name).map_or(&*name, |alias| alias.1);
        let code = DTYPES.iter().position(|known| known.0 == name)?;
        (code > 0).then_some(Self(code as u8))
    }

    /// From the code in a header.
    pub fn from_byte(code: u8) -> Option<Self> {
        (usize::from(code) < DTYPES.len()).then_some(Self(code))
    }

    /// The code.
    pub fn as_byte(self) -> u8 {
        self.0
    }

    /// The name; empty when not stated.
    pub fn as_str(self) -> &'static str {
        DTYPES[usize::from(self.0)].0
    }

    fn bytes(self) -> u64 {
        DTYPES[usize::from(self.0)].1
    }

    /// Every name, for error texts.
    pub fn names() -> String {
        DTYPES[1..].iter().map(|known| known.0).collect::<Vec<_>>().join(", ")
    }
}

/// Whether payloads carry a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// They do not.
    Off,
    /// CRC-32 of the whole payload, checked when it is loaded and by VERIFY.
    On,
}

/// What RDB, AOF and replicas are given of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// All of it.
    Full,
    /// RDB gets a stub that says which chunk was there; AOF and replicas get nothing.
    Meta,
    /// RDB gets an empty stub; AOF and replicas get nothing.
    None,
}

impl Durable {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Full, "full"), (Self::Meta, "meta"), (Self::None, "none")];

    /// Reads a word in any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let found = Self::ALL.iter().find(|known| known.1.as_bytes().eq_ignore_ascii_case(text));
        found.map(|known| known.0)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Settings of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceSettings {
    /// Model the tensors are of; empty when not given.
    pub model: Box<[u8]>,
    /// Type of their numbers.
    pub dtype: Dtype,
    /// Their layout, in the engine's words; empty when not given.
    pub format: Box<[u8]>,
    /// Shape of one chunk's tensor; empty when not given.
    pub shape: Box<[u32]>,
    /// Tokens of a chunk.
    pub chunk_tokens: u32,
    /// Salt of prompts for which a command gives none.
    pub salt: Box<[u8]>,
    /// Time to live of chunks stored without one; 0 for none.
    pub ttl_ms: u64,
    /// Most memory of all chunks together, in bytes; 0 for no bound.
    pub budget_bytes: u64,
    /// Whether payloads carry a checksum.
    pub checksum: Checksum,
    /// What is saved and replicated.
    pub durable: Durable,
}

impl Default for NamespaceSettings {
    fn default() -> Self {
        Self {
            model: Box::default(),
            dtype: Dtype::UNKNOWN,
            format: Box::default(),
            shape: Box::default(),
            chunk_tokens: limits::CHUNK_TOKENS_DEFAULT,
            salt: Box::default(),
            ttl_ms: 0,
            budget_bytes: 0,
            checksum: Checksum::On,
            durable: Durable::Full,
        }
    }
}

impl NamespaceSettings {
    /// What makes tensors of this namespace unlike those of another: SHA-256 over model, dtype, format,
    /// shape and chunk size, as `docs/formats.md` has it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let shape: Vec<u8> = self.shape.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let mut hash = Sha256::new();
        for part in [&*self.model, self.dtype.as_str().as_bytes(), &self.format, &shape] {
            hash.update((part.len() as u32).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.chunk_tokens.to_le_bytes());
        hash.finalize().into()
    }

    /// How long every payload must be, where dtype and shape say so.
    pub fn payload_bytes(&self) -> Option<u64> {
        if self.dtype == Dtype::UNKNOWN || self.shape.is_empty() {
            return None;
        }
        let dims = self.shape.iter().map(|&dim| u64::from(dim));
        dims.into_iter().try_fold(self.dtype.bytes(), u64::checked_mul)
    }

    /// The deadline of a chunk stored at `now` without an expiry of its own.
    pub fn deadline(&self, now: UnixMs) -> UnixMs {
        if self.ttl_ms == 0 { UnixMs::NEVER } else { UnixMs(now.0 + self.ttl_ms) }
    }

    /// Refuses values past their bounds.
    pub fn check(&self) -> Result<()> {
        for (what, text, max) in [
            ("MODEL", &self.model, limits::MODEL_MAX_BYTES),
            ("FORMAT", &self.format, limits::FORMAT_MAX_BYTES),
            ("SALT", &self.salt, limits::SALT_MAX_BYTES),
        ] {
            if text.len() > max {
                return Err(Error::too_big(what, text.len(), max, "bytes"));
            }
        }
        if self.shape.len() > limits::SHAPE_MAX_DIMS {
            let (got, max) = (self.shape.len(), limits::SHAPE_MAX_DIMS);
            return Err(Error::too_big("SHAPE", got, max, "dimensions"));
        }
        if self.shape.contains(&0) {
            return Err(Error::err("SHAPE has a dimension of 0"));
        }
        let fits = self.payload_bytes().is_none_or(|n| n <= limits::PAYLOAD_MAX_BYTES as u64);
        let overflows = self.dtype != Dtype::UNKNOWN
            && !self.shape.is_empty()
            && self.payload_bytes().is_none();
        if !fits || overflows {
            return Err(Error::new(
                crate::error::ErrorWord::TooBig,
                format!("SHAPE makes payloads of more than {} bytes", limits::PAYLOAD_MAX_BYTES),
            ));
        }
        if !(1..=limits::CHUNK_TOKENS_MAX).contains(&self.chunk_tokens) {
            let max = limits::CHUNK_TOKENS_MAX;
            return Err(Error::err(format!("CHUNK must be between 1 and {max}")));
        }
        if self.ttl_ms > limits::TTL_MAX_MS {
            let max = limits::TTL_MAX_MS / 1_000;
            return Err(Error::err(format!("TTL must be between 0 and {max}")));
        }
        Ok(())
    }

    /// Appends the canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&self.model).u8(self.dtype.as_byte()).bytes(&self.format);
        write_shape(&self.shape, out);
        out.u32(self.chunk_tokens).bytes(&self.salt).u64(self.ttl_ms).u64(self.budget_bytes);
        out.u8(self.checksum as u8).u8(self.durable as u8);
    }

    /// Reads what `write` wrote; hostile bytes are refused.
    pub fn read(from: &mut Reader<'_>) -> std::result::Result<Self, DecodeError> {
        let settings = Self {
            model: from.bytes(limits::MODEL_MAX_BYTES)?.into(),
            dtype: Dtype::from_byte(from.u8()?).ok_or(DecodeError("unknown dtype"))?,
            format: from.bytes(limits::FORMAT_MAX_BYTES)?.into(),
            shape: read_shape(from)?,
            chunk_tokens: from.u32()?,
            salt: from.bytes(limits::SALT_MAX_BYTES)?.into(),
            ttl_ms: from.u64()?,
            budget_bytes: from.u64()?,
            checksum: match from.u8()? {
                0 => Checksum::Off,
                1 => Checksum::On,
                _ => return Err(DecodeError("unknown checksum")),
            },
            durable: match from.u8()? {
                0 => Durable::Full,
                1 => Durable::Meta,
                2 => Durable::None,
                _ => return Err(DecodeError("unknown durability")),
            },
        };
        settings.check().map_err(|_| DecodeError("a setting is out of range"))?;
        Ok(settings)
    }
}

/// Appends a shape: one byte of count, then each dimension.
pub(super) fn write_shape(shape: &[u32], out: &mut Writer) {
    out.u8(shape.len() as u8);
    for &dim in shape {
        out.u32(dim);
    }
}

/// Reads a shape.
pub(super) fn read_shape(from: &mut Reader<'_>) -> std::result::Result<Box<[u32]>, DecodeError> {
    let dims = usize::from(from.u8()?);
    if dims > limits::SHAPE_MAX_DIMS {
        return Err(DecodeError("too many dimensions"));
    }
    (0..dims).map(|_| from.u32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::open_section;

    #[test]
    fn bytes_round_trip() {
        let settings = NamespaceSettings {
            model: (*b"llama-3.1-8b").into(),
            dtype: Dtype::parse(b"BF16").unwrap(),
            format: (*b"KV_2LTD").into(),
            shape: [2, 32, 256, 1_024].into(),
            chunk_tokens: 256,
            salt: (*b"tenant").into(),
            ttl_ms: 1_000,
            budget_bytes: 1 << 40,
            checksum: Checksum::Off,
            durable: Durable::Meta,
        };
        settings.check().unwrap();
        assert_eq!(settings.payload_bytes(), Some(32 << 20));
        let mut out = Writer::section(1, 1);
        settings.write(&mut out);
        let bytes = out.finish();
        let (_, _, mut body) = open_section(&bytes).unwrap();
        assert_eq!(NamespaceSettings::read(&mut body).unwrap(), settings);
        body.finish().unwrap();
    }

    #[test]
    fn whatever_makes_tensors_differ_changes_the_fingerprint() {
        let base = NamespaceSettings::default();
        let model = NamespaceSettings { model: (*b"m").into(), ..base.clone() };
        let format = NamespaceSettings { format: (*b"m").into(), ..base.clone() };
        let dtype = NamespaceSettings { dtype: Dtype::parse(b"half").unwrap(), ..base.clone() };
        let shape = NamespaceSettings { shape: [1].into(), ..base.clone() };
        let chunk = NamespaceSettings { chunk_tokens: 16, ..base.clone() };
        let prints: std::collections::HashSet<_> =
            [&base, &model, &format, &dtype, &shape, &chunk].map(|s| s.fingerprint()).into();
        assert_eq!(prints.len(), 6);
        let budget = NamespaceSettings { budget_bytes: 7, ttl_ms: 9, ..base.clone() };
        assert_eq!(budget.fingerprint(), base.fingerprint());
    }

    #[test]
    fn unknown_names_and_sizes_are_refused() {
        assert_eq!(Dtype::parse(b"float17"), None);
        assert_eq!(Dtype::parse(b""), None);
        for dtype in ["float16", "bfloat16", "fp8_e5m2"] {
            assert_eq!(Dtype::parse(dtype.as_bytes()).unwrap().as_str(), dtype);
        }
        let huge = NamespaceSettings {
            shape: [u32::MAX; 8].into(),
            dtype: Dtype::parse(b"float64").unwrap(),
            ..NamespaceSettings::default()
        };
        assert!(huge.check().is_err());
    }
}
