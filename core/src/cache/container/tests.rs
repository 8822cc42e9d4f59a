//! Tests: names of entry keys, and heads as bytes.

use super::*;
use crate::cache::maxerror::{MaxError, SimilarityE4};
use crate::cluster::key_slot;

const UID: ContainerUid = ContainerUid(0xab);
const SECRET: TicketSecret = TicketSecret([3, 4]);

#[test]
fn entry_keys_share_the_slot_of_their_cache() {
    for name in [&b"faq"[..], b"faq{x}", b"{x}faq", b"a{b", b"{{x}", b"\x00\xff"] {
        let cache = Cache::new(name, UID, Settings::default(), SECRET).unwrap();
        assert_eq!(key_slot(name), key_slot(&cache.named_key(b"any}thing{")), "{name:?}");
    }
    for name in [&b""[..], b"a}b", b"{}", b"{}a{b}", b"}{"] {
        let refused = Cache::new(name, UID, Settings::default(), SECRET);
        assert!(refused.is_err(), "{name:?}");
    }
}

#[test]
fn head_round_trips_and_refuses_every_flipped_bit() {
    let max_error = MaxError { max_error_ppm: 50_000, ..MaxError::default() };
    for settings in [
        Settings { dim: Some(3), ..Settings::default() },
        Settings { dim: Some(3), exchange: true, ..Settings::default() },
        Settings { dim: Some(3), max_error, ..Settings::default() },
    ] {
        head_round_trips(settings);
    }
}

fn head_round_trips(settings: Settings) {
    let mut cache = Cache::new(b"faq", UID, settings, SECRET).unwrap();
    if let Some(audit) = cache.audit_mut() {
        for _ in 0..30 {
            audit.note_near(SimilarityE4(9_000), true);
        }
    }
    for (extent, severity) in [
        (Extent::Tag(b"t"), Severity::Gone),
        (Extent::Scope(b"s"), Severity::Stale),
        (Extent::Scope(b""), Severity::Gone),
        (Extent::All, Severity::Stale),
    ] {
        cache.invalidate(extent, severity).unwrap();
    }
    let head = cache.save_head();
    let loaded = Cache::load_head(&head).unwrap();
    assert_eq!(loaded.save_head(), head);
    let shared = Cache::load_head(&cache.shared_head()).unwrap();
    assert!(shared.audit().is_none_or(|audit| audit.evidence().warm().is_empty()));
    assert_eq!(loaded.epochs().min_seq(b""), Seq(3));
    assert_eq!(loaded.uid(), UID);
    assert_eq!(loaded.settings, cache.settings);
    assert_eq!(loaded.prefix(), b"{faq}:00000000000000ab:");
    for bit in 0..head.len() * 8 {
        let mut bad = head.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Cache::load_head(&bad).is_err(), "bit {bit}");
    }
    for end in 0..head.len() {
        assert!(Cache::load_head(&head[..end]).is_err());
    }
}
