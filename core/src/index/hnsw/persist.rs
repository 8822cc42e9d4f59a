//! Graphs as bytes: sections beside the blocks of slots.
//!
//! Owns: their layout and its validation. Saving runs in the forked child or on the main thread and
//! holds one section at a time; loading runs on the main thread, computes no distance and treats the
//! bytes as hostile. Refused graphs lose nothing: their rows stay, unlinked, and `work` links them.
//!
//! Tombstones are not saved, nor are links to them: what is loaded is a graph of living entries. The
//! level of a row follows from its id and is not saved either.

use super::super::row_state::NONE;
use super::super::rows::Rows;
use super::super::slots::BLOCK_SLOTS;

use super::Graphs;
use super::graph::level_of;
use super::head::{Head, State};
use crate::codec::{DecodeError, Reader, Writer, open_section};
use crate::ids::{PartitionKey, SlotId};

/// Section tag of the links of a block of rows.
pub const TAG_GRAPH_BLOCK: u16 = 0x0202;
/// Section tag of the entry points of graphs.
pub const TAG_GRAPH_ENTRIES: u16 = 0x0203;
const VERSION: u16 = 1;

/// Entry points in one section.
const ENTRIES_PER_SECTION: usize = 4_096;

/// A part of the saved graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphSection {
    /// Entry points of the graphs from this one on.
    Entries(u32),
    /// Links of a block of rows.
    Links(u32),
}

impl Graphs {
    /// The sections that save the graphs, in the order in which they must be loaded.
    pub(in crate::index) fn sections(&self, rows: &Rows) -> Vec<GraphSection> {
        let saved = |head: &Head| head.state == State::Live && head.entry != NONE;
        let mut sections = Vec::new();
        for (chunk, heads) in self.heads.chunks(ENTRIES_PER_SECTION).enumerate() {
            if heads.iter().any(saved) {
                sections.push(GraphSection::Entries((chunk * ENTRIES_PER_SECTION) as u32));
            }
        }
        let mut from = 0;
        while let Some(row) = self.links.base.next_linked(from)
            && !sections.is_empty()
        {
            from = row + 1;
            if self.is_saved(rows, row) {
                sections.push(GraphSection::Links(row / BLOCK_SLOTS));
                from = (row / BLOCK_SLOTS + 1).saturating_mul(BLOCK_SLOTS);
            }
        }
        sections
    }

    /// Whether a linked row belongs to a graph that is saved, and its entry lives.
    fn is_saved(&self, rows: &Rows, row: u32) -> bool {
        let Some(slot) = rows.slots.get(SlotId(row)) else { return false };
        let list = rows.partitions.list_of(&rows.slots, slot.partition);
        let graph = list.and_then(|list| self.heads.get(list.graph()? as usize));
        graph.is_some_and(|head| head.state == State::Live)
    }

    /// One section of the graphs.
    pub(in crate::index) fn save(&self, rows: &Rows, section: GraphSection) -> Vec<u8> {
        match section {
            GraphSection::Entries(first) => self.save_entries(rows, first as usize),
            GraphSection::Links(block) => self.save_links(rows, block),
        }
    }

    fn save_entries(&self, rows: &Rows, first: usize) -> Vec<u8> {
        let mut out = Writer::section(TAG_GRAPH_ENTRIES, VERSION);
        out.u8(self.links.m() as u8);
        for head in self.heads.iter().skip(first).take(ENTRIES_PER_SECTION) {
            if head.state != State::Live || head.entry == NONE {
                continue;
            }
            let linked = rows.partitions.list(head.list).linked();
            let (Some(entry), Some(&row)) = (self.living_entry(rows, head), linked.first()) else {
                continue;
            };
            if let Some(slot) = rows.slots.get(SlotId(row)) {
                out.u64(slot.partition.0).u32(entry);
            }
        }
        out.finish()
    }

    /// The entry point, or if that is a tombstone the one that the graph would have without it.
    fn living_entry(&self, rows: &Rows, head: &Head) -> Option<u32> {
        let living = |row: u32| !rows.slots.is_tombstone(row);
        if living(head.entry) {
            return Some(head.entry);
        }
        let upper = &self.links.upper;
        for &ring in head.rings.iter().rev().filter(|&&ring| ring != NONE) {
            let mut at = ring;
            loop {
                if living(upper.row(at)) {
                    return Some(upper.row(at));
                }
                at = upper.next(at);
                if at == ring {
                    break;
                }
            }
        }
        rows.partitions.list(head.list).linked().first().copied()
    }

    fn save_links(&self, rows: &Rows, block: u32) -> Vec<u8> {
        let (links, first) = (&self.links, block * BLOCK_SLOTS);
        let mut out = Writer::section(TAG_GRAPH_BLOCK, VERSION);
        out.u32(block).u8(links.m() as u8);
        let end = first.saturating_add(BLOCK_SLOTS);
        let mut from = first;
        while let Some(row) = links.base.next_linked(from).filter(|&row| row < end) {
            from = row + 1;
            if !self.is_saved(rows, row) {
                continue;
            }
            out.u8((row - first) as u8);
            for level in 0..=links.level(row) {
                let living = |&other: &u32| !rows.slots.is_tombstone(other);
                let others = || links.of(row, level).iter().filter(living);
                out.u8(others().count() as u8);
                for other in others() {
                    out.u32(other);
                }
            }
        }
        out.finish()
    }

    /// Takes in one saved section, after all blocks of slots and before `finish_load`. After an error
    /// there are no graphs, and further sections need not be given.
    pub(in crate::index) fn load(
        &mut self,
        rows: &mut Rows,
        bytes: &[u8],
    ) -> Result<(), DecodeError> {
        let loaded = self.load_section(rows, bytes);
        if loaded.is_err() {
            self.drop_graphs(rows);
        }
        loaded
    }

    fn load_section(&mut self, rows: &mut Rows, bytes: &[u8]) -> Result<(), DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        match (tag, version) {
            (TAG_GRAPH_ENTRIES, VERSION) => {
                self.check_m(&mut from)?;
                while from.remaining() > 0 {
                    self.load_entry(rows, &mut from)?;
                }
            }
            (TAG_GRAPH_BLOCK, VERSION) => {
                let block = from.u32()?;
                self.check_m(&mut from)?;
                if u64::from(block) * u64::from(BLOCK_SLOTS) >= u64::from(rows.slots.end()) {
                    return Err(DecodeError("links of rows that are not there"));
                }
                while from.remaining() > 0 {
                    let row = block * BLOCK_SLOTS + u32::from(from.u8()?);
                    self.load_node(rows, row, &mut from)?;
                }
            }
            _ => return Err(DecodeError("not a section of a graph of a known version")),
        }
        from.finish()
    }

    fn check_m(&self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        if usize::from(from.u8()?) == self.links.m() {
            return Ok(());
        }
        Err(DecodeError("graph of another M"))
    }

    fn load_entry(&mut self, rows: &mut Rows, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        let (key, entry) = (PartitionKey(from.u64()?), from.u32()?);
        let slot = rows.slots.get(SlotId(entry)).ok_or(DecodeError("entry point of a graph"))?;
        if slot.partition != key || !slot.has_code() {
            return Err(DecodeError("entry point of another partition"));
        }
        let list = rows.partitions.list_number(&rows.slots, key);
        let list = list.ok_or(DecodeError("graph of a single row"))?;
        if rows.partitions.list(list).graph().is_some() {
            return Err(DecodeError("two graphs of one partition"));
        }
        let number = self.create(list);
        rows.partitions.set_graph(list, Some(number));
        self.head(number).entry = entry;
        Ok(())
    }

    fn load_node(
        &mut self,
        rows: &mut Rows,
        row: u32,
        from: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let slot = rows.slots.get(SlotId(row)).filter(|slot| slot.has_code());
        let slot = slot.ok_or(DecodeError("node without a vector"))?;
        let list = rows.partitions.list_number(&rows.slots, slot.partition);
        let list = list.ok_or(DecodeError("node of no graph"))?;
        let graph = rows.partitions.list(list).graph().ok_or(DecodeError("node of no graph"))?;
        let Self { links, heads, linked, .. } = self;
        if links.base.is_linked(row) {
            return Err(DecodeError("a node twice"));
        }
        let level = level_of(&slot.id, links.m());
        links.occupy(row, level, &mut heads[graph as usize].rings);
        rows.mark_linked(list, row);
        *linked += 1;
        for at in 0..=level {
            let count = usize::from(from.u8()?);
            if count > links.capacity(at) {
                return Err(DecodeError("more links than a node has room for"));
            }
            for _ in 0..count {
                let other = from.u32()?;
                if other == row || other >= rows.slots.end() || links.of(row, at).contains(other) {
                    return Err(DecodeError("link of a node"));
                }
                links.push(row, other, at);
            }
        }
        Ok(())
    }

    /// Checks what can be checked only when all is loaded. Returns whether the graphs are good; if not,
    /// they are thrown away.
    pub(in crate::index) fn finish_load(&mut self, rows: &mut Rows) -> bool {
        let good = self.loaded_heads_are_good() && self.loaded_links_are_pairs(rows);
        if good {
            for head in &mut self.heads {
                head.top = self.links.level(head.entry);
            }
        } else {
            self.drop_graphs(rows);
        }
        for number in 0..self.heads.len() as u32 {
            self.enqueue(number);
        }
        self.review_sizes(rows);
        good
    }

    fn loaded_heads_are_good(&self) -> bool {
        self.heads.iter().all(|head| {
            let top = head.rings.iter().take_while(|&&ring| ring != NONE).count();
            let links = &self.links;
            links.base.is_linked(head.entry) && links.level(head.entry) == top
        })
    }

    /// Every link to a higher row has its counterpart; that there are as many links to lower rows then
    /// proves it of those, since no row lists another twice. Links of both ways are never compared one
    /// by one: loading must not take longer than the entries do.
    fn loaded_links_are_pairs(&self, rows: &Rows) -> bool {
        let links = &self.links;
        let (mut upwards, mut downwards) = ([0_u64; 16], [0_u64; 16]);
        let mut next = links.base.next_linked(0);
        while let Some(row) = next {
            next = links.base.next_linked(row + 1);
            if let Some(ahead) = next {
                for other in links.base.links(ahead).iter().filter(|&other| other > ahead) {
                    links.base.prefetch(other);
                }
            }
            for level in 0..=links.level(row) {
                for other in links.of(row, level).iter() {
                    if other < row {
                        downwards[level] += 1;
                        continue;
                    }
                    upwards[level] += 1;
                    if !links.of(other, level).contains(row) || !self.share_graph(rows, row, other)
                    {
                        return false;
                    }
                }
            }
        }
        upwards == downwards
    }

    fn share_graph(&self, rows: &Rows, a: u32, b: u32) -> bool {
        let partition = |row| rows.slots.get(SlotId(row)).map(|slot| slot.partition);
        // Nodes of no graph are refused before, so with one graph there is nothing to compare.
        self.heads.len() == 1 || partition(a) == partition(b)
    }
}
