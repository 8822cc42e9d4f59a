//! Every kernel implementation against the scalar oracle: all short lengths, the dimensions of real
//! models, unaligned starts, extreme values.

#[path = "common/xorshift.rs"]
mod xorshift;

use half::f16;
use llmcache_core::distance::{Kernels, available, kernels, prefetch_slice};
use xorshift::Xorshift;

/// Every length up to two blocks of the widest kernel and a tail, then the dimensions in use.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=130).chain([384, 768, 1024, 1536, 3072, 16_384])
}

/// Starts that are no multiple of a vector register's width.
const OFFSETS: [usize; 4] = [0, 1, 3, 17];

impl Xorshift {
    fn code(&mut self) -> i8 {
        (self.next() >> 32) as i8
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn oracle() -> Kernels {
    available()[0]
}

fn codes(random: &mut Xorshift, length: usize) -> Vec<i8> {
    (0..length).map(|_| random.code().max(-127)).collect()
}

#[test]
fn the_oracle_comes_first_and_the_last_one_serves() {
    let available = available();
    assert_eq!(available[0].name, "scalar");
    assert_eq!(available[available.len() - 1].name, kernels().name);
}

#[test]
fn dot_i8_equals_the_oracle_to_the_bit() {
    let mut random = Xorshift(1);
    for length in lengths() {
        for offset in OFFSETS {
            let (a, b) = (codes(&mut random, length + offset), codes(&mut random, length + 32));
            let (a, b) = (&a[offset..], &b[32 - offset..][..length]);
            let expected: i64 = a.iter().zip(b).map(|(&x, &y)| i64::from(x) * i64::from(y)).sum();
            for kernels in available() {
                assert_eq!(
                    i64::from((kernels.dot_i8)(a, b)),
                    expected,
                    "{} at {length} + {offset}",
                    kernels.name
                );
            }
        }
    }
}

#[test]
fn dot_u2_i8_equals_the_oracle_to_the_bit() {
    let mut random = Xorshift(9);
    for length in lengths() {
        // Values that fill the four parts of the bytes, and such as end in the last of them.
        for dim in (4 * length).saturating_sub(3)..=4 * length {
            let offset = OFFSETS[length % OFFSETS.len()];
            let bytes: Vec<u8> = (0..length + offset).map(|_| random.code() as u8).collect();
            let (a, b) = (&bytes[offset..], &codes(&mut random, dim));
            let expected: i64 = (0..dim)
                .map(|place| {
                    let factor = a[place % length] >> (2 * (place / length)) & 3;
                    i64::from(factor) * i64::from(b[place])
                })
                .sum();
            for kernels in available() {
                let dot = (kernels.dot_u2_i8)(a, b);
                assert_eq!(i64::from(dot), expected, "{} at {dim} in {length}", kernels.name);
            }
        }
        for extreme in [127, -127] {
            let (a, b) = (vec![255; length], vec![extreme; 4 * length]);
            for kernels in available() {
                let expected = 12 * i32::from(extreme) * length as i32;
                assert_eq!((kernels.dot_u2_i8)(&a, &b), expected, "{} at {length}", kernels.name);
            }
        }
    }
}

#[test]
fn dot_i8_does_not_saturate_at_extreme_codes() {
    for length in lengths() {
        for (x, y) in [(127, 127), (127, -127), (-127, 127), (-127, -127), (0, -127), (-127, 0)] {
            let (a, b) = (vec![x; length], vec![y; length]);
            for kernels in available() {
                let expected = i32::from(x) * i32::from(y) * length as i32;
                assert_eq!((kernels.dot_i8)(&a, &b), expected, "{} at {length}", kernels.name);
            }
        }
    }
}

/// Relative to the sum of magnitudes, which is what rounding errors of a sum scale with.
fn assert_near(got: f32, pairs: impl Iterator<Item = (f64, f64)>, what: &str) {
    let (mut expected, mut magnitude) = (0.0, 0.0);
    for (x, y) in pairs {
        expected += x * y;
        magnitude += (x * y).abs();
    }
    let error = (f64::from(got) - expected).abs();
    assert!(error <= magnitude * 2e-5, "{what}: {got} instead of {expected}");
}

#[test]
fn dot_f32_is_near_the_f64_sum() {
    let mut random = Xorshift(2);
    for length in lengths() {
        for offset in OFFSETS {
            let a: Vec<f32> = (0..length + offset).map(|_| random.unit()).collect();
            let b: Vec<f32> = (0..length).map(|_| random.unit()).collect();
            let a = &a[offset..];
            for kernels in available() {
                let pairs = a.iter().zip(&b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
                let what = format!("{} at {length} + {offset}", kernels.name);
                assert_near((kernels.dot_f32)(a, &b), pairs, &what);
            }
        }
    }
}

#[test]
fn f16_sums_are_near_the_f64_sums() {
    let mut random = Xorshift(3);
    for length in lengths() {
        for offset in OFFSETS {
            let a: Vec<f16> = (0..length + offset).map(|_| f16::from_f32(random.unit())).collect();
            let b: Vec<f32> = (0..length).map(|_| random.unit()).collect();
            let a = &a[offset..];
            for kernels in available() {
                let pairs = a.iter().zip(&b).map(|(&x, &y)| (x.to_f64(), f64::from(y)));
                let what = format!("{} at {length} + {offset}", kernels.name);
                assert_near((kernels.dot_f16_f32)(a, &b), pairs, &what);
                let squares = a.iter().map(|x| (x.to_f64(), x.to_f64()));
                assert_near((kernels.square_f16)(a), squares, &what);
            }
        }
    }
}

#[test]
fn hamming_equals_the_oracle() {
    let mut random = Xorshift(4);
    for length in lengths() {
        let a: Vec<u64> = (0..length + 1).map(|_| random.next()).collect();
        let b: Vec<u64> = (0..length).map(|_| random.next()).collect();
        for a in [&a[..length], &a[1..]] {
            let expected = (oracle().hamming)(a, &b);
            for kernels in available() {
                assert_eq!((kernels.hamming)(a, &b), expected, "{} at {length}", kernels.name);
            }
        }
        let inverted: Vec<u64> = b.iter().map(|word| !word).collect();
        assert_eq!((kernels().hamming)(&b, &inverted) as usize, 64 * length);
        assert_eq!((kernels().hamming)(&b, &b), 0);
    }
}

#[test]
fn unequal_lengths_count_the_common_prefix() {
    let mut random = Xorshift(5);
    let (a, b) = (codes(&mut random, 100), codes(&mut random, 61));
    let floats: Vec<f32> = (0..700).map(|_| random.unit()).collect();
    let halves: Vec<f16> = floats.iter().map(|&x| f16::from_f32(x)).collect();
    for kernels in available() {
        assert_eq!((kernels.dot_i8)(&a, &b), (oracle().dot_i8)(&a[..61], &b), "{}", kernels.name);
        assert_eq!((kernels.dot_i8)(&b, &a), (oracle().dot_i8)(&a[..61], &b), "{}", kernels.name);
        assert_eq!((kernels.hamming)(&[!0, !0, !0], &[0]), 64, "{}", kernels.name);
        for (short, long) in [(33, 700), (300, 513), (0, 5)] {
            let whole = (kernels.dot_f32)(&floats[..short], &floats[..long]);
            assert_near(
                whole,
                floats[..short].iter().map(|&x| (f64::from(x), f64::from(x))),
                kernels.name,
            );
            let pairs =
                || halves[..short].iter().zip(&floats).map(|(x, &y)| (x.to_f64(), f64::from(y)));
            assert_near(
                (kernels.dot_f16_f32)(&halves[..short], &floats[..long]),
                pairs(),
                kernels.name,
            );
            assert_near(
                (kernels.dot_f16_f32)(&halves[..long], &floats[..short]),
                pairs(),
                kernels.name,
            );
        }
    }
}

#[test]
fn non_finite_elements_reach_the_result() {
    for place in [0, 31, 37, 38] {
        let mut a = vec![1.0_f32; 39];
        a[place] = f32::NAN;
        let halves: Vec<f16> = a.iter().map(|&x| f16::from_f32(x)).collect();
        for kernels in available() {
            assert!((kernels.dot_f32)(&a, &a).is_nan(), "{} at {place}", kernels.name);
            assert!((kernels.dot_f16_f32)(&halves, &a).is_nan(), "{} at {place}", kernels.name);
            assert!((kernels.square_f16)(&halves).is_nan(), "{} at {place}", kernels.name);
        }
    }
}

#[test]
fn prefetch_takes_any_slice() {
    let bytes = vec![0_i8; 1000];
    for (start, end) in [(0, 0), (0, 1), (63, 65), (1, 1000), (1000, 1000)] {
        prefetch_slice(&bytes[start..end]);
    }
}
