//! Redis Cluster's hash slot of a key, which servers before 8.0 do not offer to modules, and what a server's place
//! among others lets it do.
//!
//! Owns: CRC-16/XMODEM, the hash-tag rule of the Redis Cluster specification, and how derived keys are
//! named so that they share their container's slot. `slots` reads the node table, `role` says who may write. Any thread.

mod role;
mod slots;

pub use role::Role;
pub use slots::{Ownership, Served, found_or_elsewhere, in_node_table, redirection_by, try_again};

use crate::error::{Error, Result};
use crate::limits;

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

/// What the keys of a container begin with, so that they share its slot: `{name}` and the tail, or
/// `name` and the tail where the name carries a hash tag of its own. `what` names the container in
/// errors.
pub fn derived_prefix(name: &[u8], tail: &[u8], what: &str) -> Result<Vec<u8>> {
    if name.len() > limits::CONTAINER_NAME_MAX_BYTES {
        let (got, max) = (name.len(), limits::CONTAINER_NAME_MAX_BYTES);
        return Err(Error::too_big(&format!("the name of a {what}"), got, max, "bytes"));
    }
    if name.is_empty() {
        return Err(Error::err(format!("a {what} needs a name")));
    }
    if hash_tag(name).is_some() {
        return Ok([name, tail].concat());
    }
    if name.contains(&b'}') {
        return Err(Error::err(format!(
            "a {what} name with '}}' needs a hash tag {{...}}, so that its keys share its slot"
        )));
    }
    Ok([b"{", name, b"}", tail].concat())
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
