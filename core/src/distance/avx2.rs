//! Kernels for x86-64 with AVX2, FMA, F16C and POPCNT: every server CPU since 2013.
//!
//! Owns: the intrinsics. Called through the table that [`detect`] hands out and in no other way, so
//! no kernel runs on a CPU without its instructions.

use super::{Kernels, scalar};
use half::f16;
use std::arch::x86_64::*;

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<Kernels> {
    let runs = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("popcnt");
    // SAFETY: `table` needs exactly the four features that were just found.
    runs.then(|| unsafe { table() })
}

/// The kernels become ordinary function pointers here, where the compiler knows that their
/// features are there: calls through the table need neither a check nor a second jump.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn table() -> Kernels {
    Kernels { name: "avx2", dot_i8, dot_u2_i8, dot_f32, dot_f16_f32, square_f16, hamming }
}

/// Products of two pairs are added in i16 by `maddubs`, which wants one unsigned factor: |a| times
/// b with the sign of a. For codes in [-127, 127] the largest such sum is 2 * 127 * 127 = 32,258,
/// below the 32,767 at which it would saturate; `madd` with ones then widens to i32 at once.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let mut sums = [_mm256_setzero_si256(); 2];
    let mut at = 0;
    while at + 64 <= length {
        // SAFETY: bytes at..at + 64 of both slices exist; the loads need no alignment.
        unsafe {
            sums[0] = add_i8_products(sums[0], a.as_ptr().add(at), b.as_ptr().add(at));
            sums[1] = add_i8_products(sums[1], a.as_ptr().add(at + 32), b.as_ptr().add(at + 32));
        }
        at += 64;
    }
    if at + 32 <= length {
        // SAFETY: bytes at..at + 32 of both slices exist; the loads need no alignment.
        sums[0] = unsafe { add_i8_products(sums[0], a.as_ptr().add(at), b.as_ptr().add(at)) };
        at += 32;
    }
    let sum = _mm256_add_epi32(sums[0], sums[1]);
    let mut quads = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    if at + 16 <= length {
        // SAFETY: bytes at..at + 16 of both slices exist; the loads need no alignment.
        let (x, y) = unsafe {
            (_mm_loadu_si128(a.as_ptr().add(at).cast()), _mm_loadu_si128(b.as_ptr().add(at).cast()))
        };
        let pairs = _mm_maddubs_epi16(_mm_abs_epi8(x), _mm_sign_epi8(y, x));
        quads = _mm_add_epi32(quads, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
        at += 16;
    }
    let halves = _mm_add_epi32(quads, _mm_shuffle_epi32::<0b00_00_11_10>(quads));
    let whole = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b00_00_00_01>(halves));
    _mm_cvtsi128_si32(whole).wrapping_add(scalar::dot_i8(&a[at..], &b[at..]))
}

/// Adds the products of 32 codes to eight sums.
///
/// # Safety
/// 32 bytes are readable at both `a` and `b`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_i8_products(sums: __m256i, a: *const i8, b: *const i8) -> __m256i {
    // SAFETY: the caller vouches for 32 bytes at each.
    let (x, y) = unsafe { (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast())) };
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Four sums of products, each at most 2 * 3 * 127 in i16, add up to 3,048 before `madd` widens them.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn dot_u2_i8(a: &[u8], b: &[i8]) -> i32 {
    let width = a.len();
    let low = _mm256_set1_epi8(3);
    let mut sum = _mm256_setzero_si256();
    let mut at = 0;
    while at + 32 <= width && 3 * width + at + 32 <= b.len() {
        // SAFETY: bytes at..at + 32 of `a` exist, and of `b` those at up to three widths farther on, by the
        // condition of the loop; the loads need no alignment.
        let (bits, y) = unsafe {
            let values =
                |plane: usize| _mm256_loadu_si256(b.as_ptr().add(plane * width + at).cast());
            (_mm256_loadu_si256(a.as_ptr().add(at).cast()), [0, 1, 2, 3].map(values))
        };
        let x = [
            _mm256_and_si256(bits, low),
            _mm256_and_si256(_mm256_srli_epi16::<2>(bits), low),
            _mm256_and_si256(_mm256_srli_epi16::<4>(bits), low),
            _mm256_and_si256(_mm256_srli_epi16::<6>(bits), low),
        ];
        let pairs = _mm256_add_epi16(
            _mm256_add_epi16(_mm256_maddubs_epi16(x[0], y[0]), _mm256_maddubs_epi16(x[1], y[1])),
            _mm256_add_epi16(_mm256_maddubs_epi16(x[2], y[2]), _mm256_maddubs_epi16(x[3], y[3])),
        );
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        at += 32;
    }
    let quads = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let halves = _mm_add_epi32(quads, _mm_shuffle_epi32::<0b00_00_11_10>(quads));
    let whole = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b00_00_00_01>(halves));
    _mm_cvtsi128_si32(whole) + scalar::dot_u2_i8_from(a, b, at)
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    // Four sums hide the latency of FMA: two loads each let one start per cycle, it takes four.
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut at = 0;
    while at + 32 <= length {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: floats at..at + 32 of both slices exist; the loads need no alignment.
            let (x, y) = unsafe {
                (
                    _mm256_loadu_ps(a.as_ptr().add(at + 8 * lane)),
                    _mm256_loadu_ps(b.as_ptr().add(at + 8 * lane)),
                )
            };
            *sum = _mm256_fmadd_ps(x, y, *sum);
        }
        at += 32;
    }
    while at + 8 <= length {
        // SAFETY: floats at..at + 8 of both slices exist; the loads need no alignment.
        let (x, y) =
            unsafe { (_mm256_loadu_ps(a.as_ptr().add(at)), _mm256_loadu_ps(b.as_ptr().add(at))) };
        sums[0] = _mm256_fmadd_ps(x, y, sums[0]);
        at += 8;
    }
    total_f32(sums) + scalar::dot_f32(&a[at..], &b[at..])
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn dot_f16_f32(a: &[f16], b: &[f32]) -> f32 {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut at = 0;
    while at + 32 <= length {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: elements at..at + 32 of both slices exist, eight f16 are the 16 bytes of one
            // load, and the loads need no alignment.
            let (x, y) = unsafe {
                (
                    _mm_loadu_si128(a.as_ptr().add(at + 8 * lane).cast()),
                    _mm256_loadu_ps(b.as_ptr().add(at + 8 * lane)),
                )
            };
            *sum = _mm256_fmadd_ps(_mm256_cvtph_ps(x), y, *sum);
        }
        at += 32;
    }
    while at + 8 <= length {
        // SAFETY: elements at..at + 8 of both slices exist; as above.
        let (x, y) = unsafe {
            (_mm_loadu_si128(a.as_ptr().add(at).cast()), _mm256_loadu_ps(b.as_ptr().add(at)))
        };
        sums[0] = _mm256_fmadd_ps(_mm256_cvtph_ps(x), y, sums[0]);
        at += 8;
    }
    total_f32(sums) + scalar::dot_f16_f32(&a[at..], &b[at..])
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn square_f16(a: &[f16]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut at = 0;
    while at + 32 <= a.len() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: elements at..at + 32 exist, eight f16 are the 16 bytes of one load, and the
            // load needs no alignment.
            let x = unsafe { _mm_loadu_si128(a.as_ptr().add(at + 8 * lane).cast()) };
            let x = _mm256_cvtph_ps(x);
            *sum = _mm256_fmadd_ps(x, x, *sum);
        }
        at += 32;
    }
    while at + 8 <= a.len() {
        // SAFETY: elements at..at + 8 exist; as above.
        let x = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(a.as_ptr().add(at).cast()) });
        sums[0] = _mm256_fmadd_ps(x, x, sums[0]);
        at += 8;
    }
    total_f32(sums) + scalar::square_f16(&a[at..])
}

#[inline]
#[target_feature(enable = "avx2")]
fn total_f32(sums: [__m256; 4]) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Plain Rust: with POPCNT one word costs one instruction, and codes are only 6 to 24 words long.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn hamming(a: &[u64], b: &[u64]) -> u32 {
    scalar::hamming(a, b)
}
