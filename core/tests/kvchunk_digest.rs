//! Vectors of `docs/formats.md`, computed by hashlib.

use llmcache_core::kvchunk::{ChunkDigest, Dtype, NamespaceSettings, chain, root};

fn blob(tokens: impl IntoIterator<Item = u32>) -> Vec<u8> {
    tokens.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn hex(bytes: &[u8]) -> String {
    ChunkDigest::from_bytes(bytes).unwrap().hex()
}

fn digests(settings: &NamespaceSettings, salt: &[u8], tokens: &[u8]) -> Vec<String> {
    let root = root(&settings.fingerprint(), salt);
    chain(root, tokens, settings.chunk_tokens).iter().map(ChunkDigest::hex).collect()
}

#[test]
fn chains_of_the_documentation() {
    let plain = NamespaceSettings::default();
    assert_eq!(
        hex(&plain.fingerprint()),
        "b940552052509cdb1684ab714ec0e46736580f05ce99fb3cbceafb8ce8101118"
    );
    assert_eq!(
        digests(&plain, b"", &blob(0..512)),
        [
            "5f7f92e357e335d7297a3074b2eec7f92f0dd3f3d3f8285d2633303677d4c243",
            "c64ad21e9c19f34633967f652a0488c71d0698bb5a2e37379a2d41e6015fef8e"
        ]
    );
    let llama = NamespaceSettings {
        model: (*b"llama-3.1-8b").into(),
        dtype: Dtype::parse(b"bf16").unwrap(),
        format: (*b"KV_2LTD").into(),
        shape: [2, 32, 256, 1_024].into(),
        ..NamespaceSettings::default()
    };
    assert_eq!(
        hex(&llama.fingerprint()),
        "b8604e42f99b6d44d8e9882b1e09fdfffd0dbb2b1120daf2a61cd6568506a994"
    );
    assert_eq!(
        digests(&llama, b"tenant-1", &blob(0..256)),
        ["090cff84d6502a1f3d1e42415cf7fe37ee881f19e88dcdf7e1dca3f212a807d3"]
    );
    let small = NamespaceSettings { chunk_tokens: 4, ..NamespaceSettings::default() };
    assert_eq!(
        digests(&small, b"", &blob([1, 2, 3, 4, u32::MAX, 0, 7, 8, 9])),
        [
            "33c4360b00acc43ed937a285b4c3a198456793905d9f3a45b22b1059a4dd53ea",
            "1cee9f4f4d74230fd7406c79a22d40e49a958e1a2bd53586b5115c11e9289d49"
        ]
    );
}

#[test]
fn partial_chunks_have_no_digest() {
    let small = NamespaceSettings { chunk_tokens: 4, ..NamespaceSettings::default() };
    assert!(digests(&small, b"", &[]).is_empty());
    assert!(digests(&small, b"", &blob(0..3)).is_empty());
    assert_eq!(digests(&small, b"", &blob(0..7)).len(), 1);
}

#[test]
fn hex_forms() {
    assert_eq!(hex(&[0, 0xff]), "00ff");
    assert_eq!(ChunkDigest::from_hex(b"00ff").unwrap().as_bytes(), [0, 0xff]);
    for bad in [&b""[..], b"0", b"0F", b"zz", &[b'a'; 130]] {
        assert_eq!(ChunkDigest::from_hex(bad), None, "{bad:?}");
    }
}
