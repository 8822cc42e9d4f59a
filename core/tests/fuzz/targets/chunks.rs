//! What keys of KVCHUNK hold: headers, stubs, heads of namespaces.

use super::{PLAIN, Target, sealed};
use crate::chunks::header;
use llmcache_core::ids::ContainerUid;
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, Namespace, NamespaceSettings, Stub};

pub const CHUNK: Target = Target {
    name: "chunk",
    covers: &["kvchunk/header.rs::from_bytes"],
    seeds: || vec![header(true).to_bytes(), header(false).to_bytes()],
    attack: |bytes| {
        let Ok(header) = ChunkHeader::from_bytes(&sealed(bytes)) else { return false };
        assert_eq!(
            ChunkHeader::from_bytes(&header.to_bytes()).expect("what was just written"),
            header
        );
        true
    },
    ..PLAIN
};

pub const STUB: Target = Target {
    name: "stub",
    covers: &["kvchunk/header.rs::from_bytes"],
    seeds: || {
        let digest = ChunkDigest::from_bytes(&[1; 32]).expect("a digest");
        [Stub { was: None }, Stub { was: Some((ContainerUid(7), digest, 9)) }]
            .map(|stub| stub.to_bytes())
            .to_vec()
    },
    attack: |bytes| {
        let Ok(stub) = Stub::from_bytes(&sealed(bytes)) else { return false };
        assert_eq!(Stub::from_bytes(&stub.to_bytes()).expect("what was just written"), stub);
        true
    },
    ..PLAIN
};

pub const NAMESPACE: Target = Target {
    name: "namespace",
    covers: &[
        "kvchunk/namespace.rs::load_head",
        "kvchunk/settings.rs::read",
        "kvchunk/settings.rs::read_shape",
    ],
    seeds: || {
        let rich = NamespaceSettings {
            model: (*b"m").into(),
            salt: (*b"s").into(),
            ..NamespaceSettings::default()
        };
        [NamespaceSettings::default(), rich]
            .map(|settings| {
                Namespace::new(b"ns", ContainerUid(5), settings).expect("a namespace").save_head()
            })
            .to_vec()
    },
    attack: |bytes| {
        let Ok(namespace) = Namespace::load_head(&sealed(bytes)) else { return false };
        namespace.settings().check().expect("settings in their bounds");
        let again = namespace.save_head();
        assert_eq!(Namespace::load_head(&again).expect("what was just saved").save_head(), again);
        true
    },
    ..PLAIN
};
