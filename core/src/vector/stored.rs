//! The vector as an entry keeps it, and exact scores from it.
//!
//! Owns: the byte layout below, its validation, the cosine that clients see. Any thread.
//!
//! | form | bytes |
//! |---|---|
//! | `NONE` | dim x f32 |
//! | `F16` | dim x f16 |
//! | `Q8` | f32 scale, dim x i8 |
//!
//! All little-endian, unaligned, of the vector at unit length.

use super::VectorError;
use super::fine::{OwnPlane, rest_of};
use super::normalise::normalise_in_place;
use super::prefix::{Prefix, prefix_code};
use super::quantise::{CODE_MAX, Code, approx_similarity, error_bound, quantise};
use crate::distance::kernels;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Elements brought from unaligned bytes to aligned numbers at a time: 1 KiB of stack.
const CHUNK: usize = 256;

/// Bytes of the scale ahead of a Q8 code.
const SCALE_BYTES: usize = 4;

/// How an entry keeps its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Quant {
    /// f32, as normalised.
    None = 0,
    /// f16: a relative error of 2^-11 per element.
    #[default]
    F16 = 1,
    /// int8 with one scale: an absolute error of scale/2 per element.
    Q8 = 2,
}

impl Quant {
    /// The form of a stored byte value.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::F16),
            2 => Some(Self::Q8),
            _ => None,
        }
    }

    /// The byte that stands for the form in stored data.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The form of a client's word, in any case.
    pub fn parse(word: &[u8]) -> Option<Self> {
        [Self::None, Self::F16, Self::Q8]
            .into_iter()
            .find(|quant| word.eq_ignore_ascii_case(quant.as_str().as_bytes()))
    }

    /// The word of the form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::F16 => "F16",
            Self::Q8 => "Q8",
        }
    }

    /// Bytes a vector of `dim` dimensions takes.
    pub const fn encoded_len(self, dim: usize) -> usize {
        match self {
            Self::None => dim * size_of::<f32>(),
            Self::F16 => dim * size_of::<f16>(),
            Self::Q8 => SCALE_BYTES + dim,
        }
    }

    /// Appends the stored form of a vector of unit length to `out`.
    pub fn encode(self, normalised: &[f32], out: &mut Vec<u8>) {
        out.reserve(self.encoded_len(normalised.len()));
        match self {
            Self::None => out.extend(normalised.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => out.extend(normalised.iter().flat_map(|&x| half_of(x).to_le_bytes())),
            Self::Q8 => {
                let Code { codes, scale } = quantise(normalised);
                out.extend(scale.to_le_bytes());
                out.extend_from_slice(bytemuck::cast_slice(&codes));
            }
        }
    }
}

/// Rounds to the nearest f16, ties to even, in software: what is stored does not depend on a CPU.
fn half_of(x: f32) -> f16 {
    f16::from_f32_const(x)
}

/// A vector to compare with many: the normalised numbers and their int8 code.
#[derive(Debug, Clone)]
pub struct Query {
    normalised: Vec<f32>,
    code: Code,
}

impl Query {
    /// Normalises and codes a client's vector.
    pub fn new(vector: &[f32]) -> Result<Self, VectorError> {
        Self::of(vector.to_vec())
    }

    /// The same of a vector that nobody else needs.
    pub fn of(mut vector: Vec<f32>) -> Result<Self, VectorError> {
        normalise_in_place(&mut vector)?;
        Ok(Self::from_normalised(vector))
    }

    /// Codes a vector that `normalise` made.
    pub fn from_normalised(normalised: Vec<f32>) -> Self {
        let code = quantise(&normalised);
        Self { normalised, code }
    }

    /// The vector at unit length.
    pub fn normalised(&self) -> &[f32] {
        &self.normalised
    }

    /// int8 code, what an index is searched with. The code to index an entry under comes from the
    /// stored form instead: [`StoredVector::code_and_plane`].
    pub fn code(&self) -> &[i8] {
        &self.code.codes
    }

    /// Scale of the code.
    pub fn scale(&self) -> f32 {
        self.code.scale
    }

    /// What rounding left of it, for the rows that a search is about to name.
    pub fn rest(&self) -> Vec<i8> {
        rest_of(&self.normalised, &self.code.codes, self.code.scale)
    }

    /// Whether its first dimensions carry enough for every stored form to have a direction of them: one of them is at
    /// least a 254th of the largest of all, and so not 0 in a code of the whole.
    pub fn has_prefix(&self, dims: usize) -> bool {
        self.code().iter().take(dims).any(|&code| code != 0)
    }

    /// Its first dimensions; `None` where it has not as many, or they carry next to nothing (`has_prefix`).
    pub fn prefix(&self, dims: usize) -> Option<Prefix> {
        let first = self.normalised.get(..dims).filter(|_| self.has_prefix(dims))?;
        Prefix::of(first)
    }

    /// Whether the similarity to the vector behind a code may reach `least`, judged by the codes: twice
    /// the usual bound, since nobody looks again at what this refuses. Another dimension never does.
    pub fn may_reach(&self, codes: &[i8], scale: f32, least: f64) -> bool {
        if codes.len() != self.dim() {
            return false;
        }
        let dot = (kernels().dot_i8)(&self.code.codes, codes);
        let approx = approx_similarity(dot, self.code.scale, scale);
        f64::from(approx + 2.0 * error_bound(self.code.scale, scale)) >= least
    }

    /// Dimensions.
    pub fn dim(&self) -> usize {
        self.normalised.len()
    }
}

/// A stored vector, validated, in place.
#[derive(Debug, Clone, Copy)]
pub struct StoredVector<'a> {
    form: Form<'a>,
    norm: f64,
}

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Singles(&'a [[u8; 4]]),
    Halves(&'a [[u8; 2]]),
    Codes { codes: &'a [i8], scale: f32 },
}

impl<'a> StoredVector<'a> {
    /// Reads `dim` dimensions from bytes that may come from anywhere. Costs one pass of a kernel.
    ///
    /// Refused are: another length than the form's, a non-finite number, a scale that is not
    /// positive, codes whose largest magnitude is not 127 (quantisation always reaches it), and a
    /// norm further from 1 than rounding can take it: 2^-18 for `NONE`, 2^-9 for `F16`, and for `Q8`
    /// the length of an error of scale/2 in every dimension, with 2^-18 for the scale's own rounding.
    pub fn parse(quant: Quant, dim: u32, bytes: &'a [u8]) -> Result<Self, VectorError> {
        let expected = quant.encoded_len(dim as usize);
        if dim == 0 {
            return Err(VectorError::Empty);
        }
        if bytes.len() != expected {
            return Err(VectorError::StoredLength { expected, got: bytes.len() });
        }
        const SINGLE: f64 = 1.0 / (1 << 18) as f64;
        const HALF: f64 = 1.0 / (1 << 9) as f64;
        let (form, tolerance) = match quant {
            Quant::None => (Form::Singles(bytes.as_chunks().0), SINGLE),
            Quant::F16 => (Form::Halves(bytes.as_chunks().0), HALF),
            Quant::Q8 => {
                let (scale, codes) = parse_codes(bytes)?;
                let rounding = f64::from(dim).sqrt() * f64::from(scale) / 2.0;
                (Form::Codes { codes, scale }, rounding + SINGLE)
            }
        };
        let norm = form.norm();
        // NaN and infinity in any element reach the norm, and fail this comparison there.
        if norm > 0.0 && (norm - 1.0).abs() <= tolerance {
            Ok(Self { form, norm })
        } else {
            Err(VectorError::StoredNorm)
        }
    }

    /// Dimensions.
    pub fn dim(&self) -> usize {
        match self.form {
            Form::Singles(elements) => elements.len(),
            Form::Halves(elements) => elements.len(),
            Form::Codes { codes, .. } => codes.len(),
        }
    }

    /// The numbers it stands for, each exact but for `Q8`, where code times scale is rounded to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.form.to_f32()
    }

    /// The int8 code of its first dimensions at unit length; `None` where it has not as many, or they are zeros.
    pub fn prefix_code(&self, dims: usize) -> Option<Code> {
        prefix_code(&self.form.first(dims)?.to_f32())
    }

    /// The int8 code to index it under, and the fine plane beside it.
    ///
    /// `NONE` and `F16` are quantised; `Q8` is copied and has no plane, as it keeps no more than its code: quantising
    /// what a code stands for would give the same codes, but for some scales one whose last bit differs.
    pub fn code_and_plane(&self) -> (Code, Option<OwnPlane>) {
        if let Form::Codes { codes, scale } = self.form {
            return (Code { codes: codes.to_vec(), scale }, None);
        }
        let numbers = self.to_f32();
        let code = quantise(&numbers);
        let plane = OwnPlane::of(&numbers, &code.codes, code.scale);
        (code, Some(plane))
    }

    /// Cosine of the query and the stored form, in `[-1, 1]`, rounded to six decimals: what the sums
    /// of every instruction set agree on but for the last one.
    ///
    /// A query that would be stored as these very bytes scores exactly 1, whatever the form lost.
    /// Any other takes part in full precision, and reaches 1 only by the rounding: a cosine of at
    /// least 0.9999995. A query of another dimension scores -1; the caller compares dimensions first.
    pub fn similarity(&self, query: &Query) -> f64 {
        if query.dim() != self.dim() {
            return -1.0;
        }
        if self.is_encoding_of(query) {
            return 1.0;
        }
        let cosine = self.form.dot(query.normalised()) / self.norm;
        (cosine.clamp(-1.0, 1.0) * 1e6).round() / 1e6
    }

    /// Whether `encode` makes these bytes of the query. Encodes element by element up to the first
    /// that differs, mostly the first at all, so it costs no buffer and next to no time.
    fn is_encoding_of(&self, query: &Query) -> bool {
        let numbers = query.normalised().iter();
        match self.form {
            Form::Singles(elements) => {
                elements.iter().zip(numbers).all(|(e, x)| *e == x.to_le_bytes())
            }
            Form::Halves(elements) => {
                elements.iter().zip(numbers).all(|(e, &x)| *e == half_of(x).to_le_bytes())
            }
            Form::Codes { codes, scale } => {
                scale.to_bits() == query.scale().to_bits() && codes == query.code()
            }
        }
    }
}

fn parse_codes(bytes: &[u8]) -> Result<(f32, &[i8]), VectorError> {
    let (scale, codes) =
        bytes.split_first_chunk::<SCALE_BYTES>().ok_or(VectorError::StoredScale)?;
    let scale = f32::from_le_bytes(*scale);
    if !(scale.is_finite() && scale > 0.0) {
        return Err(VectorError::StoredScale);
    }
    let codes: &[i8] = bytemuck::cast_slice(codes);
    let largest = codes.iter().fold(0, |largest: u8, code| largest.max(code.unsigned_abs()));
    if largest != CODE_MAX.unsigned_abs() {
        return Err(VectorError::StoredCodes);
    }
    Ok((scale, codes))
}

impl Form<'_> {
    /// The first dimensions; `None` where there are not as many.
    fn first(&self, dims: usize) -> Option<Self> {
        Some(match *self {
            Self::Singles(elements) => Self::Singles(elements.get(..dims)?),
            Self::Halves(elements) => Self::Halves(elements.get(..dims)?),
            Self::Codes { codes, scale } => Self::Codes { codes: codes.get(..dims)?, scale },
        })
    }

    fn to_f32(self) -> Vec<f32> {
        match self {
            Self::Singles(elements) => {
                elements.iter().map(|&element| f32::from_le_bytes(element)).collect()
            }
            Self::Halves(elements) => {
                let (mut narrow, mut numbers) = ([f16::ZERO; CHUNK], vec![0.0; elements.len()]);
                for (part, wide) in elements.chunks(CHUNK).zip(numbers.chunks_mut(CHUNK)) {
                    halves(part, &mut narrow).convert_to_f32_slice(wide);
                }
                numbers
            }
            Self::Codes { codes, scale } => codes.iter().map(|&c| f32::from(c) * scale).collect(),
        }
    }

    /// Dot product with a vector of the same dimension: kernels within a chunk, f64 between chunks.
    fn dot(&self, other: &[f32]) -> f64 {
        let kernels = kernels();
        match *self {
            Form::Singles(elements) => {
                let mut numbers = [0_f32; CHUNK];
                let chunks = elements.chunks(CHUNK).zip(other.chunks(CHUNK));
                chunks.map(|(e, o)| f64::from((kernels.dot_f32)(singles(e, &mut numbers), o))).sum()
            }
            Form::Halves(elements) => {
                let mut numbers = [f16::ZERO; CHUNK];
                let chunks = elements.chunks(CHUNK).zip(other.chunks(CHUNK));
                chunks
                    .map(|(e, o)| f64::from((kernels.dot_f16_f32)(halves(e, &mut numbers), o)))
                    .sum()
            }
            Form::Codes { codes, scale } => {
                let mut numbers = [0_f32; CHUNK];
                let chunks = codes.chunks(CHUNK).zip(other.chunks(CHUNK));
                let dot: f64 = chunks
                    .map(|(c, o)| f64::from((kernels.dot_f32)(widened(c, &mut numbers), o)))
                    .sum();
                dot * f64::from(scale)
            }
        }
    }

    /// Euclidean norm; not finite if an element is not.
    fn norm(&self) -> f64 {
        let kernels = kernels();
        let mut numbers = [0_f32; CHUNK];
        match *self {
            Form::Singles(elements) => {
                let chunks = elements.chunks(CHUNK);
                let square = |e| {
                    let part = singles(e, &mut numbers);
                    f64::from((kernels.dot_f32)(part, part))
                };
                chunks.map(square).sum::<f64>().sqrt()
            }
            Form::Halves(elements) => {
                let mut narrow = [f16::ZERO; CHUNK];
                let square = |e| f64::from((kernels.square_f16)(halves(e, &mut narrow)));
                elements.chunks(CHUNK).map(square).sum::<f64>().sqrt()
            }
            Form::Codes { codes, scale } => {
                f64::from((kernels.dot_i8)(codes, codes)).sqrt() * f64::from(scale)
            }
        }
    }
}

/// The elements as numbers: where they stand if they are aligned, as those of an entry are, else as a
/// copy.
fn singles<'n>(elements: &'n [[u8; 4]], numbers: &'n mut [f32; CHUNK]) -> &'n [f32] {
    if cfg!(target_endian = "little")
        && let Ok(aligned) = bytemuck::try_cast_slice(elements)
    {
        return aligned;
    }
    let used = &mut numbers[..elements.len()];
    for (number, &element) in used.iter_mut().zip(elements) {
        *number = f32::from_le_bytes(element);
    }
    used
}

/// As `singles`.
fn halves<'n>(elements: &'n [[u8; 2]], numbers: &'n mut [f16; CHUNK]) -> &'n [f16] {
    if cfg!(target_endian = "little")
        && let Ok(aligned) = bytemuck::try_cast_slice(elements)
    {
        return aligned;
    }
    let used = &mut numbers[..elements.len()];
    for (number, &element) in used.iter_mut().zip(elements) {
        *number = f16::from_le_bytes(element);
    }
    used
}

fn widened<'n>(codes: &[i8], numbers: &'n mut [f32; CHUNK]) -> &'n [f32] {
    let used = &mut numbers[..codes.len()];
    for (number, &code) in used.iter_mut().zip(codes) {
        *number = f32::from(code);
    }
    used
}
