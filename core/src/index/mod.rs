//! The index of one container: which entries exist, where their vectors' codes are, how to find the
//! nearest. A hint, never the truth: the keyspace decides whether an entry still is.
//!
//! Owns: that all parts change together when an entry comes or goes, and explicit names. `rows` has what an entry takes
//! in the index; graphs and searches are given it (`&Rows`) and know no `Index`. `upkeep`, `find`, `persist` and `words`
//! stand above and hand on to the parts. Called by the main thread only, which is also the only one that changes it; a
//! search may take along what it reads and run elsewhere (`task`). `insert`, `remove` and `search` never call out, so no
//! borrow of an index is alive while the server might delete a key.

mod check;
mod expiry_walk;
mod filter_cache;
mod find;
mod hnsw;
mod partitions;
mod persist;
mod request;
mod row_state;
mod rows;
mod scan;
mod scopes;
mod search;
mod slots;
mod tags;
mod task;
mod upkeep;
mod words;

use crate::account::{Account, Holding};
use crate::allocation::allocated_bytes;
use crate::evict::AgedFrequency;
use crate::filter::{Asked, Filter, FilterRecord};
use crate::ids::{EntryId, PartitionKey, ScopeKey, Seq, SlotId, UnixMs};
use crate::listing::Listing;
use crate::vector::fine::Plane;
use crate::words::WordIndex;
pub use expiry_walk::DueStep;
use expiry_walk::DueWalk;
use filter_cache::FilterCache;
use hashbrown::{DefaultHashBuilder, HashMap};
use hnsw::Graphs;
pub use hnsw::{
    EF_DEFAULT, EFC_DEFAULT, FLAT_MAX_ROWS, GraphInfo, GraphSection, GraphSettings, IndexMode,
    M_DEFAULT, Progress, TAG_GRAPH_BLOCK, TAG_GRAPH_ENTRIES, TAIL_MAX_ROWS, TOMBSTONES_MAX, Work,
};
pub use persist::{SlotBlock, TAG_SLOT_BLOCK};
pub use request::{Candidate, Gate, Refusals, SearchMode, SearchRequest, SearchResult};
use rows::Rows;
pub use slots::{BLOCK_SLOTS, NewSlot, Slot};
use std::hash::BuildHasher;
pub use task::{SearchTask, Searched, TaskScratch};

/// Counts kept so that `INFO`, limits and invariants cost nothing to ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries known.
    pub entries: u64,
    /// Of these, how many have a vector.
    pub vectors: u64,
    /// Of these, how many are hidden until settled.
    pub hidden: u64,
    /// Memory of their keys.
    pub entry_bytes: u64,
}

/// Index of one container: int8 codes of vectors, searched by partition (scope and context).
///
/// ```
/// use llmcache_core::ids::{EntryId, PartitionKey, Seq, UnixMs};
/// use llmcache_core::index::{Index, NewSlot, SearchRequest};
/// use llmcache_core::vector::Query;
///
/// let mut index = Index::new();
/// let partition = PartitionKey::of(b"", b"");
/// for (seq, (prompt, vector)) in [("refund", [0.9, 0.4]), ("parcel", [0.1, 0.9])].iter().enumerate() {
///     let vector = Query::new(vector).unwrap();
///     index.insert(NewSlot {
///         id: EntryId::of(b"", b"", prompt.as_bytes()),
///         seq: Seq(seq as u64 + 1),
///         partition,
///         expire_at: UnixMs::NEVER,
///         bytes: 500,
///         worth: 1,
///         record: None,
///         name: None,
///         code: Some((vector.code(), vector.scale())),
///     });
/// }
/// let query = Query::new(&[0.8, 0.5]).unwrap();
/// let found = index.search(&SearchRequest {
///     code: query.code(),
///     scale: query.scale(),
///     rest: &query.rest(),
///     partition,
///     limit: 1,
///     ef: None,
///     now: UnixMs(0),
///     min_seq: Seq(0),
///     filter: None,
///     counts_refused: false,
/// });
/// assert_eq!(Some(found.candidates[0].slot), index.row_of(&EntryId::of(b"", b"", b"refund")));
/// ```
#[derive(Debug, Default)]
pub struct Index {
    rows: Rows,
    graphs: Graphs,
    /// The row of each entry: one, whatever came in which order.
    by_id: Listing,
    hasher: DefaultHashBuilder,
    names: HashMap<EntryId, Box<[u8]>>,
    name_bytes: usize,
    words: Option<Box<WordIndex>>,
    filter_cache: FilterCache,
    asked: Asked,
    due: DueWalk,
    totals: Totals,
    holding: Holding<5>,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry and returns its slot; a row that its id had before is gone. The caller
    /// checked that the code has the index's dimension (`dim`), which the first code sets. Where its
    /// graph is behind, links or repairs a node or two, so that no row of inserts outruns the graph.
    pub fn insert(&mut self, new: NewSlot<'_>) -> SlotId {
        let partition = new.partition;
        let id = self.insert_unlinked(new);
        self.graphs.work_off(&mut self.rows, partition);
        id
    }

    /// The same, but leaves all linking to `work`: for a caller that lets whoever stores wait while
    /// the graph `is_behind`.
    pub fn insert_unlinked(&mut self, new: NewSlot<'_>) -> SlotId {
        self.remove_id(&new.id);
        let id = self.rows.slots.allocate();
        if let Some(list) = self.fill(id, new) {
            self.graphs.note_inserted(&mut self.rows, list);
        }
        id
    }

    /// Removes the row of an id, if it has one: it is about to get another.
    fn remove_id(&mut self, id: &EntryId) {
        if let Some(slot) = self.row_of(id)
            && let Some(seq) = self.rows.slots.get(slot).map(|found| found.seq())
        {
            self.take_out(slot, seq);
        }
    }

    /// Where an id is listed.
    fn key_of(&self, id: &EntryId) -> u32 {
        (self.hasher.hash_one(id) >> 32) as u32
    }

    /// The row of an id.
    pub fn row_of(&self, id: &EntryId) -> Option<SlotId> {
        self.by_id.find(self.key_of(id), |row| self.rows.slots.is_of(row, id)).map(SlotId)
    }

    /// Entries from a place of the listing on: how pages of SCAN walk. The place of an entry is that of its id,
    /// so that one which is there throughout is listed, replaced or not. Two may share a place.
    pub fn listed_from(&self, place: u32) -> impl Iterator<Item = (u32, SlotId, Slot<'_>)> {
        let rows = self.by_id.from(place);
        rows.filter_map(|(place, row)| {
            Some((place, SlotId(row), self.rows.slots.get(SlotId(row))?))
        })
    }

    /// Fills a slot; answers the list of its partition, if there is one.
    fn fill(&mut self, id: SlotId, new: NewSlot<'_>) -> Option<u32> {
        if let Some((code, _)) = new.code {
            self.rows.set_code(id, code);
            self.totals.vectors += 1;
        }
        if let Some(name) = new.name {
            self.name_bytes += allocated_bytes(name.len());
            if let Some(former) = self.names.insert(new.id, name.into()) {
                self.name_bytes -= allocated_bytes(former.len());
            }
        }
        self.totals.entries += 1;
        self.totals.entry_bytes += u64::from(new.bytes);
        self.due.note(new.expire_at);
        self.rows.last_seq = self.rows.last_seq.max(new.seq);
        self.rows.scopes.add(new.partition.scope());
        self.by_id.insert(self.key_of(&new.id), id.0);
        let has_code = new.code.is_some();
        self.filter_cache.came(id.0, has_code, new.record.as_ref());
        self.rows.slots.occupy(id, new);
        self.tell();
        if has_code { self.rows.join_partition(id) } else { None }
    }

    /// Removes the entry in `slot` if it still is the one stored as `seq`. Constant time, allocates
    /// nothing: this runs where the server deletes a key. Returns whether something was removed.
    pub fn remove(&mut self, slot: SlotId, seq: Seq) -> bool {
        let removed = self.take_out(slot, seq);
        self.clear_if_empty();
        removed
    }

    fn take_out(&mut self, slot: SlotId, seq: Seq) -> bool {
        let Some(found) = self.slot_of(slot, seq) else { return false };
        let (id, bytes, scope) = (found.id, found.bytes, found.partition.scope());
        let (has_code, named, hidden) = (found.has_code(), found.is_named(), found.is_hidden());
        if found.is_tagged() {
            self.rows.tags.clear(slot.0);
        }
        if let Some(words) = &mut self.words {
            words.mark_removed(slot.0);
        }
        self.by_id.remove(self.key_of(&id), slot.0);
        self.rows.scopes.take(scope);
        self.filter_cache.went(slot.0);
        let mut node = false;
        if has_code {
            let taken = self.rows.leave_partition(slot);
            self.totals.vectors -= 1;
            if let Some(graph) = taken.graph {
                node = taken.linked;
                if node {
                    self.graphs.bury(&mut self.rows, slot, graph);
                }
                self.graphs.note_removed(graph, taken.abandoned, taken.len);
            }
        }
        if named && let Some(name) = self.names.remove(&id) {
            self.name_bytes -= allocated_bytes(name.len());
        }
        self.totals.entries -= 1;
        self.totals.hidden -= u64::from(hidden);
        self.totals.entry_bytes -= u64::from(bytes);
        if !node {
            self.rows.release(slot);
        }
        self.tell();
        true
    }

    /// Notes the fine plane of an entry just inserted with a code: what rounding left of its vector.
    pub fn set_plane(&mut self, slot: SlotId, plane: Plane<'_>) {
        let fits = self.dim().is_some_and(|dim| plane.is_valid(dim as usize));
        if fits && self.rows.slots.get(slot).is_some_and(|found| found.has_code()) {
            self.rows.set_plane(slot, plane);
        }
    }

    /// Notes the tags of an entry just inserted.
    pub fn set_tags<'a>(&mut self, slot: SlotId, tags: impl Iterator<Item = &'a [u8]>) {
        let mut tags = tags.peekable();
        if tags.peek().is_some() && self.rows.slots.get(slot).is_some() {
            self.rows.slots.set_tagged(slot.0);
            self.rows.tags.set(slot.0, tags);
        }
    }

    /// The tags of the entry in a slot.
    pub fn tags_of(&self, slot: SlotId) -> impl Iterator<Item = &[u8]> {
        self.rows.tags.of(slot.0)
    }

    /// How many entries carry a tag.
    pub fn tag_count(&self, tag: &[u8]) -> u64 {
        self.rows.tags.count(tag)
    }

    /// How many entries a scope has, whatever their context.
    pub fn scope_count(&self, scope: ScopeKey) -> u64 {
        self.rows.scopes.count(scope)
    }

    /// Has searches pass by what carries a tag and was stored before `bound`.
    pub fn set_tag_bound(&mut self, tag: &[u8], bound: Seq) {
        self.rows.tags.set_bound(tag, bound);
    }

    /// The filter record of an entry that comes in with this META: of what does not fit, what filters asked for.
    pub fn record_of(
        &self,
        meta: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<FilterRecord> {
        FilterRecord::from_meta(meta, &self.asked.names())
    }

    /// Has records to come hold what this filter asks for, because some do not.
    pub fn note_asked(&mut self, filter: &Filter) {
        self.asked.note(filter);
    }

    /// Has the record of an entry, whose META this is, answer what a filter asks for, so that it is not opened
    /// for it again.
    pub fn widen_record(
        &mut self,
        slot: SlotId,
        seq: Seq,
        meta: &serde_json::Map<String, serde_json::Value>,
        filter: &Filter,
    ) {
        let Some(found) = self.slot_of(slot, seq) else { return };
        let (has_code, record) =
            (found.has_code(), FilterRecord::widened(found.record, meta, filter.heads()));
        self.filter_cache.came(slot.0, has_code, record.as_ref());
        self.rows.slots.set_record(slot.0, record);
    }

    /// The slot, if an entry is in it.
    pub fn slot(&self, slot: SlotId) -> Option<Slot<'_>> {
        self.rows.slots.get(slot)
    }

    /// The slot, if the entry stored as `seq` is in it.
    pub fn slot_of(&self, slot: SlotId, seq: Seq) -> Option<Slot<'_>> {
        self.rows.slots.get(slot).filter(|found| found.seq() == seq)
    }

    /// The first occupied slot at or after `from`: how slow sweeps walk. An entry that is replaced may move to
    /// a slot that was passed.
    pub fn next_occupied(&self, from: u32) -> Option<(SlotId, Slot<'_>)> {
        self.rows.slots.next_occupied(from)
    }

    /// One past the highest slot ever in use.
    pub fn slot_end(&self) -> u32 {
        self.rows.slots.end()
    }

    /// The explicit name of a named entry.
    pub fn name_of(&self, id: &EntryId) -> Option<&[u8]> {
        self.names.get(id).map(AsRef::as_ref)
    }

    /// The int8 code of a slot and the scale that gives it unit length.
    pub fn code(&self, slot: SlotId) -> Option<(&[i8], f32)> {
        self.rows.code(slot)
    }

    /// Dimension of the codes, once there is one.
    pub fn dim(&self) -> Option<u32> {
        self.rows.dim()
    }

    /// Entries with a vector in a partition.
    pub fn partition_len(&self, partition: PartitionKey) -> usize {
        self.rows.of_partition(partition).len()
    }

    /// Partitions that hold a vector.
    pub fn partition_count(&self) -> usize {
        self.rows.partitions.len()
    }

    /// Whether the entry in a slot is invalidated by one of its tags.
    pub fn is_gone_by_tag(&self, id: SlotId, slot: &Slot<'_>) -> bool {
        self.rows.is_gone_by_tag(id, slot)
    }

    /// Moves an entry's deadline.
    pub fn set_expiry(&mut self, slot: SlotId, seq: Seq, expire_at: UnixMs) {
        if self.slot_of(slot, seq).is_some() {
            self.rows.slots.set_expire_at(slot.0, expire_at);
            self.due.note(expire_at);
        }
    }

    /// Counts a hit on an entry, at the minute `now_min` of its clock.
    /// Returns how many it has had.
    pub fn note_hit(&mut self, slot: SlotId, seq: Seq, now_min: u16) -> Option<u32> {
        self.slot_of(slot, seq)?;
        Some(self.rows.slots.note_hit(slot.0, now_min))
    }

    /// Notes the hits that an entry had elsewhere, and how often it was hit there lately.
    pub fn bring_hits(&mut self, slot: SlotId, hits: u32, frequency: AgedFrequency) {
        if self.slot(slot).is_some() {
            self.rows.slots.bring_hits(slot.0, hits, frequency);
        }
    }

    /// Hides a slot whose key could not be opened, until it is settled whether the entry is gone or
    /// only elsewhere for a while (its hash slot is migrating).
    pub fn hide(&mut self, slot: SlotId, seq: Seq) {
        if self.slot_of(slot, seq).is_some_and(|found| !found.is_hidden()) {
            self.rows.slots.set_hidden(slot.0, true);
            self.totals.hidden += 1;
            self.tell();
        }
    }

    /// Shows a hidden slot again: its entry was seen.
    pub fn unhide(&mut self, slot: SlotId, seq: Seq) {
        if self.slot_of(slot, seq).is_some_and(|found| found.is_hidden()) {
            self.rows.slots.set_hidden(slot.0, false);
            self.totals.hidden -= 1;
            self.tell();
        }
    }

    /// Counts.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Memory held by the index itself.
    pub fn bytes(&self) -> usize {
        let names = self.names.allocation_size() + self.name_bytes;
        self.rows.bytes()
            + self.graphs.bytes()
            + self.filter_cache.bytes()
            + self.by_id.bytes()
            + self.words.as_ref().map_or(0, |words| words.bytes())
            + names
    }

    /// Counts what it has with an account: entries, hidden ones, bytes of their keys, bytes of indexes, indexes.
    pub fn open_account(&mut self, account: &'static Account<5>) {
        self.holding.open(account);
        self.tell();
        self.tell_bytes();
    }

    /// Counts with no account any more.
    pub fn close_account(&mut self) {
        self.holding.close();
    }

    fn tell(&mut self) {
        let Totals { entries, hidden, entry_bytes, .. } = self.totals;
        self.holding.tell([entries, hidden, entry_bytes, self.holding.told()[3], 1]);
    }

    /// Tells the account the index's own memory, which takes a walk over its blocks to know.
    pub fn tell_bytes(&mut self) {
        self.holding.tell_one(3, self.bytes() as u64);
    }

    /// Gives back what an empty index still holds: directories and tables keep their room while anything
    /// is in them. Blocks of tombstones are freed by `work` before, one after the other.
    fn clear_if_empty(&mut self) {
        if self.totals.entries == 0 && !self.graphs.has_tombstones() {
            self.clear();
        }
    }

    /// Forgets every entry and gives the memory back; settings stay.
    pub fn clear(&mut self) {
        let graphs = Graphs::new(self.graphs.settings);
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let holding = std::mem::take(&mut self.holding);
        let language = self.words.take().map(|words| words.analyser().language());
        let words = language.map(|language| Box::new(WordIndex::new(language)));
        *self = Self { rows, graphs, holding, words, ..Self::default() };
        self.tell();
    }
}
