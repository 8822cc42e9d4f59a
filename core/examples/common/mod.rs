//! What the examples that measure an index share: vectors from a file, rows of an index, searches, CPU time.

use half::f16;
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{Index, NewSlot, SearchRequest, SearchResult};
use llmcache_core::vector::fine::{OwnPlane, rest_of};
use llmcache_core::vector::quantise::{Code as Quantised, quantise};
use std::path::Path;
use std::time::Instant;

/// Nearest that are asked for.
pub const K: usize = 10;

/// What an index keeps of a vector, or is asked by.
pub struct Code {
    pub codes: Vec<i8>,
    pub step: f32,
    pub plane: Option<OwnPlane>,
    pub rest: Vec<i8>,
}

/// Searches all there is.
pub fn search(index: &mut Index, asked: &Code, ef: Option<usize>) -> SearchResult {
    index.search(&SearchRequest {
        counts_refused: true,
        code: &asked.codes,
        scale: asked.step,
        rest: &asked.rest,
        partition: PartitionKey(0),
        limit: K,
        ef,
        now: UnixMs(1),
        filter: None,
        min_seq: Seq(0),
    })
}

/// Puts a row in under its number.
pub fn insert(index: &mut Index, number: u32, code: &Code) -> SlotId {
    let slot = index.insert(NewSlot {
        id: EntryId::of(b"", b"", &number.to_le_bytes()),
        seq: Seq(u64::from(number) + 1),
        partition: PartitionKey(0),
        expire_at: UnixMs::NEVER,
        bytes: 0,
        worth: 0,
        record: None,
        name: None,
        code: Some((&code.codes, code.step)),
    });
    if let Some(plane) = &code.plane {
        index.set_plane(slot, plane.as_plane());
    }
    slot
}

/// What an index keeps of a vector: without a fine plane, as `QUANT Q8` does, where `by_codes`.
pub fn coded(vector: &[f32], by_codes: bool) -> Code {
    let Quantised { codes, scale } = quantise(vector);
    if by_codes {
        return Code { codes, step: scale, plane: None, rest: Vec::new() };
    }
    let (plane, rest) = (Some(OwnPlane::of(vector, &codes, scale)), rest_of(vector, &codes, scale));
    Code { codes, step: scale, plane, rest }
}

/// Seconds this thread was on a core: what others on the machine do is not in it. Where the system does not tell, the
/// time that passed.
pub fn cpu_seconds(start: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = told.and_then(|told| told.split(' ').next()?.parse::<f64>().ok());
    ns.map_or(start.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// The rows of the one `.npy` file of a folder whose name holds `part`: f16, two-dimensional.
pub fn read(folder: &Path, part: &str) -> Vec<Vec<f32>> {
    let files = std::fs::read_dir(folder).expect("a folder");
    let path = files
        .map(|file| file.expect("a file").path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(part) && name.ends_with(".npy")
        })
        .expect("a file of vectors");
    let bytes = std::fs::read(path).expect("a readable file");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..10 + header]);
    assert!(text.contains("<f2") && text.contains("False"), "rows of f16");
    let dim = text.split_once(", ").and_then(|_| text.rsplit_once("), ")).map(|(head, _)| head);
    let dim = dim.and_then(|head| head.rsplit_once(", ")).and_then(|(_, dim)| dim.parse().ok());
    let dim: usize = dim.expect("a shape of two dimensions");
    let numbers: Vec<f32> = bytes[10 + header..]
        .chunks_exact(2)
        .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
        .collect();
    numbers.chunks_exact(dim).map(<[f32]>::to_vec).collect()
}
