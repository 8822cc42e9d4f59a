//! Headers and stubs of chunks as bytes: they come back, and damaged ones are refused.

#[path = "common/chunks.rs"]
mod chunks;

use chunks::header;
use llmcache_core::ids::ContainerUid;
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, Stub};

#[test]
fn bytes_round_trip_and_every_flipped_bit_is_refused() {
    for rich in [false, true] {
        let header = header(rich);
        let bytes = header.to_bytes();
        assert_eq!(ChunkHeader::from_bytes(&bytes).expect("bytes"), header);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::from_bytes(&bad).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(ChunkHeader::from_bytes(&bytes[..end]).is_err());
        }
    }
}

/// With the checksum made right again any bytes are refused or accepted whole.
#[test]
fn damage_behind_a_right_checksum_never_panics() {
    let bytes = header(true).to_bytes();
    let (mut refused, mut word) = (0, 1u64);
    for round in 0..20_000usize {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round as u64);
        let mut bad = bytes.clone();
        let at = 8 + (word >> 33) as usize % (bad.len() - 12);
        bad[at] = (word >> 20) as u8;
        let end = bad.len() - 4;
        let crc = crc32fast::hash(&bad[..end]);
        bad[end..].copy_from_slice(&crc.to_le_bytes());
        match ChunkHeader::from_bytes(&bad) {
            Ok(header) => {
                let again = ChunkHeader::from_bytes(&header.to_bytes());
                assert_eq!(again.as_ref(), Ok(&header));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100);
}

#[test]
fn stubs_are_short() {
    let digest = ChunkDigest::from_bytes(&[1; 64]).expect("bytes");
    for stub in [Stub { was: None }, Stub { was: Some((ContainerUid(1), digest, 2)) }] {
        let bytes = stub.to_bytes();
        assert!(bytes.len() <= 128);
        assert_eq!(Stub::from_bytes(&bytes).expect("bytes"), stub);
    }
    assert!(Stub::from_bytes(&header(true).to_bytes()).is_err());
}
