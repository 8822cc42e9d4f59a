//! Embeddings as entries: the digest against vectors of another implementation, the error of each form
//! within what is stated, damaged bytes refused.

#[path = "common/vectors.rs"]
#[expect(dead_code, reason = "nothing is searched here")]
mod vectors;

use llmcache_core::cache::{Entry, EntryFields, kept_bytes, pack_embedding, unpack_embedding};
use llmcache_core::ids::{ContainerUid, EmbeddingDigest, Seq, UnixMs};
use llmcache_core::vector::Quant;
use proptest::prelude::*;

const REFUND: &str = "How do I get my money back?";
const DIGEST: EmbeddingDigest = EmbeddingDigest([7; 32]);

fn hex(digest: &EmbeddingDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn packed(quant: Quant, numbers: &[f32]) -> Box<Entry> {
    pack_embedding(ContainerUid(1), Seq(2), UnixMs(3), quant, &DIGEST, numbers).unwrap()
}

fn back(quant: Quant, numbers: &[f32]) -> Vec<f32> {
    let entry = packed(quant, numbers);
    assert_eq!(entry.view().vector_dim() as usize, numbers.len());
    let again = Entry::from_bytes(entry.as_bytes().into()).unwrap();
    unpack_embedding(&again.view()).unwrap()
}

/// The table at the head of `cache/embedding.rs`, and nothing else.
fn bound(quant: Quant, numbers: &[f32], x: f32) -> f64 {
    let norm = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let largest = numbers.iter().fold(0.0_f64, |largest, &x| largest.max(f64::from(x.abs())));
    match quant {
        Quant::None => 0.0,
        Quant::F16 => 0.0005 * f64::from(x.abs()) + 3.1e-8 * norm,
        Quant::Q8 => largest / 253.0,
    }
}

fn check(quant: Quant, numbers: &[f32]) -> f64 {
    let mut worst = 0.0_f64;
    for (&x, &y) in numbers.iter().zip(&back(quant, numbers)) {
        let (error, bound) = ((f64::from(x) - f64::from(y)).abs(), bound(quant, numbers, x));
        assert!(error <= bound, "{quant:?}: {x} came back as {y}: {error} > {bound}");
        worst = worst.max(if bound > 0.0 { error / bound } else { 0.0 });
    }
    worst
}

const FORMS: [Quant; 3] = [Quant::None, Quant::F16, Quant::Q8];

#[test]
fn digests_agree_with_another_implementation() {
    for (model, text, digest) in [
        ("", "", "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"),
        (
            "all-MiniLM-L6-v2",
            "",
            "6021d4d46c86752f96d77215f7a23ca93b963aacdc729d664725c0975cbb6d6b",
        ),
        (
            "all-MiniLM-L6-v2",
            REFUND,
            "63c5e924d97d7d7d386aac0226db6b30afe8a0487bf78cd288ad82fc4d80e0c3",
        ),
        (
            "text-embedding-3-small",
            REFUND,
            "836be4e1335a331e74efec9bbb8e6d185207585643d7fd9df3308cabc3e6d6aa",
        ),
        (
            "m",
            "O\u{f9} est ma commande ?",
            "e70343ceb82f3b7b599c5589abda79eb6d09c1b3b29788f4dad3c65d59b9c975",
        ),
    ] {
        let ours = EmbeddingDigest::of(model.as_bytes(), text.as_bytes());
        assert_eq!(hex(&ours), digest, "{model} {text}");
        assert_eq!(EmbeddingDigest::from_hex(digest.as_bytes()), Some(ours));
    }
    let of = |model: &str, text: &str| EmbeddingDigest::of(model.as_bytes(), text.as_bytes());
    assert_ne!(of("ab", "c"), of("a", "bc"), "lengths keep model and text apart");
    for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64)] {
        assert!(EmbeddingDigest::from_hex(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn real_embeddings_come_back_within_the_stated_error() {
    for length in [1.0_f32, 17.25, 1e-20, 1e20] {
        for vector in vectors::read("base.f16.npy").iter().take(500) {
            let vector: Vec<f32> = vector.iter().map(|x| x * length).collect();
            for quant in FORMS {
                check(quant, &vector);
            }
        }
    }
}

#[test]
fn the_bounds_are_not_idle() {
    let worst = |quant| {
        // The file holds f16, which f16 would keep without any error.
        let other = |(i, x): (usize, &f32)| x + 1e-4 * (i as f32).sin();
        let vectors = vectors::read("base.f16.npy");
        let vectors = vectors.iter().take(500);
        vectors
            .map(|vector| check(quant, &vector.iter().enumerate().map(other).collect::<Vec<_>>()))
            .fold(0.0, f64::max)
    };
    assert!(worst(Quant::F16) > 0.7);
    assert!(worst(Quant::Q8) > 0.9);
}

#[test]
fn an_embedding_takes_what_is_said() {
    let numbers = vec![0.5; 1_536];
    let bare = packed(Quant::None, &numbers).as_bytes().len() - 4 * numbers.len();
    for quant in FORMS {
        let bytes = packed(quant, &numbers).as_bytes().len();
        assert_eq!(bytes - bare, kept_bytes(quant, numbers.len()));
    }
    assert_eq!(bare, 36 + 32, "header and digest");
}

#[test]
fn what_is_no_embedding_is_refused() {
    let unit = [1.0_f32.to_le_bytes(), 0.0_f32.to_le_bytes()].concat();
    let (mut f16, norm) = (Vec::new(), 1.0_f64.to_le_bytes());
    Quant::F16.encode(&[1.0, 0.0], &mut f16);
    let kept = EntryFields {
        dim: 2,
        vector: &f16,
        prompt: &DIGEST.0,
        response: &norm,
        is_embedding: true,
        ..EntryFields::default()
    };
    let raw = EntryFields { quant: Quant::None, dim: 0, vector: b"", response: &unit, ..kept };
    let taken =
        |fields: &EntryFields<'_>| Entry::from_bytes(Entry::new(fields).as_bytes().into()).is_ok();
    assert!(taken(&kept) && taken(&raw));
    let (nan, infinite, nought) = (f64::NAN.to_le_bytes(), f64::INFINITY.to_le_bytes(), [0; 8]);
    for bad in [
        EntryFields { prompt: b"no digest", ..kept },
        EntryFields { scope: b"s", ..kept },
        EntryFields { context: b"c", ..kept },
        EntryFields { name: b"n", ..kept },
        EntryFields { response: &nan, ..kept },
        EntryFields { response: &infinite, ..kept },
        EntryFields { response: &nought, ..kept },
        EntryFields { response: b"1234567", ..kept },
        EntryFields { response: b"", ..raw },
        EntryFields { response: &unit[..7], ..raw },
        EntryFields { response: &nan, ..raw },
        EntryFields { quant: Quant::F16, ..raw },
    ] {
        assert!(!taken(&bad), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_vector_comes_back_within_the_stated_error(
        numbers in prop::collection::vec(-1e3_f32..1e3, 1..300),
        length in prop::sample::select(vec![1.0_f32, 1e-30, 1e30]),
    ) {
        let numbers: Vec<f32> = numbers.iter().map(|x| x * length).collect();
        prop_assume!(numbers.iter().any(|&x| x != 0.0));
        for quant in FORMS {
            check(quant, &numbers);
        }
        prop_assert_eq!(back(Quant::None, &numbers), numbers);
    }
}
