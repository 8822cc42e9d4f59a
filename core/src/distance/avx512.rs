//! The int8 kernel for x86-64 with AVX-512 VNNI: servers since Ice Lake (2019) and Zen 4 (2022).
//!
//! Owns: the intrinsics. The other kernels are those of `avx2`. Called through the table that [`detect`]
//! hands out and in no other way, so no kernel runs on a CPU without its instructions.

use super::{Kernels, avx2};
use std::arch::x86_64::*;

/// Codes of one register.
const WIDTH: usize = 64;

/// The table, if this CPU runs it.
pub(super) fn detect() -> Option<Kernels> {
    let runs = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni");
    let others = avx2::detect()?;
    // SAFETY: `table` needs exactly the three features that were just found.
    runs.then(|| unsafe { table(others) })
}

/// See `avx2::table`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn table(others: Kernels) -> Kernels {
    Kernels { name: "avx512", dot_i8, ..others }
}

/// `dpbusd` multiplies unsigned by signed and adds four products to each sum. So `a` takes part as
/// a + 128, which is its bits with the highest one turned over, and 128 times the sum of `b`, gathered
/// by the same instruction with ones, is taken off again. Whatever wraps around on the way comes back:
/// the result is exact modulo 2^32.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let (high, ones) = (_mm512_set1_epi8(i8::MIN), _mm512_set1_epi8(1));
    let zero = _mm512_setzero_si512();
    // Two of each hide the latency of one.
    let (mut products, mut sums) = ([zero; 2], [zero; 2]);
    let mut add = |lane: usize, x: __m512i, y: __m512i| {
        products[lane] = _mm512_dpbusd_epi32(products[lane], _mm512_xor_si512(x, high), y);
        sums[lane] = _mm512_dpbusd_epi32(sums[lane], ones, y);
    };
    let mut at = 0;
    while at + 2 * WIDTH <= length {
        for lane in 0..2 {
            // SAFETY: bytes at..at + 128 of both slices exist; the loads need no alignment.
            let (x, y) = unsafe {
                (
                    _mm512_loadu_epi8(a.as_ptr().add(at + lane * WIDTH)),
                    _mm512_loadu_epi8(b.as_ptr().add(at + lane * WIDTH)),
                )
            };
            add(lane, x, y);
        }
        at += 2 * WIDTH;
    }
    while at < length {
        let some = u64::MAX >> (WIDTH - (length - at).min(WIDTH));
        // SAFETY: the mask leaves out what lies behind the slices, and what is left out is not read.
        // Zeros in `y` add nothing.
        let (x, y) = unsafe {
            (
                _mm512_maskz_loadu_epi8(some, a.as_ptr().add(at)),
                _mm512_maskz_loadu_epi8(some, b.as_ptr().add(at)),
            )
        };
        add(0, x, y);
        at += WIDTH;
    }
    let products = _mm512_add_epi32(products[0], products[1]);
    let sums = _mm512_slli_epi32::<7>(_mm512_add_epi32(sums[0], sums[1]));
    _mm512_reduce_add_epi32(_mm512_sub_epi32(products, sums))
}
