//! The header of a chunk, with little in it or with everything; for the tests that attack its bytes.

use llmcache_core::ids::{ContainerUid, UnixMs};
use llmcache_core::kvchunk::{ChunkDigest, ChunkHeader, Content, Dtype};

pub fn header(rich: bool) -> ChunkHeader {
    ChunkHeader {
        uid: ContainerUid(7),
        fingerprint: [9; 32],
        digest: ChunkDigest::from_bytes(&[1; 64]).expect("a digest"),
        parent: rich.then(|| ChunkDigest::from_bytes(b"x").expect("a digest")),
        position: 3,
        dtype: Dtype::parse(b"bf16").expect("a dtype"),
        shape: if rich { [2, 32].into() } else { Box::default() },
        prio: 4,
        pinned: rich,
        created: UnixMs(1),
        deadline: UnixMs(2),
        payload_bytes: 1 << 20,
        checksum: rich.then_some(5),
        content: rich.then_some(Content { print: 7, sha: [6; 16] }),
        meta: if rich { (*b"{\"a\":1}").into() } else { Box::default() },
    }
}
