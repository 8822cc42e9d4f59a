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
    vector(b"", b"", b"", "15ec7bf0b50732b49f8228e07d243653", 0),
    vector(b"", b"", REFUND, "1545d5f7807d6cf8abccef999ead93a9", 0),
    vector(b"eu", b"gpt-5;t=0", REFUND, "e1072e13c035f70b16f4a11ac6855f8e", 0x7dbb_1c10_bea1_8247),
    vector(b"a", b"b", b"c", "bc46b23f5452e0da9147a3cd43552ea3", 0xff55_8a42_f0ef_f2f9),
    vector(b"", b"ab", b"c", "c861e13911d7148936e655f2184700e7", 0x250f_a100_0000_0000),
    vector(
        b"tenant\0one",
        b"",
        b"\x00\xff",
        "e50f200e75ba8ecfdf08d45f5a7a3558",
        0x0000_006b_8bb3_e0b4,
    ),
    vector(
        "\u{e9}".as_bytes(),
        b"",
        "O\u{f9} est ma commande ?".as_bytes(),
        "c6934013a1abbd8324bcbc8ad7e3cd1e",
        0x0000_00fc_7f65_de77,
    ),
    vector(b"", b"", &[b'x'; 1000], "3ca93cd7ccfc5ac2b5ba4b30066bac55", 0),
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
        b"15ec7bf0b50732b49f8228e07d2436530",
        b"9D908ECFB6B256DEF8B49A7C504E6C88",
        b"9d908ecfb6b256def8b49a7c504e6c8g",
    ] {
        assert_eq!(EntryId::from_hex(text), None);
    }
}
