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
pub(super) const ROWS: usize = 12;
/// Values of sixteen rows of sixteen.
pub(super) const SQUARE: usize = LANES * LANES;

/// Weights of sixteen outputs by four inputs, in one line of the cache.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; LANES * QUAD]);

/// What a weight lacks that was clipped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beyond {
    pub(super) weight: i32,
    pub(super) input: u16,
    /// Of a tile.
    pub(super) output: u16,
}

/// The weights of a tile: lines of the first sixteen outputs, lines of the others, one line for four inputs. What
/// follows `high`, as many lines of each half, is wanted next.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) low: &'a [Line],
    pub(super) high: &'a [Line],
    /// Whether they were clipped, see `Isa::CLIPS`.
    #[cfg_attr(
        any(not(target_arch = "x86_64"), miri),
        expect(dead_code, reason = "the kernels of this CPU multiply what is not clipped")
    )]
    pub(super) are_clipped: bool,
}

/// Sums of the outputs of a tile, for one row.
pub(super) type TileSums = [i32; TILE];

/// Rows whose inputs are turned together.
pub(super) const TURNED: usize = 16;

/// Sixteen f32.
///
/// # Safety
/// The methods of an implementation run on CPUs with its instructions only; each is called below the function of
/// its `Engine`, which is handed out where they are there.
pub(super) trait Lanes: Copy {
    /// Sixteen whole numbers of 32 bits.
    type Sums: Copy;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: &[f32; LANES]) -> Self;
    unsafe fn store(self, to: &mut [f32; LANES]);
    unsafe fn of_i8(from: &[i8; LANES]) -> Self;
    /// `sums - zero * totals`, exact in 32 bits, as f32.
    unsafe fn of_sums(sums: Self::Sums, zero: i32, totals: &[i32; LANES]) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The smaller; `other` where `self` is NaN. Which zero comes of two does not matter.
    unsafe fn min(self, other: Self) -> Self;
    /// The larger; `other` where `self` is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest whole number, halves to the even one.
    unsafe fn round(self) -> Self;
    /// `2^self` of whole numbers in -126..=127.
    unsafe fn exp2_whole(self) -> Self;

    /// The sum of all lanes: halves are added until one is left.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the condition of the caller.
        unsafe { join(self, |one, other| one + other) }
    }
    /// The largest of lanes that are not NaN.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the condition of the caller.
        unsafe { join(self, |one, other| if one > other { one } else { other }) }
    }
    /// The smallest of lanes that are not NaN.
    #[inline(always)]
    unsafe fn smallest(self) -> f32 {
        // SAFETY: the condition of the caller.
        unsafe { join(self, |one, other| if one < other { one } else { other }) }
    }
    /// Makes columns of rows.
    #[inline(always)]
    unsafe fn turn(square: &mut [f32; SQUARE]) {
        for row in 0..LANES {
            for column in 0..row {
                square.swap(row * LANES + column, column * LANES + row);
            }
        }
    }
}

/// Lanes into one value: halves are joined until one is left.
#[inline(always)]
unsafe fn join<F: Lanes>(lanes: F, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut values = [0.0; LANES];
    // SAFETY: the condition of the caller.
    unsafe { lanes.store(&mut values) };
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            values[lane] = join(values[lane], values[lane + width]);
        }
        width /= 2;
    }
    values[0]
}

/// An instruction set.
pub(super) trait Isa {
    /// Its lanes.
    type F: Lanes;
    /// Most rows of one tile, at most `ROWS`.
    const TILE_ROWS: usize;
    /// Most rows of f32 that attention computes together, at most `ROWS`, and over how many steps of lanes (1 or 2):
    /// what the registers hold.
    const FLOAT_TILE: (usize, usize);

    /// What `dots` takes activations less, so that they have a sign; the products with it are put back with their zero.
    const OFFSET: i32 = 0;

    /// Whether `dots` adds products of two weights in 16 bits. Then weights are clipped when they are loaded, so that
    /// these sums fit, and it begins with the sums of `beyond`, what they lack.
    const CLIPS: bool = false;

    /// Turns rows of inputs for `beyond`: of each `TURNED` rows one column after the other.
    ///
    /// # Safety
    /// As for [`Lanes`]; `width` is a multiple of `LANES`, and `to` has room for whole groups of `TURNED` rows.
    #[inline(always)]
    unsafe fn turn_inputs(_rows: &[u8], _width: usize, _to: &mut [u8]) {}

    /// Products of rows with what the weights of a tile lack. `columns` are the rows, turned.
    ///
    /// # Safety
    /// As for [`Lanes`]; `columns` has whole groups of `TURNED` rows, as many as `to`, and each input of `parts`.
    #[inline(always)]
    unsafe fn beyond(_parts: &[Beyond], _columns: &[u8], _width: usize, _to: &mut [TileSums]) {}

    /// Keeps values, rounded to whole numbers (halves to the even one), plus `zero`: sums that are not negative, of
    /// which 255 is the largest kept.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn keep(values: Self::F, zero: i32, to: &mut [u8; LANES]);

    /// Exact products of `R` rows of activations with the weights of 32 outputs, added to what `begin` has of each row,
    /// which only one that clips looks at. What follows the weights may have to come from memory, and is asked for where
    /// `ahead` says so of its half.
    ///
    /// # Safety
    /// As for [`Lanes`]. Both halves have the same number of lines, and each row four values for each of them at
    /// `rows[row * stride..]`.
    unsafe fn dots<const R: usize>(
        weights: Weights<'_>,
        rows: &[u8],
        stride: usize,
        begin: &[TileSums],
        ahead: [bool; 2],
    ) -> [[<Self::F as Lanes>::Sums; 2]; R];
}
