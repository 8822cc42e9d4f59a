//! The arithmetic of the encoder: one algorithm, a few ways to run it, equal bits from all of them.
//!
//! Owns: sixteen lanes of f32 and the integer products, one file for each instruction set. Must not know: what a layer
//! is. Any thread; `super::engine` chooses between them.
//!
//! **The arithmetic is part of the format**: a vector is stored, replicated and compared with vectors that other
//! CPUs made. So each operation of [`Lanes`] is one that IEEE 754 rounds in one way, [`Lanes::mul_add`] is fused
//! everywhere, sums run in an order that is written down in `super::glue`, and integer products are exact. Whoever
//! changes an order or a constant raises `super::ENGINE`.

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) mod avx2;
#[cfg(all(target_arch = "aarch64", not(miri)))]
pub(super) mod neon;
pub(super) mod scalar;
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) mod vnni;

/// Lanes of one step.
pub(super) const LANES: usize = 16;
/// Outputs that are computed together: two steps.
pub(super) const TILE: usize = 2 * LANES;
/// Inputs that are multiplied at once.
pub(super) const QUAD: usize = 4;
/// Most rows that are computed together.
pub(super) const ROWS: usize = 8;

/// Weights of sixteen outputs by four inputs, in one line of the cache.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; LANES * QUAD]);

/// Sixteen f32.
///
/// # Safety
/// The methods of an implementation run on CPUs with its instructions only; each is called below the function of
/// its `Engine`, which is handed out where they are there.
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: &[f32; LANES]) -> Self;
    unsafe fn store(self, to: &mut [f32; LANES]);
    unsafe fn of_i8(from: &[i8; LANES]) -> Self;
    /// `sums - zero * totals`, exact in 32 bits, as f32.
    unsafe fn of_sums(sums: &[i32; LANES], zero: i32, totals: &[i32; LANES]) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// Of numbers that are not NaN; which zero comes of two does not matter.
    unsafe fn min(self, other: Self) -> Self;
    /// Of numbers that are not NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest whole number, halves to the even one.
    unsafe fn round(self) -> Self;
    /// `2^self` of whole numbers in -126..=127.
    unsafe fn exp2_whole(self) -> Self;
    /// Whole numbers in 0..=255.
    unsafe fn store_u8(self, to: &mut [u8; LANES]);
}

/// An instruction set.
pub(super) trait Isa {
    /// Its lanes.
    type F: Lanes;
    /// Whether it multiplies activations in 16 bits, which are then laid beside those in 8.
    const WIDE: bool;
    /// Most rows of one tile, at most `ROWS`.
    const TILE_ROWS: usize;
    /// Most rows of f32 that attention computes together, at most `ROWS`, and over how many steps of lanes (1 or 2):
    /// what the registers hold.
    const FLOAT_TILE: (usize, usize);

    /// What `dots` takes activations less, so that they have a sign; the products with it are put back with their zero.
    const OFFSET: i32 = 0;

    /// Exact products of `R` rows of activations with the weights of 32 outputs: `low` has the lines of the first
    /// sixteen, `high` those of the others, one line for four inputs.
    ///
    /// # Safety
    /// As for [`Lanes`]. Both have the same number of lines, and each row four values for each of them at
    /// `bytes[row * stride..]`, and at `wide[row * stride..]` where `WIDE`.
    unsafe fn dots<const R: usize>(
        low: &[Line],
        high: &[Line],
        rows: &Activations<'_>,
        sums: &mut [[i32; TILE]; ROWS],
    );
}

/// Rows of quantised activations, the first at place 0.
pub(super) struct Activations<'a> {
    pub(super) bytes: &'a [u8],
    #[cfg_attr(
        not(all(target_arch = "x86_64", not(miri))),
        expect(dead_code, reason = "no instruction set here multiplies activations in 16 bits")
    )]
    pub(super) wide: &'a [i16],
    pub(super) stride: usize,
}
