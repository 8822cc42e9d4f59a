//! Entries, heads of containers, the evidence of MAXERROR.

use super::{PLAIN, Target, sealed};
use crate::common::Random;
use crate::entries::{Parts, decode, use_all};
use llmcache_core::cache::maxerror::{Audit, MaxError, TicketSecret};
use llmcache_core::cache::{Cache, Extent, Settings, Severity};
use llmcache_core::ids::ContainerUid;

pub const ENTRY: Target = Target {
    name: "entry",
    covers: &["cache/entry/mod.rs::from_bytes"],
    seeds: || {
        let mut random = Random(1);
        (0..24).map(|_| Parts::random(&mut random).entry().as_bytes().to_vec()).collect()
    },
    attack: |bytes| decode(bytes).map(|entry| use_all(&entry)).is_some(),
    ..PLAIN
};

fn promised() -> MaxError {
    MaxError { max_error_ppm: 50_000, ..MaxError::default() }
}

fn cache(settings: Settings) -> Cache {
    Cache::new(b"faq", ContainerUid(7), settings, TicketSecret([1, 2])).expect("a cache")
}

pub const HEAD: Target = Target {
    name: "head",
    covers: &[
        "cache/container/head.rs::load_head",
        "cache/epochs.rs::read",
        "cache/settings.rs::read",
        "cache/settings.rs::read_extensions",
        "codec/reader.rs::open_section",
    ],
    seeds: || {
        let mut with_epochs = cache(Settings { dim: Some(4), ..Settings::default() });
        for (extent, severity) in [
            (Extent::Tag(b"t"), Severity::Gone),
            (Extent::Scope(b"de"), Severity::Stale),
            (Extent::All, Severity::Stale),
        ] {
            with_epochs.burn_seq();
            with_epochs.invalidate(extent, severity).expect("an invalidation");
        }
        vec![
            cache(Settings::default()).save_head(),
            with_epochs.save_head(),
            cache(Settings { dim: Some(96), matryoshka: Some(32), ..Settings::default() })
                .save_head(),
            cache(Settings { max_error: promised(), near_misses: 20, ..Settings::default() })
                .save_head(),
        ]
    },
    attack: |bytes| {
        let Ok(cache) = Cache::load_head(&sealed(bytes)) else { return false };
        cache.settings.check().expect("settings in their bounds");
        let again = cache.save_head();
        let twice = Cache::load_head(&again).expect("what was just saved").save_head();
        assert_eq!(twice, again);
        true
    },
    ..PLAIN
};

pub const EVIDENCE: Target = Target {
    name: "evidence",
    covers: &["cache/maxerror/audit.rs::read", "cache/maxerror/evidence.rs::read"],
    seeds: || vec![Audit::new(promised(), 0.9, TicketSecret([1, 2]), 3).write(true)],
    attack: |bytes| {
        let Ok(audit) = Audit::read(&sealed(bytes), promised(), 0.9) else { return false };
        let again = audit.write(true);
        let twice = Audit::read(&again, promised(), 0.9).expect("what was just written");
        assert_eq!(twice.write(true), again);
        true
    },
    ..PLAIN
};
