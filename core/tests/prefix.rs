//! The first dimensions of vectors: their codes, and what they say of the whole.

use llmcache_core::vector::quantise::unit_scale;
use llmcache_core::vector::{Quant, Query, StoredVector};

/// Numbers in [-1, 1), the same each time.
fn draws(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[test]
fn what_a_prefix_may_be_worth_is_never_less_than_the_whole() {
    for seed in 0..2_000 {
        let mut draw = draws(seed + 1);
        let (dim, dims) = (96, 32);
        // Of some the prefix carries most, of some little; the second is near the first, far from it, or opposite.
        let weight = [1.0_f32, 4.0, 0.2][seed as usize % 3];
        let near = [0.1_f32, 1.0, -0.5][seed as usize / 3 % 3];
        let mut a: Vec<f32> = (0..dim).map(|_| draw()).collect();
        a[..dims].iter_mut().for_each(|x| *x *= weight);
        let b: Vec<f32> = a.iter().map(|x| x * near.signum() + near.abs() * draw()).collect();
        let (a, b) = (Query::new(&a).unwrap(), Query::new(&b).unwrap());
        let mut bytes = Vec::new();
        Quant::None.encode(b.normalised(), &mut bytes);
        let stored = StoredVector::parse(Quant::None, dim as u32, &bytes).unwrap();
        let whole = stored.similarity(&a);
        let prefix = a.prefix(dims).unwrap();
        let row = stored.prefix_code(dims).unwrap();
        let scale = unit_scale(&row.codes);
        assert!(prefix.may_reach(&row.codes, scale, whole), "{seed}: {whole}");
        let exactly: f64 = {
            let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x * x)).sum::<f64>().sqrt();
            let (a, b) = (&a.normalised()[..dims], &b.normalised()[..dims]);
            let dot: f64 = a.iter().zip(b).map(|(&x, &y)| f64::from(x * y)).sum();
            dot / (norm(a) * norm(b))
        };
        assert!(prefix.most_similar(exactly) >= whole - 2e-6, "{seed}: {whole}");
    }
}

#[test]
fn a_far_prefix_rules_a_near_whole_out() {
    let mut vector = vec![0.0_f32; 64];
    (vector[0], vector[40]) = (0.9, 0.3);
    let prefix = Query::new(&vector).unwrap().prefix(32).unwrap();
    let share = f64::from(0.81_f32 / 0.90);
    assert!((prefix.most_similar(0.0) - (1.0 - share).sqrt()).abs() < 1e-6);
    assert_eq!(prefix.most_similar(-1.0), prefix.most_similar(0.0));
    assert!((prefix.most_similar(1.0) - 1.0).abs() < 1e-9);
    assert!(prefix.most_similar(0.5) > 0.5 && prefix.most_similar(0.5) < 0.6);
    let mut other = [0_i8; 32];
    other[1] = 127;
    assert!(!prefix.may_reach(&other, 1.0 / 127.0, 0.5));
    assert!(!prefix.may_reach(&other[..31], 1.0 / 127.0, 0.0), "of another dimension");
}

#[test]
fn a_prefix_that_carries_nothing_is_none_in_any_form() {
    let of = |small: f32| {
        let mut vector = vec![1.0_f32; 64];
        vector[..32].fill(0.0);
        vector[3] = small;
        Query::new(&vector).unwrap()
    };
    for (small, expected) in [(0.0, false), (0.003, false), (0.004, true), (-0.5, true)] {
        let query = of(small);
        assert_eq!(query.has_prefix(32), expected, "{small}");
        assert_eq!(query.prefix(32).is_some(), expected, "{small}");
        assert!(query.prefix(65).is_none());
        for quant in [Quant::None, Quant::F16, Quant::Q8] {
            let mut bytes = Vec::new();
            quant.encode(query.normalised(), &mut bytes);
            let stored = StoredVector::parse(quant, 64, &bytes).unwrap();
            let code = stored.prefix_code(32);
            assert!(!expected || code.is_some(), "{small} {quant:?}");
            assert!(code.is_none_or(|code| code.codes.len() == 32 && code.scale > 0.0));
            assert!(stored.prefix_code(65).is_none());
        }
    }
}

#[test]
fn every_form_has_nearly_the_code_of_the_prefix() {
    let mut draw = draws(7);
    let vector: Vec<f32> = (0..128).map(|place| draw() / (1 + place / 16) as f32).collect();
    let query = Query::new(&vector).unwrap();
    let prefix = query.prefix(64).unwrap();
    for (quant, most) in [(Quant::None, 0), (Quant::F16, 1), (Quant::Q8, 1)] {
        let mut bytes = Vec::new();
        quant.encode(query.normalised(), &mut bytes);
        let stored = StoredVector::parse(quant, 128, &bytes).unwrap();
        let code = stored.prefix_code(64).unwrap();
        let apart = |(&a, &b): (&i8, &i8)| (i16::from(a) - i16::from(b)).unsigned_abs();
        let worst = code.codes.iter().zip(prefix.code()).map(apart).max().unwrap();
        assert!(worst <= most, "{quant:?}: {worst}");
        assert!(code.codes.iter().any(|code| code.unsigned_abs() == 127));
    }
}
