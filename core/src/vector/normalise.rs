//! From a client's blob to a vector of unit length.
//!
//! Owns: what counts as a vector. Summed in f64, in an order that is fixed: equal bits on every CPU.
//! Any thread.

use super::VectorError;
use crate::limits::DIM_MAX;
use half::f16;

/// Decodes little-endian f32 elements, at most `DIM_MAX`, all finite.
pub fn decode_fp32(bytes: &[u8]) -> Result<Vec<f32>, VectorError> {
    let elements = elements::<4>(bytes)?;
    finite(elements.iter().map(|&element| f32::from_le_bytes(element)).collect())
}

/// Decodes little-endian f16 elements, at most `DIM_MAX`, all finite; exact.
pub fn decode_fp16(bytes: &[u8]) -> Result<Vec<f32>, VectorError> {
    let elements = elements::<2>(bytes)?;
    finite(elements.iter().map(|&element| f16::from_le_bytes(element).to_f32()).collect())
}

/// Encodes numbers as little-endian f32.
pub fn encode_fp32(numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(numbers)];
    for (element, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *element = x.to_le_bytes();
    }
    bytes
}

/// Encodes numbers as little-endian f16, rounded to the nearest, past 65,504 to infinity.
pub fn encode_fp16(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
}

/// Splits a blob into elements of `WIDTH` bytes; refuses a remainder and a bad dimension.
fn elements<const WIDTH: usize>(bytes: &[u8]) -> Result<&[[u8; WIDTH]], VectorError> {
    let (elements, rest) = bytes.as_chunks::<WIDTH>();
    if !rest.is_empty() {
        return Err(VectorError::RaggedLength { bytes: bytes.len(), width: WIDTH });
    }
    check_dimension(elements.len())?;
    Ok(elements)
}

fn check_dimension(dim: usize) -> Result<(), VectorError> {
    match dim {
        0 => Err(VectorError::Empty),
        _ if dim > DIM_MAX as usize => Err(VectorError::TooManyDimensions { dim }),
        _ => Ok(()),
    }
}

fn finite(vector: Vec<f32>) -> Result<Vec<f32>, VectorError> {
    check_finite(&vector)?;
    Ok(vector)
}

fn check_finite(vector: &[f32]) -> Result<(), VectorError> {
    // Without a way out in its middle the loop takes many numbers at a time.
    if vector.iter().fold(true, |all, x| all & x.is_finite()) {
        return Ok(());
    }
    match vector.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(VectorError::NotFinite { index }),
        None => Ok(()),
    }
}

/// Sums that squares are added to in turn: none waits for the one before.
const SUMS: usize = 8;

/// Euclidean norm of a vector of finite numbers.
pub fn norm(vector: &[f32]) -> f64 {
    let (whole, rest) = vector.as_chunks::<SUMS>();
    let mut sums = [0_f64; SUMS];
    let square = |x: f32| f64::from(x) * f64::from(x);
    for part in whole {
        for lane in 0..SUMS {
            sums[lane] += square(part[lane]);
        }
    }
    // Added apart: a sum that is reached by a number is kept in memory.
    let rest: f64 = rest.iter().map(|&x| square(x)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

/// The vector scaled to length 1.
pub fn normalise(vector: &[f32]) -> Result<Vec<f32>, VectorError> {
    let mut unit = vector.to_vec();
    normalise_in_place(&mut unit)?;
    Ok(unit)
}

/// Scales the vector to length 1; leaves it as it was on an error.
///
/// The f64 sum holds the squares of 16,384 elements of any finite size, denormal ones included,
/// without overflow or loss to zero, and the norm comes out correct to the last bits of an f64.
pub fn normalise_in_place(vector: &mut [f32]) -> Result<(), VectorError> {
    check_dimension(vector.len())?;
    let norm = norm(vector);
    // A number that is not finite reaches the sum.
    if !norm.is_finite() {
        check_finite(vector)?;
    }
    if norm == 0.0 {
        return Err(VectorError::ZeroNorm);
    }
    for x in vector {
        *x = (f64::from(*x) / norm) as f32;
    }
    Ok(())
}
