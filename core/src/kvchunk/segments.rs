//! Cuts a payload into segments that waste little of the allocator's size classes.
//!
//! Owns: arithmetic. KV chunks are powers of two, and the header of a server string pushes each into
//! the allocator's next size class: a payload of 1 MiB in one piece takes 1.25 MiB. Pieces 64 bytes
//! short of a size class take what they hold. Any thread.

use crate::allocation::allocated_bytes;

/// Longest piece: one size class of 1 MiB with the string's header inside.
pub const SEGMENT_MAX_BYTES: usize = (1 << 20) - SLACK_BYTES;

/// Room left in a size class for header and end of a server string, and for the two bytes that end an
/// argument on the wire.
const SLACK_BYTES: usize = 64;
/// What a server string needs besides its bytes, at most.
const FRAME_BYTES: usize = 17 + 1;
/// What one more piece costs: its string object, its place in the list, header and rounding of a short
/// string. Less waste than that is not worth a cut.
const PIECE_BYTES: usize = 128;

/// Whether a string of this length wastes so little that it is kept as it came: at most 1/64 of it and
/// what a further piece would cost.
pub fn fits_its_class(length: usize) -> bool {
    let taken = allocated_bytes(length + FRAME_BYTES);
    taken - length <= length / 64 + PIECE_BYTES
}

/// Lengths of the pieces a payload is cut into, in order; they add up to `length`.
pub fn segment_plan(length: usize) -> Vec<usize> {
    let mut left = length;
    let mut plan = Vec::with_capacity(length / SEGMENT_MAX_BYTES + 4);
    while left > 0 {
        let piece = if left >= SEGMENT_MAX_BYTES {
            SEGMENT_MAX_BYTES
        } else if fits_its_class(left) {
            left
        } else {
            class_at_most(left + SLACK_BYTES) - SLACK_BYTES
        };
        plan.push(piece);
        left -= piece;
    }
    plan
}

/// The largest size class of at most `bytes` (which are more than 128).
fn class_at_most(bytes: usize) -> usize {
    let step = 1 << (usize::BITS - 1 - bytes.leading_zeros() - 2);
    bytes - bytes % step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_and_waste_little() {
        for length in (0..20_000).chain((20_000..5 << 20).step_by(77_773)).chain([
            64 << 10,
            1 << 20,
            3 << 19,
            2 << 20,
            16 << 20,
            32 << 20,
        ]) {
            let plan = segment_plan(length);
            assert_eq!(plan.iter().sum::<usize>(), length);
            assert!(plan.iter().all(|&piece| 0 < piece && piece <= SEGMENT_MAX_BYTES));
            // A string object of 16 bytes besides, and 8 in the list.
            let taken = |piece: &usize| 24 + allocated_bytes(piece + FRAME_BYTES);
            let cut: usize = plan.iter().map(taken).sum();
            // Each halving of what is left may leave one more piece.
            assert!(cut <= taken(&length) + 2 * PIECE_BYTES, "{length}: {cut} in {plan:?}");
            if length >= 4 << 10 {
                assert!(cut as f64 <= length as f64 * 1.06, "{length}: {cut} in {plan:?}");
            }
            if length >= 1 << 20 {
                assert!(cut as f64 <= length as f64 * 1.02, "{length}: {cut} in {plan:?}");
            }
        }
        assert_eq!(segment_plan(4 << 10), [4_032, 64]);
        assert_eq!(segment_plan(1_000), [1_000]);
        assert!(!fits_its_class(1 << 20));
        assert!(fits_its_class(SEGMENT_MAX_BYTES));
    }
}
