//! Vectors from client bytes to stored form and back: tables of bad input, golden bytes, bounds on
//! what quantisation loses, and the arena against a map.

#[path = "common/xorshift.rs"]
mod xorshift;

use half::f16;
use llmcache_core::limits::DIM_MAX;
use llmcache_core::vector::arena::{BLOCK_ROWS, CodeArena};
use llmcache_core::vector::normalise::{decode_fp16, decode_fp32, normalise, normalise_in_place};
use llmcache_core::vector::quantise::{approx_similarity, error_bound, quantise, quantise_into};
use llmcache_core::vector::{Quant, Query, StoredVector, VectorError};
use std::collections::HashMap;
use xorshift::Xorshift;

const QUANTS: [Quant; 3] = [Quant::None, Quant::F16, Quant::Q8];

impl Xorshift {
    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 32) as usize % bound
    }

    /// A sum of uniform numbers, near enough to a normal one for embeddings.
    fn vector(&mut self, dim: usize) -> Vec<f32> {
        let mut uniform = || (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..dim).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
    }

    fn unit(&mut self, dim: usize) -> Vec<f32> {
        normalise(&self.vector(dim)).unwrap()
    }
}

fn le(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn encoded(quant: Quant, normalised: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    quant.encode(normalised, &mut bytes);
    bytes
}

fn parsed(quant: Quant, dim: usize, bytes: &[u8]) -> Result<StoredVector<'_>, VectorError> {
    StoredVector::parse(quant, dim as u32, bytes)
}

#[test]
fn decode_reads_little_endian_and_refuses_the_rest() {
    assert_eq!(decode_fp32(&[0, 0, 128, 63, 0, 0, 0, 192]), Ok(vec![1.0, -2.0]));
    assert_eq!(decode_fp16(&[0, 60, 0, 192]), Ok(vec![1.0, -2.0]));
    assert_eq!(decode_fp32(&[]), Err(VectorError::Empty));
    assert_eq!(decode_fp16(&[]), Err(VectorError::Empty));
    assert_eq!(decode_fp32(&[0; 7]), Err(VectorError::RaggedLength { bytes: 7, width: 4 }));
    assert_eq!(decode_fp16(&[0; 3]), Err(VectorError::RaggedLength { bytes: 3, width: 2 }));
    let most = DIM_MAX as usize;
    assert!(decode_fp32(&vec![0; most * 4]).is_ok());
    let dim = most + 1;
    assert_eq!(decode_fp32(&vec![0; dim * 4]), Err(VectorError::TooManyDimensions { dim }));
    assert_eq!(decode_fp16(&vec![0; dim * 2]), Err(VectorError::TooManyDimensions { dim }));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(decode_fp32(&le(&[1.0, bad, bad])), Err(VectorError::NotFinite { index: 1 }));
        let half = f16::from_f32(bad).to_le_bytes();
        assert_eq!(decode_fp16(&half), Err(VectorError::NotFinite { index: 0 }));
    }
}

#[test]
fn errors_name_the_numbers() {
    for (error, text) in [
        (VectorError::Empty, "vector is empty"),
        (
            VectorError::RaggedLength { bytes: 7, width: 4 },
            "vector of 7 bytes is not a multiple of 4 bytes",
        ),
        (VectorError::NotFinite { index: 3 }, "vector element 3 is not a finite number"),
        (
            VectorError::TooManyDimensions { dim: 16_385 },
            "vector has 16385 dimensions, at most 16384 are accepted",
        ),
        (VectorError::ZeroNorm, "vector has zero norm"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn normalise_takes_every_finite_size() {
    let denormal = f32::from_bits(1);
    for (given, expected) in [
        (vec![3.0, 4.0], vec![0.6, 0.8]),
        (vec![1e38; 4], vec![0.5; 4]),
        (vec![f32::MAX, -f32::MAX, f32::MAX, f32::MAX], vec![0.5, -0.5, 0.5, 0.5]),
        (vec![denormal; 4], vec![0.5; 4]),
        (vec![-5.0], vec![-1.0]),
        (vec![1e38, 0.0, 1e-38], vec![1.0, 0.0, 0.0]),
    ] {
        assert_eq!(normalise(&given), Ok(expected), "{given:?}");
    }
    let largest = normalise(&vec![f32::MAX; DIM_MAX as usize]).unwrap();
    assert!(largest.iter().all(|&x| x == 1.0 / 128.0));
}

#[test]
fn normalise_refuses_what_has_no_direction() {
    for (given, error) in [
        (vec![], VectorError::Empty),
        (vec![0.0, -0.0], VectorError::ZeroNorm),
        (vec![0.0, f32::NAN], VectorError::NotFinite { index: 1 }),
        (vec![f32::INFINITY], VectorError::NotFinite { index: 0 }),
        (vec![1.0; 16_385], VectorError::TooManyDimensions { dim: 16_385 }),
    ] {
        assert_eq!(normalise(&given), Err(error));
    }
    let mut untouched = [1.0, f32::NEG_INFINITY];
    assert!(normalise_in_place(&mut untouched).is_err());
    assert_eq!(untouched, [1.0, f32::NEG_INFINITY]);
}

#[test]
fn normalise_gives_golden_bits() {
    let unit = normalise(&[0.1, -0.2, 0.3, 0.7, 1e-3]).unwrap();
    let bits: Vec<u32> = unit.iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, NORMALISED_BITS, "{bits:#x?}");
}

const NORMALISED_BITS: [u32; 5] = [0x3E01_0304, 0xBE81_0304, 0x3EC1_8486, 0x3F61_C546, 0x3AA5_2294];

#[test]
fn quantise_gives_golden_codes() {
    let given = [1.0, -1.0, 0.5, -0.5, 0.25, 0.003_937, 0.003_936, -0.011_811, 0.0, 1e-30];
    let code = quantise(&given);
    assert_eq!(code.scale.to_bits(), 0x3C01_0204);
    assert_eq!(code.codes, [127, -127, 64, -64, 32, 0, 0, -1, 0, 0]);
    // Steps of exactly one: halves round away from zero, and what f32 puts next to a half does not.
    let below_half = f32::from_bits(0.5_f32.to_bits() - 1);
    let given = [127.0, 0.5, -0.5, 1.5, -2.5, below_half, -below_half, 126.5];
    let code = quantise(&given);
    assert_eq!((code.scale, code.codes.as_slice()), (1.0, &[127, 1, -1, 2, -3, 0, 0, 127][..]));
}

#[test]
fn quantise_takes_zero_and_denormal_vectors() {
    let mut codes = [9; 3];
    assert_eq!(quantise_into(&[0.0, -0.0, 0.0], &mut codes), 0.0);
    assert_eq!(codes, [0; 3]);
    let denormal = f32::from_bits(1);
    assert_eq!(quantise(&[denormal, 0.0]).codes, [0, 0]);
    assert_eq!(quantise(&[f32::from_bits(100), -f32::from_bits(100)]).codes, [100, -100]);
}

#[test]
fn quantise_always_reaches_127() {
    let mut random = Xorshift(11);
    for _ in 0..2_000 {
        let unit = random.unit(1 + (random.0 % 40) as usize);
        let code = quantise(&unit);
        assert_eq!(code.codes.iter().map(|c| c.unsigned_abs()).max(), Some(127));
    }
}

/// What `quantise_into` promises: the exact quotient, halves away from zero.
fn code_of(x: f32, scale: f32) -> i8 {
    let quotient = f64::from(x) / f64::from(scale);
    (quotient + 0.5_f64.copysign(quotient)).clamp(-127.0, 127.0) as i8
}

#[test]
fn codes_are_the_exact_quotients_rounded() {
    let mut random = Xorshift(0x5eed_0017);
    let mut seen = 0_u32;
    for round in 0..20_000_u32 {
        // The largest number gives the scale. Beside it: halves of steps, and the numbers next to them.
        let exponent = random.below(250) as u32 + 1;
        let largest = f32::from_bits(exponent << 23 | (random.next() >> 41) as u32);
        let scale = largest / 127.0;
        let mut vector = vec![largest];
        for _ in 0..16 {
            let half = (random.below(254) as f32 - 127.0 + 0.5) * scale;
            let near = random.below(5) as i32 - 2;
            let x = f32::from_bits(half.to_bits().wrapping_add_signed(near));
            vector.extend((x.abs() <= largest).then_some(x));
        }
        let mut codes = vec![0; vector.len()];
        assert_eq!(quantise_into(&vector, &mut codes), scale);
        for (&x, &code) in vector.iter().zip(&codes) {
            assert_eq!(code, code_of(x, scale), "{x:e} by {scale:e} in round {round}");
            let quotient = f64::from(x) / f64::from(scale);
            seen += u32::from(quotient.fract().abs() == 0.5);
        }
    }
    assert!(seen > 1_000, "only {seen} quotients were halves");
}

#[test]
fn the_error_bound_holds_for_999_of_1000_pairs() {
    let mut random = Xorshift(12);
    for dim in [32, 384, 1536] {
        let pairs = 20_000;
        let mut outside = 0;
        let mut squares = 0.0;
        let kernel = llmcache_core::distance::kernels().dot_i8;
        for pair in 0..pairs {
            let a = random.unit(dim);
            let mut b = random.unit(dim);
            if pair % 2 == 0 {
                // Near pairs too: those are what a threshold decides on.
                b.iter_mut().zip(&a).for_each(|(y, x)| *y = *y * 0.3 + x);
                normalise_in_place(&mut b).unwrap();
            }
            let exact: f64 = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            let (x, y) = (quantise(&a), quantise(&b));
            let approx = approx_similarity(kernel(&x.codes, &y.codes), x.scale, y.scale);
            let error = (f64::from(approx) - exact).abs();
            let bound = f64::from(error_bound(x.scale, y.scale));
            outside += usize::from(error > bound);
            squares += (4.0 * error / bound).powi(2);
        }
        assert!(outside * 1_000 < pairs, "{outside} of {pairs} at {dim}");
        let sigma = (squares / pairs as f64).sqrt();
        assert!(
            (0.9..1.1).contains(&sigma),
            "the measured sigma is {sigma} of the derived at {dim}"
        );
    }
}

#[test]
fn quant_words_and_bytes() {
    for (quant, byte, word) in
        [(Quant::None, 0, "NONE"), (Quant::F16, 1, "F16"), (Quant::Q8, 2, "Q8")]
    {
        assert_eq!((quant.as_byte(), quant.as_str()), (byte, word));
        assert_eq!(Quant::from_byte(byte), Some(quant));
        assert_eq!(Quant::parse(word.as_bytes()), Some(quant));
        assert_eq!(Quant::parse(word.to_lowercase().as_bytes()), Some(quant));
    }
    assert_eq!(Quant::from_byte(3), None);
    assert_eq!(Quant::parse(b"F32"), None);
    assert_eq!(Quant::parse(b""), None);
}

#[test]
fn stored_bytes_are_golden() {
    let unit = [0.6, -0.8];
    assert_eq!(encoded(Quant::None, &unit), [154, 153, 25, 63, 205, 204, 76, 191]);
    assert_eq!(encoded(Quant::F16, &unit), [0xCD, 0x38, 0x66, 0xBA]);
    let scale = (0.8_f32 / 127.0).to_le_bytes();
    assert_eq!(encoded(Quant::Q8, &unit), [&scale[..], &[95, 129]].concat());
}

#[test]
fn stored_forms_come_back() {
    let mut random = Xorshift(13);
    for dim in [1, 2, 3, 31, 255, 256, 257, 384, 1536, 16_384] {
        let unit = random.unit(dim);
        for quant in QUANTS {
            let mut bytes = vec![0xEE];
            quant.encode(&unit, &mut bytes);
            assert_eq!(bytes.len() - 1, quant.encoded_len(dim));
            let stored = parsed(quant, dim, &bytes[1..]).unwrap();
            assert_eq!(stored.dim(), dim);
            let numbers = stored.to_f32();
            let step = quantise(&unit).scale;
            for (got, want) in numbers.iter().zip(&unit) {
                let tolerance = match quant {
                    Quant::None => 0.0,
                    Quant::F16 => want.abs() / 2048.0 + 3e-8,
                    Quant::Q8 => step * 0.501,
                };
                assert!((got - want).abs() <= tolerance, "{quant:?}: {got} for {want}");
            }
            let (code, _) = stored.code_and_plane();
            match quant {
                Quant::Q8 => {
                    assert_eq!(code.scale.to_le_bytes(), bytes[1..5]);
                    assert_eq!(bytemuck::cast_slice::<i8, u8>(&code.codes), &bytes[5..]);
                    assert_eq!(code, quantise(&unit));
                }
                _ => assert_eq!(code, quantise(&numbers)),
            }
        }
    }
}

#[test]
fn software_f16_rounds_as_hardware_does() {
    let mut random = Xorshift(14);
    for _ in 0..200_000 {
        let x = f32::from_bits(random.next() as u32);
        if x.is_finite() {
            assert_eq!(f16::from_f32_const(x).to_bits(), f16::from_f32(x).to_bits(), "{x:e}");
        }
    }
}

#[test]
fn hostile_stored_bytes_are_refused() {
    let unit = Xorshift(15).unit(40);
    for quant in QUANTS {
        let good = encoded(quant, &unit);
        let (expected, got) = (good.len(), good.len() - 1);
        assert_eq!(
            parsed(quant, 40, &good[1..]).unwrap_err(),
            VectorError::StoredLength { expected, got }
        );
        assert!(parsed(quant, 41, &good).is_err());
        assert!(parsed(quant, 0, &[]).is_err());
        assert!(parsed(quant, 40, &[]).is_err());
        assert!(parsed(quant, 40, &vec![0; good.len()]).is_err());
        assert!(parsed(quant, 40, &vec![0xFF; good.len()]).is_err());
        assert!(StoredVector::parse(quant, u32::MAX, &good).is_err());
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.9] {
        for place in [0, 33, 39] {
            let mut numbers = unit.clone();
            numbers[place] = bad;
            let singles = le(&numbers);
            assert_eq!(parsed(Quant::None, 40, &singles).unwrap_err(), VectorError::StoredNorm);
            let halves: Vec<u8> =
                numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
            assert_eq!(parsed(Quant::F16, 40, &halves).unwrap_err(), VectorError::StoredNorm);
        }
    }
    let good = encoded(Quant::Q8, &unit);
    for bad in [f32::NAN, f32::INFINITY, 0.0, -0.0, -1.0] {
        let bytes = [&bad.to_le_bytes(), &good[4..]].concat();
        assert_eq!(parsed(Quant::Q8, 40, &bytes).unwrap_err(), VectorError::StoredScale);
    }
    for bad in [f32::MAX, f32::from_bits(1), quantise(&unit).scale * 1.5] {
        let bytes = [&bad.to_le_bytes(), &good[4..]].concat();
        assert_eq!(parsed(Quant::Q8, 40, &bytes).unwrap_err(), VectorError::StoredNorm);
    }
    let mut minimum = good.clone();
    minimum[20] = 0x80;
    assert_eq!(parsed(Quant::Q8, 40, &minimum).unwrap_err(), VectorError::StoredCodes);
}

#[test]
fn the_coarsest_codes_are_within_the_tolerance() {
    // One large element and many that each round up by half a step: the longest error there is.
    let mut vector = vec![0.5001_f32; 16_384];
    vector[0] = 127.0;
    let unit = normalise(&vector).unwrap();
    let bytes = encoded(Quant::Q8, &unit);
    let stored = parsed(Quant::Q8, unit.len(), &bytes).unwrap();
    assert_eq!(stored.similarity(&Query::new(&vector).unwrap()), 1.0);
}

#[test]
fn identical_vectors_score_exactly_one() {
    let mut random = Xorshift(16);
    for dim in [1, 2, 5, 300, 384, 1536] {
        for _ in 0..50 {
            let raw = random.vector(dim);
            let query = Query::new(&raw).unwrap();
            for quant in QUANTS {
                let bytes = encoded(quant, &normalise(&raw).unwrap());
                let stored = parsed(quant, dim, &bytes).unwrap();
                assert_eq!(stored.similarity(&query), 1.0, "{quant:?} at {dim}");
                let opposite: Vec<f32> = raw.iter().map(|x| -x).collect();
                let score = stored.similarity(&Query::new(&opposite).unwrap());
                assert!((-1.0..-0.999).contains(&score), "{quant:?} at {dim}: {score}");
            }
        }
    }
}

#[test]
fn similarity_is_the_cosine_to_six_decimals() {
    let mut random = Xorshift(17);
    for dim in [2, 100, 384, 1536] {
        for _ in 0..200 {
            let (a, b) = (random.unit(dim), random.unit(dim));
            let query = Query::from_normalised(b.clone());
            for quant in QUANTS {
                let bytes = encoded(quant, &a);
                let stored = parsed(quant, dim, &bytes).unwrap();
                let kept: Vec<f64> = stored.to_f32().into_iter().map(f64::from).collect();
                let dot: f64 = kept.iter().zip(&b).map(|(x, &y)| x * f64::from(y)).sum();
                let norm = kept.iter().map(|x| x * x).sum::<f64>().sqrt();
                let score = stored.similarity(&query);
                assert!(
                    (score - dot / norm).abs() < 1.6e-6,
                    "{quant:?}: {score} for {}",
                    dot / norm
                );
                assert!((score * 1e6 - (score * 1e6).round()).abs() < 1e-6);
            }
        }
    }
    let bytes = encoded(Quant::F16, &random.unit(8));
    let other = Query::from_normalised(random.unit(9));
    assert_eq!(parsed(Quant::F16, 8, &bytes).unwrap().similarity(&other), -1.0);
}

#[test]
fn the_arena_agrees_with_a_map() {
    let mut random = Xorshift(18);
    for dim in [1, 3, 64, 100] {
        let mut arena = CodeArena::new(dim);
        let mut model: HashMap<u32, (Vec<i8>, f32)> = HashMap::new();
        for step in 0..6_000 {
            let row = random.below(if step < 500 { 40 } else { 1_500 }) as u32;
            if random.below(300) == 0 {
                let block = row as usize / BLOCK_ROWS;
                arena.free_block(block);
                model.retain(|&row, _| row as usize / BLOCK_ROWS != block);
                assert!(!arena.has_block(row));
            } else {
                let code: Vec<i8> = (0..dim).map(|_| random.next() as i8).collect();
                arena.set(row, &code, step as f32);
                model.insert(row, (code, step as f32));
                arena.prefetch(row);
            }
            if step % 100 == 0 {
                check(&arena, &model);
            }
        }
        check(&arena, &model);
    }
}

fn check(arena: &CodeArena, model: &HashMap<u32, (Vec<i8>, f32)>) {
    for (&row, (code, scale)) in model {
        assert!(arena.has_block(row));
        assert_eq!((arena.code(row), arena.scale(row)), (Some(code.as_slice()), Some(*scale)));
        assert_eq!(arena.row(row), (code.as_slice(), *scale));
    }
}

#[test]
fn the_arena_allocates_by_need_and_gives_back() {
    let mut arena = CodeArena::new(384);
    let (code, row_bytes) = ([7_i8; 384], 384 + 4);
    let empty = arena.bytes();
    assert!(empty <= 64, "{empty} bytes for nothing");
    let mut directory = 0;
    for (row, rows) in [(0, 8), (4, 8), (7, 8), (8, 16), (16, 32), (100, 128), (255, 256)] {
        arena.set(row, &code, 1.0);
        directory = arena.bytes() - rows * row_bytes;
        // A block has four parts: codes and planes, each with scales.
        assert!(directory <= 5 * 32, "{directory} bytes of directory at row {row}");
    }
    arena.set(BLOCK_ROWS as u32 * 3 + 9, &code, 1.0);
    let held = arena.bytes() - (BLOCK_ROWS + 16) * row_bytes;
    assert!(held <= directory + 80, "the last block grows as the first does: {held}");
    assert!(!arena.has_block(300) && !arena.has_block(700) && !arena.has_block(u32::MAX));
    assert_eq!((arena.code(300), arena.scale(300), arena.code(u32::MAX)), (None, None, None));
    assert_eq!(arena.row(300), (&[][..], 0.0));
    assert_eq!(arena.code(200), Some(&[0; 384][..]), "in a block in use, not written");
    assert!(arena.free_block(0) && arena.free_block(3) && arena.free_block(99));
    assert!(arena.bytes() <= empty + 32);
    arena.set(1, &code, 2.0);
    assert!(arena.bytes() - 8 * row_bytes <= directory);
    arena.prefetch(u32::MAX);
}

#[test]
fn a_clone_of_the_arena_stays_as_it_was() {
    let mut arena = CodeArena::new(2);
    arena.set(0, &[1, 2], 0.5);
    arena.set(300, &[3, 4], 0.25);
    let clone = arena.clone();
    assert!(!arena.free_block(1), "to free a block, the directory would have to be copied");
    arena.set(0, &[9, 9], 1.0);
    arena.set(20, &[8, 8], 1.0);
    arena.set(600, &[7, 7], 1.0);
    assert!(arena.free_block(1), "the clone has a directory of its own now");
    assert_eq!((clone.row(0), clone.row(300)), ((&[1, 2][..], 0.5), (&[3, 4][..], 0.25)));
    assert_eq!((clone.code(20), clone.code(600)), (None, None));
    assert_eq!((arena.row(0).0, arena.row(20).0), (&[9, 9][..], &[8, 8][..]));
    assert!(!arena.has_block(300));
}
