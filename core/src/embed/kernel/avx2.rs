//! The encoder on x86-64 with AVX2 and FMA: every server CPU since 2013.
//!
//! Owns: the intrinsics. Called through the engine that `super::super::engine` hands out where [`runs`] says so,
//! so nothing here runs on a CPU without its instructions.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each line is an intrinsic or a load, all under the one condition of `Lanes` and `Isa`"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "registers by number: a loop over iterators is not unrolled in every profile"
)]

use super::{Beyond, Isa, LANES, Lanes, Line, QUAD, TILE, TURNED, TileSums, Weights};
use std::arch::x86_64::*;

/// Whether this CPU has the instructions.
pub(in crate::embed) fn runs() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

pub(in crate::embed) struct Avx2;

impl Isa for Avx2 {
    type F = Two;
    const TILE_ROWS: usize = 6;
    const FLOAT_TILE: (usize, usize) = (6, 1);
    const CLIPS: bool = true;

    #[inline(always)]
    unsafe fn turn_inputs(rows: &[u8], width: usize, to: &mut [u8]) {
        let groups = rows.chunks(TURNED * width).zip(to.chunks_exact_mut(TURNED * width));
        for (rows, to) in groups {
            for half in 0..2 {
                let skipped = (half * TURNED / 2 * width).min(rows.len());
                turn_eight(&rows[skipped..], width, &mut to[half * TURNED / 2..]);
            }
        }
    }

    /// Each sum stays in memory: parts that follow each other are of other outputs.
    #[inline(always)]
    unsafe fn beyond(parts: &[Beyond], columns: &[u8], width: usize, to: &mut [TileSums]) {
        let groups = columns.chunks_exact(TURNED * width).zip(to.chunks_exact_mut(TURNED));
        for (columns, to) in groups {
            let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
            for &Beyond { weight, input, output } in parts {
                debug_assert!(usize::from(input) < width);
                let column = columns.as_ptr().add(usize::from(input) * TURNED);
                let weight = _mm256_set1_epi32(weight);
                let sums = sums.get_unchecked_mut(usize::from(output) % TILE);
                for half in 0..2 {
                    // Pairs of 16 bits, of which the second input is zero.
                    let eight = _mm_loadl_epi64(column.add(half * TURNED / 2).cast());
                    let product = _mm256_madd_epi16(_mm256_cvtepu8_epi32(eight), weight);
                    sums[half] = _mm256_add_epi32(sums[half], product);
                }
            }
            for half in 0..2 {
                for eight in 0..TILE / 8 {
                    let mut columns = [_mm256_setzero_si256(); 8];
                    for output in 0..8 {
                        columns[output] = sums[eight * 8 + output][half];
                    }
                    let rows = turn_sums(&columns);
                    for row in 0..8 {
                        let to = to[half * TURNED / 2 + row].as_mut_ptr().add(eight * 8);
                        _mm256_storeu_si256(to.cast(), rows[row]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn keep(values: Two, zero: i32, to: &mut [u8; LANES]) {
        let zero = _mm256_set1_epi32(zero);
        let low = _mm256_add_epi32(_mm256_cvtps_epi32(values.0), zero);
        let high = _mm256_add_epi32(_mm256_cvtps_epi32(values.1), zero);
        let mixed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
        let kept = _mm256_min_epu16(mixed, _mm256_set1_epi16(255));
        let (low, high) = (_mm256_castsi256_si128(kept), _mm256_extracti128_si256::<1>(kept));
        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packus_epi16(low, high));
    }

    /// `maddubs` adds two products of an unsigned and a signed byte in 16 bits, where those of clipped weights fit;
    /// `madd` adds two of these sums in 32: exact.
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        Weights { low, high, are_clipped }: Weights<'_>,
        rows: &[u8],
        stride: usize,
        begin: &[TileSums],
        ahead: [bool; 2],
    ) -> [[(__m256i, __m256i); 2]; R] {
        debug_assert!(rows.len() >= (R - 1) * stride + low.len() * QUAD);
        let mut sums = [[(_mm256_setzero_si256(), _mm256_setzero_si256()); 2]; R];
        for half in 0..2 {
            let lines = if half == 0 { low } else { high };
            if !are_clipped {
                for row in 0..R {
                    sums[row][half] = whole(lines, &rows[row * stride..]);
                }
                continue;
            }
            let mut totals = [[_mm256_setzero_si256(); 2]; R];
            for row in 0..R {
                let begin = begin[row].as_ptr().add(half * LANES);
                totals[row] = [load(begin), load(begin.add(LANES / 2))];
            }
            add_half(&mut totals, lines, rows, stride, ahead[half]);
            for row in 0..R {
                sums[row][half] = (totals[row][0], totals[row][1]);
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn load<T>(from: *const T) -> __m256i {
    _mm256_loadu_si256(from.cast())
}

/// Adds the products of sixteen outputs, whose weights are clipped.
#[inline(always)]
unsafe fn add_half<const R: usize>(
    totals: &mut [[__m256i; 2]; R],
    lines: &[Line],
    rows: &[u8],
    stride: usize,
    ahead: bool,
) {
    let (start, ones) = (rows.as_ptr(), _mm256_set1_epi16(1));
    for step in 0..lines.len() {
        let line = lines.as_ptr().add(step).cast::<__m256i>();
        if ahead {
            prefetch(lines, step + 2 * lines.len());
        }
        let (first, second) = (load(line), load(line.add(1)));
        for row in 0..R {
            let quad = start.add(row * stride + step * QUAD).cast::<i32>();
            let inputs = _mm256_set1_epi32(quad.read_unaligned());
            let one = _mm256_madd_epi16(_mm256_maddubs_epi16(inputs, first), ones);
            let other = _mm256_madd_epi16(_mm256_maddubs_epi16(inputs, second), ones);
            totals[row][0] = _mm256_add_epi32(totals[row][0], one);
            totals[row][1] = _mm256_add_epi32(totals[row][1], other);
        }
    }
}

/// The products of sixteen outputs and a row, whose weights are whole: one of each two is multiplied after the other.
#[target_feature(enable = "avx2")]
#[inline(never)]
unsafe fn whole(lines: &[Line], row: &[u8]) -> (__m256i, __m256i) {
    let (ones, evens) = (_mm256_set1_epi16(1), _mm256_set1_epi16(0xFF));
    let mut totals = [_mm256_setzero_si256(); 2];
    for (step, line) in lines.iter().enumerate() {
        let quad = row.as_ptr().add(step * QUAD).cast::<i32>();
        let inputs = _mm256_set1_epi32(quad.read_unaligned());
        for (half, total) in totals.iter_mut().enumerate() {
            let weights = load(line.0.as_ptr().add(half * LANES / 2 * QUAD));
            for part in [_mm256_and_si256(evens, weights), _mm256_andnot_si256(evens, weights)] {
                let products = _mm256_madd_epi16(_mm256_maddubs_epi16(inputs, part), ones);
                *total = _mm256_add_epi32(*total, products);
            }
        }
    }
    (totals[0], totals[1])
}

/// Columns of eight rows, or of as many as there are and zeros, `TURNED` bytes from one column to the next.
#[inline(always)]
unsafe fn turn_eight(rows: &[u8], width: usize, to: &mut [u8]) {
    let count = (rows.len() / width).min(TURNED / 2);
    for at in (0..width).step_by(LANES) {
        let mut lines = [_mm_setzero_si128(); TURNED / 2];
        for row in 0..count {
            lines[row] = _mm_loadu_si128(rows.as_ptr().add(row * width + at).cast());
        }
        // Columns of two rows, of four, of eight; each half of a register has one in the end.
        let mut pairs = [_mm_setzero_si128(); TURNED / 2];
        for two in 0..4 {
            let [one, other] = [lines[2 * two], lines[2 * two + 1]];
            pairs[two] = _mm_unpacklo_epi8(one, other);
            pairs[4 + two] = _mm_unpackhi_epi8(one, other);
        }
        for half in 0..2 {
            let pairs = &pairs[4 * half..];
            let fours = [
                _mm_unpacklo_epi16(pairs[0], pairs[1]),
                _mm_unpacklo_epi16(pairs[2], pairs[3]),
                _mm_unpackhi_epi16(pairs[0], pairs[1]),
                _mm_unpackhi_epi16(pairs[2], pairs[3]),
            ];
            for four in 0..2 {
                let (low, high) = (fours[2 * four], fours[2 * four + 1]);
                let both = [_mm_unpacklo_epi32(low, high), _mm_unpackhi_epi32(low, high)];
                for two in 0..2 {
                    let column = at + 8 * half + 4 * four + 2 * two;
                    let to = to.as_mut_ptr().add(column * TURNED);
                    let other = _mm_unpackhi_epi64(both[two], both[two]);
                    _mm_storel_epi64(to.cast(), both[two]);
                    _mm_storel_epi64(to.add(TURNED).cast(), other);
                }
            }
        }
    }
}

/// Makes rows of eight columns.
#[inline(always)]
unsafe fn turn_sums(columns: &[__m256i; 8]) -> [__m256i; 8] {
    // In each half of a register: two rows of two columns, then one of four, then one of all.
    let mut pairs = [_mm256_setzero_si256(); 8];
    for two in 0..4 {
        let [one, other] = [columns[2 * two], columns[2 * two + 1]];
        pairs[two] = _mm256_unpacklo_epi32(one, other);
        pairs[4 + two] = _mm256_unpackhi_epi32(one, other);
    }
    let mut rows = [_mm256_setzero_si256(); 8];
    for two in 0..2 {
        let pairs = &pairs[4 * two..];
        let fours = [
            _mm256_unpacklo_epi64(pairs[0], pairs[1]),
            _mm256_unpacklo_epi64(pairs[2], pairs[3]),
            _mm256_unpackhi_epi64(pairs[0], pairs[1]),
            _mm256_unpackhi_epi64(pairs[2], pairs[3]),
        ];
        for row in 0..2 {
            let (low, high) = (fours[2 * row], fours[2 * row + 1]);
            rows[2 * two + row] = _mm256_permute2x128_si256::<0x20>(low, high);
            rows[4 + 2 * two + row] = _mm256_permute2x128_si256::<0x31>(low, high);
        }
    }
    rows
}

/// Asks for the line `ahead` of the first of `lines`, which need not be there, into the second cache: so many are under
/// way that the first one's slots for lines that are awaited would hold up the loads between.
#[inline(always)]
pub(super) unsafe fn prefetch(lines: &[Line], ahead: usize) {
    _mm_prefetch::<_MM_HINT_T1>(lines.as_ptr().wrapping_add(ahead).cast());
}

#[inline(always)]
pub(super) unsafe fn sum_of_eight(values: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline(always)]
pub(super) unsafe fn largest_of_eight(values: __m256) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

#[inline(always)]
pub(super) unsafe fn smallest_of_eight(values: __m256) -> f32 {
    let four = _mm_min_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
}

/// Sixteen lanes in two registers.
#[derive(Clone, Copy)]
pub(in crate::embed) struct Two(__m256, __m256);

impl Lanes for Two {
    type Sums = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8)))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        _mm256_storeu_ps(to.as_mut_ptr(), self.0);
        _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
    }
    #[inline(always)]
    unsafe fn of_i8(from: &[i8; LANES]) -> Self {
        let all = _mm_loadu_si128(from.as_ptr().cast());
        let (low, high) =
            (_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(all)));
        Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
    }
    #[inline(always)]
    unsafe fn of_sums(sums: (__m256i, __m256i), zero: i32, totals: &[i32; LANES]) -> Self {
        let zero = _mm256_set1_epi32(zero);
        let half = |sums: __m256i, at: usize| {
            let totals = _mm256_loadu_si256(totals.as_ptr().add(at).cast());
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_mullo_epi32(zero, totals)))
        };
        Self(half(sums.0, 0), half(sums.1, LANES / 2))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        let low = _mm256_fmadd_ps(self.0, factor.0, term.0);
        Self(low, _mm256_fmadd_ps(self.1, factor.1, term.1))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        let bias = _mm256_set1_epi32(127);
        let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias));
        let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias));
        Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        sum_of_eight(_mm256_add_ps(self.0, self.1))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        largest_of_eight(_mm256_max_ps(self.0, self.1))
    }
    #[inline(always)]
    unsafe fn smallest(self) -> f32 {
        smallest_of_eight(_mm256_min_ps(self.0, self.1))
    }
}
