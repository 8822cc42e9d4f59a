//! The digest that names entries and the key of a partition, against vectors computed with another
//! implementation of SHA-256. `docs/formats.md` has the same table: a client that computes ids must
//! get these.

use llmcache_core::ids::{EntryId, PartitionKey};

struct Vector {
    scope: &'static [u8],
    context: &'static [u8],
    prompt: &'static [u8],
    id: &'static str,
    partition: u64,
}

const fn vector(
    scope: &'static [u8],
    context: &'static [u8],
    prompt: &'static [u8],
    id: &'static str,
    partition: u64,
) -> Vector {
    Vector { scope, context, prompt, id, partition }
}

const REFUND: &[u8] = b"How do I get my money back?";

const VECTORS: [Vector; 8] = [
    vector(b"", b"", b"", "9d908ecfb6b256def8b49a7c504e6c88", 0),
    vector(b"", b"", REFUND, "3fecd3a5118c75e75d621b818222c939", 0),
    vector(b"eu", b"gpt-5;t=0", REFUND, "13c53c57ad1e7a127de6147e5c4135ab", 0x5342_1ae6_7da9_7633),
    vector(b"a", b"b", b"c", "3d10f2e96612f8284bd5233f0c75d628", 0x9123_94e3_13b6_6acf),
    vector(b"", b"ab", b"c", "135b4f5a3b38fd6cf45379422c9cf6c0", 0x6552_ce77_972f_8f30),
    vector(
        b"tenant\0one",
        b"",
        b"\x00\xff",
        "ea3559a523229a3be2e8b764edcab681",
        0x3588_96c8_8fb6_1074,
    ),
    vector(
        "\u{e9}".as_bytes(),
        b"",
        "O\u{f9} est ma commande ?".as_bytes(),
        "0fdc8b8e9778e22f38cafac161c64216",
        0x83d6_5927_2aa8_82bc,
    ),
    vector(b"", b"", &[b'x'; 1000], "859f1f818a42b29b3751a2b7821315a5", 0),
];

#[test]
fn ids_are_those_of_the_vectors() {
    for vector in VECTORS {
        let id = EntryId::of(vector.scope, vector.context, vector.prompt);
        assert_eq!(id.hex(), vector.id.as_bytes(), "{}", vector.id);
        assert_eq!(EntryId::from_hex(vector.id.as_bytes()), Some(id));
    }
}

#[test]
fn partitions_are_those_of_the_vectors() {
    for vector in VECTORS {
        let partition = PartitionKey::of(vector.scope, vector.context);
        assert_eq!(partition.0, vector.partition, "{}", vector.id);
    }
}

#[test]
fn only_lower_case_hex_of_the_right_length_is_an_id() {
    for text in [
        &b""[..],
        b"9d908ecfb6b256def8b49a7c504e6c8",
        b"9d908ecfb6b256def8b49a7c504e6c880",
        b"9D908ECFB6B256DEF8B49A7C504E6C88",
        b"9d908ecfb6b256def8b49a7c504e6c8g",
    ] {
        assert_eq!(EntryId::from_hex(text), None);
    }
}
