//! The real size of an allocation (the allocator's size class), so that limits and `MEMORY USAGE` agree with
//! `used_memory`.
//!
//! Owns: the size classes of jemalloc, which Redis and Valkey use on Linux: multiples of 16 up to
//! 128, then four to every doubling (jemalloc(3), "size classes"). Any thread.

/// Bytes the allocator takes for a request.
pub const fn allocated_bytes(requested: usize) -> usize {
    if requested == 0 {
        return 0;
    }
    if requested <= 8 {
        return 8;
    }
    if requested <= 128 {
        return requested.next_multiple_of(16);
    }
    // Between two powers of two the classes lie a quarter of the lower one apart.
    let step = 1 << (usize::BITS - 1 - (requested - 1).leading_zeros() - 2);
    requested.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_of_the_manual() {
        for (requested, taken) in [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (24, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (257, 320),
            (1_024, 1_024),
            (1_025, 1_280),
            (16_384, 16_384),
            (18_432, 20_480),
            (98_304, 98_304),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + (1 << 18)),
        ] {
            assert_eq!(allocated_bytes(requested), taken, "{requested}");
        }
    }
}
