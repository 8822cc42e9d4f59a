//! Tensors of a safetensors file, which is hostile: nothing is believed of it before it was checked.
//!
//! Owns: the header, and reading rows as f32 into memory of the caller's. Must not know: what a tensor is for.

use super::json::Object;
use crate::error::{Error, Result};
use crate::limits::{EMBED_HEADER_MAX_BYTES, EMBED_WEIGHTS_MAX_BYTES};
use half::{bf16, f16};
use hashbrown::HashMap;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Most dimensions of a tensor.
const DIMS_MAX: usize = 8;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F32,
    F16,
    Bf16,
}

impl Form {
    fn width(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn read(self, bytes: &[u8], to: &mut Vec<f32>) {
        let pair = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
        match self {
            Self::F32 => {
                to.extend(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)))
            }
            Self::F16 => {
                to.extend(bytes.as_chunks().0.iter().map(|two| f16::from_bits(pair(two)).to_f32()));
            }
            Self::Bf16 => {
                to.extend(
                    bytes.as_chunks().0.iter().map(|two| bf16::from_bits(pair(two)).to_f32()),
                );
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Tensor {
    form: String,
    shape: Vec<usize>,
    start: u64,
}

/// An open file whose header was checked.
#[derive(Debug)]
pub(super) struct Tensors {
    file: File,
    name: String,
    by_name: HashMap<String, Tensor>,
    /// What the names begin with.
    prefix: String,
}

impl Tensors {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        let failed = |error: std::io::Error| Error::err(format!("{name}: {error}"));
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let length = about.len();
        if !about.is_file() || !(8..=EMBED_WEIGHTS_MAX_BYTES).contains(&length) {
            let most = EMBED_WEIGHTS_MAX_BYTES;
            return Err(Error::err(format!("{name}: {length} bytes, 8 to {most} are accepted")));
        }
        let mut size = [0; 8];
        file.read_exact_at(&mut size, 0).map_err(failed)?;
        let size = u64::from_le_bytes(size);
        if size > EMBED_HEADER_MAX_BYTES.min(length - 8) {
            return Err(Error::err(format!("{name}: the header says it has {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact_at(&mut header, 8).map_err(failed)?;
        let by_name = read_header(&name, &header, 8 + size, length)?;
        Ok(Self { file, name, by_name, prefix: String::new() })
    }

    /// Takes the first of some beginnings with which there is a tensor of that name.
    pub(super) fn choose_prefix(&mut self, prefixes: &[&str], name: &str) {
        let found = prefixes.iter().find(|p| self.by_name.contains_key(&format!("{p}{name}")));
        self.prefix = found.map_or_else(String::new, |found| (*found).to_owned());
    }

    /// Whether there is one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The rows of a matrix.
    pub(super) fn row_count(&self, name: &str) -> Option<(usize, usize)> {
        match *self.by_name.get(&format!("{}{name}", self.prefix))?.shape {
            [rows, width] => Some((rows, width)),
            _ => None,
        }
    }

    /// Calls `each` with the first `rows` rows of a tensor of at least so many, each of `width` numbers, a vector being one
    /// row. Numbers that are not finite, or beyond what any model has, are refused.
    pub(super) fn rows(
        &self,
        name: &str,
        (rows, width): (usize, usize),
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let name = format!("{}{name}", self.prefix);
        let wrong = |what: String| Error::err(format!("{}: {name}: {what}", self.name));
        let tensor =
            self.by_name.get(&name).ok_or_else(|| wrong("there is no such tensor".into()))?;
        let fits = match *tensor.shape {
            [length] => rows == 1 && length == width,
            [all, length] => all >= rows && length == width,
            _ => false,
        };
        if !fits {
            return Err(wrong(format!("shape {:?}, {rows} x {width} is needed", tensor.shape)));
        }
        let form = match tensor.form.as_str() {
            "F32" => Form::F32,
            "F16" => Form::F16,
            "BF16" => Form::Bf16,
            other => return Err(wrong(format!("numbers of type {other} are not read"))),
        };
        let row_bytes = width * form.width();
        let at_once = (BLOCK_BYTES / row_bytes).clamp(1, rows);
        let mut bytes = vec![0; at_once * row_bytes];
        let mut numbers = Vec::with_capacity(width);
        let mut row = 0;
        while row < rows {
            let count = at_once.min(rows - row);
            let bytes = &mut bytes[..count * row_bytes];
            let at = tensor.start + (row * row_bytes) as u64;
            self.file.read_exact_at(bytes, at).map_err(|error| wrong(error.to_string()))?;
            for bytes in bytes.chunks_exact(row_bytes) {
                numbers.clear();
                form.read(bytes, &mut numbers);
                // Below it no step of a pass can leave the range of f32.
                let fits = |weight: &f32| (-LARGEST_WEIGHT..=LARGEST_WEIGHT).contains(weight);
                if let Some(odd) = numbers.iter().find(|weight| !fits(weight)) {
                    return Err(wrong(format!("row {row} has a weight of {odd}")));
                }
                each(row, &numbers);
                row += 1;
            }
        }
        Ok(())
    }

    /// The digest of the whole file.
    pub(super) fn digest(&self) -> Result<[u8; 32]> {
        let failed = |error: std::io::Error| Error::err(format!("{}: {error}", self.name));
        let (mut at, mut hash) = (0, Sha256::new());
        let mut bytes = vec![0; BLOCK_BYTES];
        loop {
            let count = self.file.read_at(&mut bytes, at).map_err(failed)?;
            if count == 0 {
                return Ok(hash.finalize().into());
            }
            hash.update(&bytes[..count]);
            at += count as u64;
        }
    }
}

/// The largest magnitude of a weight; real models stay below 100.
const LARGEST_WEIGHT: f32 = 1e4;

fn read_header(
    file: &str,
    header: &[u8],
    data_at: u64,
    length: u64,
) -> Result<HashMap<String, Tensor>> {
    let mut by_name = HashMap::new();
    for (name, value) in Object::parse(file, header)?.members() {
        if name == "__metadata__" {
            continue;
        }
        let wrong = |what: &str| Error::err(format!("{file}: tensor {name:.80}: {what}"));
        // Anything longer has more dimensions than are read.
        if value.get().len() > 1_024 {
            return Err(wrong("its description is too long"));
        }
        let member = Object::parse(file, value.get().as_bytes())?;
        let form = member.text("dtype")?.ok_or_else(|| wrong("dtype is missing"))?;
        let shape: Vec<usize> = member.need("shape")?;
        let [start, end]: [u64; 2] = member.need("data_offsets")?;
        let within = start <= end && data_at.checked_add(end).is_some_and(|end| end <= length);
        if !within || shape.len() > DIMS_MAX {
            return Err(wrong("it lies outside of the file"));
        }
        let width = match form.as_ref() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            // Counted in bytes by nobody, as nobody reads it.
            _ => 0,
        };
        let count = shape.iter().try_fold(1_u64, |all, &some| all.checked_mul(some as u64));
        let bytes = count.and_then(|count| count.checked_mul(width));
        if width > 0 && bytes != Some(end - start) {
            return Err(wrong("its shape does not fit its bytes"));
        }
        let (form, start) = (form.into_owned(), data_at + start);
        by_name.insert(name.to_owned(), Tensor { form, shape, start });
    }
    Ok(by_name)
}
