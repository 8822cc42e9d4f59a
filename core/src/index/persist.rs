//! The index as bytes: one section a block of slots, with ids, deadlines, codes and filter records.
//!
//! Owns: the layout and its validation. Saving runs in the forked child or on the main thread and
//! allocates one block at a time; loading runs on the main thread and treats the bytes as hostile.
//! Refused bytes lose nothing: the caller drops the index and fills it again from the entries.

use super::{BLOCK_SLOTS, Index, NewSlot};
use crate::codec::{DecodeError, Reader, Writer, open_section};
use crate::filter::FilterRecord;
use crate::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use crate::limits;
use crate::vector::fine::{Plane, width_of};

/// Section tag of a block of slots.
pub const TAG_SLOT_BLOCK: u16 = 0x0201;

const VERSION: u16 = 4;

/// Blocks without fine planes.
const VERSION_WITHOUT_PLANES: u16 = 3;

/// Blocks whose filter records are of the first form.
const VERSION_FIRST_RECORDS: u16 = 2;

const WITH_CODE: u8 = 1;

const WITH_NAME: u8 = 2;

const WITH_RECORD: u8 = 4;

const WITH_TAGS: u8 = 8;

const WITH_PLANE: u8 = 16;

/// A saved index may leave at most this many unused blocks for each used one, plus a first few;
/// wider gaps would let a few bytes claim gigabytes.
const GAP_FACTOR: usize = 64;

/// The number of a block of slots, as saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBlock(pub u32);

impl Index {
    /// Numbers of the blocks that hold entries, ascending.
    pub fn used_blocks(&self) -> impl Iterator<Item = SlotBlock> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (id, _) = self.next_occupied(from)?;
            let block = id.0 / BLOCK_SLOTS;
            from = (block + 1).saturating_mul(BLOCK_SLOTS);
            Some(SlotBlock(block))
        })
    }

    /// One block as a section.
    pub fn save_block(&self, block: SlotBlock) -> Vec<u8> {
        let first = block.0 * BLOCK_SLOTS;
        let end = first + BLOCK_SLOTS;
        let mut out = Writer::section(TAG_SLOT_BLOCK, VERSION);
        out.u32(block.0).u16(self.dim().unwrap_or(0) as u16);
        let mut from = first;
        while let Some((id, slot)) = self.next_occupied(from).filter(|(id, _)| id.0 < end) {
            from = id.0 + 1;
            let name = self.name_of(&slot.id).filter(|_| slot.is_named());
            let code = self.code(id);
            let (record, plane) = (slot.record, self.rows.plane(id));
            out.u8((id.0 - first) as u8);
            out.u8(if code.is_some() { WITH_CODE } else { 0 }
                | if name.is_some() { WITH_NAME } else { 0 }
                | if record.is_some() { WITH_RECORD } else { 0 }
                | if slot.is_tagged() { WITH_TAGS } else { 0 }
                | if plane.is_some() { WITH_PLANE } else { 0 });
            out.raw(&slot.id.0).u64(slot.seq().0).u64(slot.expire_at.0).u64(slot.partition.0);
            out.u32(slot.bytes).u8(slot.worth());
            if let Some(name) = name {
                out.u8(name.len() as u8).raw(name);
            }
            if let Some(record) = record {
                out.u32(record.as_bytes().len() as u32).raw(record.as_bytes());
            }
            if slot.is_tagged() {
                out.u8(self.tags_of(id).count() as u8);
                self.tags_of(id).for_each(|tag| {
                    out.u16(tag.len() as u16).raw(tag);
                });
            }
            if let Some((code, scale)) = code {
                out.f32(scale).raw(bytemuck::cast_slice(code));
            }
            if let Some(plane) = plane {
                out.f32(plane.scale).raw(plane.quarters);
            }
        }
        out.finish()
    }

    /// Takes in one saved block. The index is unusable after an error; clear it.
    pub fn load_block(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if tag != TAG_SLOT_BLOCK
            || !matches!(version, VERSION | VERSION_WITHOUT_PLANES | VERSION_FIRST_RECORDS)
        {
            return Err(DecodeError("not a block of slots of a known version"));
        }
        let block = from.u32()? as usize;
        let dim = usize::from(from.u16()?);
        if dim > limits::DIM_MAX as usize || self.dim().is_some_and(|have| have as usize != dim) {
            return Err(DecodeError("block of another dimension"));
        }
        if block > GAP_FACTOR * (1 + self.used_blocks().count()) {
            return Err(DecodeError("block number leaves too wide a gap"));
        }
        while from.remaining() > 0 {
            self.load_slot(block, dim, version, &mut from)?;
        }
        from.finish()
    }

    fn load_slot(
        &mut self,
        block: usize,
        dim: usize,
        version: u16,
        from: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let row = usize::from(from.u8()?);
        let with = from.u8()?;
        let planes = if version == VERSION { WITH_PLANE } else { 0 };
        if with & !(WITH_CODE | WITH_NAME | WITH_RECORD | WITH_TAGS | planes) != 0 {
            return Err(DecodeError("slot with unknown parts"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(from.raw(16)?);
        let id = EntryId(id);
        let (seq, expire_at) = (Seq(from.u64()?), UnixMs(from.u64()?));
        if seq.0 > limits::SEQ_MAX {
            return Err(DecodeError("store order of a slot"));
        }
        let partition = PartitionKey(from.u64()?);
        let (bytes, worth) = (from.u32()?, from.u8()?);
        let name = if with & WITH_NAME != 0 { Some(read_name(from)?) } else { None };
        let record = if with & WITH_RECORD != 0 { Some(read_record(version, from)?) } else { None };
        let tags = if with & WITH_TAGS != 0 { read_tags(from)? } else { Vec::new() };
        let code = if with & WITH_CODE != 0 { Some(read_code(dim, from)?) } else { None };
        let plane = if with & WITH_PLANE != 0 { Some(read_plane(with, dim, from)?) } else { None };
        let slot = self.rows.slots.allocate_at(block, row);
        let slot: SlotId = slot.ok_or(DecodeError("two entries in one slot"))?;
        // Servers before this one saved an entry twice where it had two rows. Its key tells which was meant.
        self.remove_id(&id);
        self.fill(
            slot,
            NewSlot { id, seq, partition, expire_at, bytes, worth, record, name, code },
        );
        self.set_tags(slot, tags.into_iter());
        if let Some(plane) = plane {
            self.set_plane(slot, plane);
        }
        Ok(())
    }

    /// Ends loading: free slots become usable, large partitions without a graph wait for `work` to
    /// build one. Returns whether the graphs that were loaded are good; those that are not are thrown
    /// away, and their rows are linked again.
    pub fn finish_load(&mut self) -> bool {
        self.rows.slots.rebuild_free_lists();
        self.graphs.finish_load(&mut self.rows)
    }
}

fn read_name<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = usize::from(from.u8()?);
    if length == 0 || length > limits::ID_MAX_BYTES {
        return Err(DecodeError("name of a slot"));
    }
    from.raw(length)
}

fn read_record(version: u16, from: &mut Reader<'_>) -> Result<FilterRecord, DecodeError> {
    let record = if version == VERSION_FIRST_RECORDS {
        let length = usize::from(from.u16()?);
        FilterRecord::from_first_form(from.raw(length)?)
    } else {
        let length = from.u32()? as usize;
        FilterRecord::from_bytes(from.raw(length)?)
    };
    record.ok_or(DecodeError("filter record of a slot"))
}

fn read_code<'a>(dim: usize, from: &mut Reader<'a>) -> Result<(&'a [i8], f32), DecodeError> {
    let scale = from.f32()?;
    let code: &[i8] = bytemuck::cast_slice(from.raw(dim)?);
    if dim == 0 || scale <= 0.0 || code.contains(&i8::MIN) {
        return Err(DecodeError("code of a slot"));
    }
    Ok((code, scale))
}

fn read_plane<'a>(with: u8, dim: usize, from: &mut Reader<'a>) -> Result<Plane<'a>, DecodeError> {
    let plane = Plane { scale: from.f32()?, quarters: from.raw(width_of(dim))? };
    if with & WITH_CODE == 0 || !plane.is_valid(dim) {
        return Err(DecodeError("fine plane of a slot"));
    }
    Ok(plane)
}

fn read_tags<'a>(from: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, DecodeError> {
    let count = usize::from(from.u8()?);
    if count == 0 || count > limits::TAGS_MAX {
        return Err(DecodeError("tags of a slot"));
    }
    let mut tags: Vec<&[u8]> = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(from.u16()?);
        let tag = from.raw(length)?;
        if tag.is_empty() || tag.len() > limits::TAG_MAX_BYTES || tags.contains(&tag) {
            return Err(DecodeError("tag of a slot"));
        }
        tags.push(tag);
    }
    Ok(tags)
}
