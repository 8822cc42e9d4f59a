//! Vectors: from a client's bytes to unit length, to int8 codes, to the form an entry keeps.
//!
//! Owns: every conversion of a vector and the memory of the codes. Must not know: who searches.
//! Conversions are scalar, in index order and free of the instruction set, so that two servers of a
//! replica set hold equal bytes; only similarities go through `distance`. Any thread.

pub mod arena;
pub(crate) mod directory;
pub mod fine;
pub mod links;
pub mod normalise;
pub mod prefix;
pub mod quantise;
pub mod stored;

pub use stored::{Quant, Query, StoredVector};

use crate::limits::DIM_MAX;
use std::fmt;

/// Why bytes or numbers are not a usable vector. The text carries no error word of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorError {
    /// No dimension at all.
    Empty,
    /// The blob's length in bytes is no multiple of an element's width.
    RaggedLength {
        /// Length of the blob in bytes.
        bytes: usize,
        /// Bytes of one element.
        width: usize,
    },
    /// More dimensions than `limits::DIM_MAX`.
    TooManyDimensions {
        /// Dimensions given.
        dim: usize,
    },
    /// An element is NaN or infinite.
    NotFinite {
        /// Place of the first such element, from 0.
        index: usize,
    },
    /// Every element is zero: there is no direction.
    ZeroNorm,
    /// A kept vector has not the length of its form.
    StoredLength {
        /// Bytes the form takes.
        expected: usize,
        /// Bytes found.
        got: usize,
    },
    /// A kept vector's scale is not a positive finite number.
    StoredScale,
    /// A kept vector's int8 codes are not what quantisation makes: the largest magnitude is not 127.
    StoredCodes,
    /// A kept vector holds a non-finite number, or its norm is not 1 within its form's tolerance.
    StoredNorm,
}

impl fmt::Display for VectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => write!(f, "vector is empty"),
            Self::RaggedLength { bytes, width } => {
                write!(f, "vector of {bytes} bytes is not a multiple of {width} bytes")
            }
            Self::TooManyDimensions { dim } => {
                write!(f, "vector has {dim} dimensions, at most {DIM_MAX} are accepted")
            }
            Self::NotFinite { index } => {
                write!(f, "vector element {index} is not a finite number")
            }
            Self::ZeroNorm => write!(f, "vector has zero norm"),
            Self::StoredLength { expected, got } => {
                write!(f, "stored vector has {got} bytes instead of {expected}")
            }
            Self::StoredScale => write!(f, "stored vector has no positive finite scale"),
            Self::StoredCodes => write!(f, "stored vector's codes do not reach 127"),
            Self::StoredNorm => write!(f, "stored vector is not of unit length"),
        }
    }
}

impl std::error::Error for VectorError {}
