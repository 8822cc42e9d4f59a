//! Distance kernels: dot products over int8, two bits, f32 and f16, and the Hamming distance.
//!
//! Owns: one file per way to compute them and the single choice between those files. Must not know:
//! what the numbers mean. Any thread; the choice is made once per process, by the first caller.
//!
//! All kernels agree on integers to the last bit. Floating sums differ in their last bits between
//! instruction sets, so nothing that is stored or replicated may come from them.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod avx2;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod avx512;
#[cfg(not(miri))]
mod portable;
mod scalar;

use half::f16;
use std::sync::OnceLock;

/// One implementation of every kernel.
///
/// Both slices of a call have the same length; of unequal ones the common prefix counts. No
/// alignment is needed.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// What serves, for INFO and reports.
    pub name: &'static str,
    /// Dot product of two int8 codes with values in `[-127, 127]`; exact up to 133,152 dimensions,
    /// where an i32 could overflow. For a value of -128 the result is unspecified.
    pub dot_i8: fn(&[i8], &[i8]) -> i32,
    /// Dot product of two-bit values, four in a byte, with int8 ones: of `w` bytes the one at `j` has the factors of
    /// the int8 values `j`, `j + w`, `j + 2w` and `j + 3w`, from the low bits on. Values that are not there count as 0.
    pub dot_u2_i8: fn(&[u8], &[i8]) -> i32,
    /// Dot product of two f32 vectors, summed in f32.
    pub dot_f32: fn(&[f32], &[f32]) -> f32,
    /// Dot product of a stored f16 vector with an f32 query, summed in f32.
    pub dot_f16_f32: fn(&[f16], &[f32]) -> f32,
    /// Sum of the squares of a stored f16 vector, summed in f32.
    pub square_f16: fn(&[f16]) -> f32,
    /// Number of differing bits.
    pub hamming: fn(&[u64], &[u64]) -> u32,
}

/// The kernels that serve on this machine. Fetch once outside a loop over vectors.
///
/// Our AVX2 file goes before `simsimd` even where that one uses AVX-512, by these nanoseconds in
/// cache (`examples/kernels.rs`, a Xeon with AVX-512 VNNI, VPOPCNTDQ and FP16, simsimd 6.5.16):
///
/// | kernel | AVX2, 384 | simsimd, 384 | AVX2, 1536 | simsimd, 1536 |
/// |---|---|---|---|---|
/// | `dot_i8` | 10.9 | 15.8 | 34 | 59 |
/// | `dot_f32` | 21.0 | 23.2 | 105 | 110 |
/// | `dot_f16_f32` | 19 | 120 | 74 | 395 |
/// | `hamming` | 4.5 | 5.9 | 10.8 | 7.3 |
///
/// The int8 kernel there widens to 16 bits and waits on a single sum. Its Hamming distance wins on
/// long codes, by less than the cache miss beside it; not worth a second choice.
///
/// With AVX-512 VNNI our int8 kernel takes 62 instructions for 384 dimensions instead of 149. On a Zen 4
/// that is 9.8 ns instead of 10.4 in cache, 79 instead of 117 where each row comes from memory, and 5 % of
/// a walk over a graph of 10,000 rows.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let available = available();
        available[available.len() - 1]
    })
}

/// Every implementation this machine can run, the oracle first and the one that serves last; for
/// tests and measurements.
pub fn available() -> Vec<Kernels> {
    let mut found = vec![scalar::KERNELS];
    #[cfg(not(miri))]
    found.push(portable::KERNELS);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(own) = avx2::detect() {
        found.push(own);
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(own) = avx512::detect() {
        found.push(own);
    }
    found
}

/// Asks for every cache line of `values`, without waiting for them. A hint: on instruction sets
/// other than x86-64 it does nothing.
#[inline(always)]
pub fn prefetch_slice<T>(values: &[T]) {
    prefetch_at(values.as_ptr().cast(), size_of_val(values));
}

/// The same for memory of which only the address is known, and of which nothing has to be there.
#[inline(always)]
pub fn prefetch_at(start: *const i8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let lines = (start.addr() % LINE + bytes).div_ceil(LINE);
        let ask = |line: usize| {
            // SAFETY: a prefetch reads nothing the program can see and cannot fault, whatever the
            // address; `wrapping_add` keeps the arithmetic itself defined past the memory's end.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE)) };
        };
        // Six at a time: a code of 384 dimensions.
        let mut line = 0;
        while line + 6 <= lines {
            (line..line + 6).for_each(ask);
            line += 6;
        }
        (line..lines).for_each(ask);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (start, bytes);
}

/// Asks for the first cache line of a value, without waiting for it. A hint, as [`prefetch_slice`].
#[inline(always)]
pub fn prefetch_value<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing the program can see and cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}
