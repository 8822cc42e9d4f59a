//! int8 codes with one scale per vector, and what they cost in precision.
//!
//! Owns: the code that the index searches and that `QUANT Q8` keeps. Scalar and correctly rounded:
//! equal bits on every CPU. Any thread.

/// Largest magnitude of a code. -128 is never used: negation stays in range, and the product
/// sums of the kernels stay exact.
pub const CODE_MAX: i8 = 127;

/// How many standard deviations [`error_bound`] covers.
const BOUND_SIGMAS: f32 = 4.0;

/// An int8 code: element `i` stands for `codes[i] * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    /// One value in `[-127, 127]` per dimension.
    pub codes: Vec<i8>,
    /// Width of one step.
    pub scale: f32,
}

/// Codes a vector of finite numbers.
pub fn quantise(vector: &[f32]) -> Code {
    let mut codes = vec![0; vector.len()];
    let scale = quantise_into(vector, &mut codes);
    Code { codes, scale }
}

/// Codes a vector of finite numbers into `codes`, of the same length, and returns the scale:
/// `max |x| / 127`, rounded to f32. A vector of zeros gets the scale 0.
///
/// Each code is `x / scale` rounded to the nearest integer, halves away from zero, as of the exact quotient. The
/// quotient of two f32 is a half, or at least 2^-27 away from one. Multiplied by the reciprocal, in f64, it errs by
/// less than 2^-43; so what `NUDGE` takes away from zero is what is a half, and nothing else.
///
/// # Panics
/// If the lengths differ, which is the caller's mistake.
pub fn quantise_into(vector: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(vector.len(), codes.len(), "a code has one value per dimension");
    let scale = largest(vector) / f32::from(CODE_MAX);
    if scale == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    let per_step = 1.0 / f64::from(scale);
    let limit = f64::from(CODE_MAX);
    for (code, &x) in codes.iter_mut().zip(vector) {
        let quotient = f64::from(x) * per_step;
        // The clamp matters for scales so small that f32 holds only a few bits of them.
        *code = low_byte((quotient + NUDGE.copysign(quotient)).clamp(-limit, limit));
    }
    scale
}

/// More than a quotient errs by, and less than lies between it and a half that it is not.
const NUDGE: f64 = 1.0 / (1_u64 << 35) as f64;

/// A number of at most 127 rounded to the nearest integer. Added to so large a number it is rounded, and stands in
/// the low bits: a cast would check for what an i8 cannot hold, number by number.
#[inline(always)]
fn low_byte(number: f64) -> i8 {
    const LARGE: f64 = 1.5 * (1_u64 << 52) as f64;
    (number + LARGE).to_bits() as i8
}

/// The largest magnitude. Of positive numbers the larger has the larger bits, which are compared many at a time.
fn largest(vector: &[f32]) -> f32 {
    let bits = vector.iter().map(|x| x.abs().to_bits().cast_signed());
    f32::from_bits(bits.fold(0, i32::max).cast_unsigned())
}

/// The scale that gives a code unit length; 1 for a code of zeros, which has none.
///
/// Rounding makes a vector longer or shorter by up to a hundredth. Measured with the width of a step, a vector
/// that came out long seems nearer to every query, and where all vectors point in nearly the same direction
/// that is more than they differ by: at a mean cosine of 0.999 one in ten was nearest to itself. At unit
/// length what rounding changes is at right angles to the vector, and nothing is nearer to a code than itself.
///
/// The sum is exact, and the root and the quotient are correctly rounded: equal bits on every CPU.
pub fn unit_scale(codes: &[i8]) -> f32 {
    // Of `DIM_MAX` dimensions at most 2^28.
    let square: i32 = codes.iter().map(|&code| i32::from(i16::from(code) * i16::from(code))).sum();
    if square == 0 { 1.0 } else { (1.0 / f64::from(square).sqrt()) as f32 }
}

/// Similarity of two unit vectors by their codes' dot product. With `unit_scale` a cosine, give or take the
/// last bit; with the width of a step it may pass 1 by a little.
#[inline(always)]
pub fn approx_similarity(dot: i32, scale_a: f32, scale_b: f32) -> f32 {
    dot as f32 * (scale_a * scale_b)
}

/// How far [`approx_similarity`] may lie from the cosine of the two unit vectors: four standard
/// deviations.
///
/// Rounding moves each element of `a` by an error that is close to uniform in ±scale/2, with the
/// variance scale²/12. The dot product with a unit vector `b` then errs by the sum of error_i * b_i,
/// with the variance scale_a²/12 * |b|² = scale_a²/12; the errors of `b` add theirs. The product of
/// both errors, dim * scale_a² * scale_b² / 144, is smaller by four orders of magnitude. So sigma is
/// sqrt((scale_a² + scale_b²) / 12), and by the sum of many small errors 99.99 % lie within 4 sigma.
pub fn error_bound(scale_a: f32, scale_b: f32) -> f32 {
    BOUND_SIGMAS * ((scale_a * scale_a + scale_b * scale_b) / 12.0).sqrt()
}
