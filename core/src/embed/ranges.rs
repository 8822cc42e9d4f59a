//! Ranges of code points.
//!
//! Owns: looking one up in the tables that `tables` holds.

/// Whether a character is in one of some ranges, which are in order.
pub(super) fn is_in(ranges: &[(u32, u32)], c: char) -> bool {
    let point = u32::from(c);
    let at = ranges.partition_point(|&(_, last)| last < point);
    ranges.get(at).is_some_and(|&(first, _)| first <= point)
}
