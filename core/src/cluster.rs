//! Redis Cluster's hash slot of a key, which servers before 8.0 do not offer to modules.
//!
//! Owns: CRC-16/XMODEM and the hash-tag rule of the Redis Cluster specification. Any thread.

/// Number of hash slots of a cluster.
pub const HASH_SLOTS: u16 = 16_384;

/// The part of a key that decides its slot: what stands between the first `{` and the first `}`
/// after it, unless that is empty; else the whole key.
pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let length = key[open + 1..].iter().position(|&byte| byte == b'}')?;
    (length > 0).then(|| &key[open + 1..open + 1 + length])
}

/// The hash slot of a key.
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % HASH_SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"{foo}:1"), 12_182);
        assert_eq!(key_slot(b"a{foo}{bar}"), 12_182);
        assert_eq!(key_slot(b"{}foo"), crc16(b"{}foo") % HASH_SLOTS);
    }
}
