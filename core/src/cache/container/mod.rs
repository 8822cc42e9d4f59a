//! One cache: identity, settings, index, store counter, statistics.
//!
//! Owns: identity, names of entry keys, limits; `head` has the bytes, `victims` the choice of what a limit removes,
//! `carry_out` the walk after an invalidation, `doubt` the check of rows against keys. Main thread only.

mod carry_out;
mod doubt;
mod head;
#[cfg(test)]
mod tests;
mod victims;

pub use head::TAG_HEAD;

use carry_out::CarryOut;
use doubt::Doubt;
use victims::Victims;

use crate::account::Account;
use crate::allocation::allocated_bytes;
use crate::cache::epochs::{Epochs, Extent, Severity};
use crate::cache::maxerror::{Audit, TicketSecret};
use crate::cache::near_misses::NearMisses;
use crate::cache::stats::Hot;
use crate::cache::{EntryView, Kind, Lifetime, MissReason, Settings, Stats};
use crate::cluster::{derived_prefix, hash_tag};
use crate::error::Result;
use crate::ids::{ContainerUid, EntryId, Seq, SlotId, UnixMs};
use crate::index::Index;
use crate::limits;
use smallvec::SmallVec;

/// Name of an entry key; without an allocation where the cache's name has up to 44 bytes.
pub type EntryKey = SmallVec<[u8; 96]>;

/// A cache.
#[derive(Debug)]
pub struct Cache {
    uid: ContainerUid,
    /// What every entry key begins with.
    prefix: Box<[u8]>,
    next_seq: u64,
    victims: Victims,
    /// Settings.
    pub settings: Settings,
    /// Its index.
    pub index: Index,
    /// Its counters.
    pub stats: Stats,
    /// Lookups that came near and were not served, where they are to be remembered.
    pub near_misses: NearMisses,
    /// What MAXERROR has learnt; there as long as that is on.
    audit: Option<Box<Audit>>,
    epochs: Epochs,
    carry_out: CarryOut,
    /// Entries are here that the index does not know yet.
    is_filling: bool,
    doubt: Doubt,
}

/// What all containers of a kind together have and did.
#[derive(Debug, Default)]
pub struct KindTotals {
    /// Entries, hidden ones, bytes of their keys, bytes of indexes, containers.
    pub held: Account<5>,
    /// What they did.
    pub did: Lifetime,
}

impl KindTotals {
    /// All zero.
    pub const fn new() -> Self {
        Self { held: Account::new(), did: Lifetime::new() }
    }
}

impl Cache {
    /// A new cache under a key name; refuses names whose entry keys could not share its hash slot. `secret` signs
    /// its tickets, where it issues any.
    pub fn new(
        name: &[u8],
        uid: ContainerUid,
        settings: Settings,
        secret: TicketSecret,
    ) -> Result<Self> {
        let prefix = entry_prefix(name, uid)?.into();
        let mut cache = Self::empty(uid, prefix, 1, settings);
        if cache.settings.max_error.is_on() {
            let Settings { max_error, threshold, .. } = cache.settings;
            cache.audit = Some(Box::new(Audit::new(max_error, threshold, secret, 0)));
        }
        Ok(cache)
    }

    fn empty(uid: ContainerUid, prefix: Box<[u8]>, next_seq: u64, settings: Settings) -> Self {
        let (mut index, stats) = (Index::new(), Stats::default());
        index.set_graph_settings(settings.graph);
        index.set_words(settings.words);
        let (epochs, carry_out, is_filling) = (Epochs::default(), CarryOut::default(), false);
        Self {
            uid,
            prefix,
            next_seq,
            victims: Victims::default(),
            settings,
            index,
            stats,
            near_misses: NearMisses::default(),
            audit: None,
            epochs,
            carry_out,
            is_filling,
            doubt: Doubt::none(next_seq),
        }
    }

    /// Compares its rows with the entries that a walk over all keys met; see `doubt.rs`.
    pub fn count_against(&mut self, met: u64) {
        self.doubt.count_against(met, self.index.totals().entries, self.next_seq);
    }

    /// A walk over all rows begins, which opens the keys of those it is unsure of.
    pub fn begin_walk(&mut self) {
        self.doubt.begin_walk();
    }

    /// Whether that walk opens the key of every row.
    pub fn doubts_all(&self) -> bool {
        self.doubt.is_of_all()
    }

    /// That walk is over.
    pub fn end_walk(&mut self) {
        self.doubt.end_walk();
    }

    /// A container of which only entries are known so far, or only entries any more: it indexes them for the one
    /// that is to come (`take_entries_of`). `key` is that of one of them. `None` where that is not the name
    /// of an entry of the uid it tells.
    pub fn awaited(key: &[u8], entry: &EntryView<'_>) -> Option<Self> {
        let (uid, id) = (entry.uid(), entry.id_text());
        let prefix = key.strip_suffix(&*id)?;
        let tail = format!(":{uid}:");
        let named = prefix.strip_suffix(tail.as_bytes()).is_some_and(|name| !name.is_empty());
        if !named || hash_tag(prefix).is_none() {
            return None;
        }
        let kind = if entry.is_embedding() { Kind::Embeddings } else { Kind::Answers };
        let settings = Settings { kind, ..Settings::default() };
        Some(Self::empty(uid, prefix.into(), 1, settings))
    }

    /// Takes over the index of a container of the same entries, where this one has none: what was indexed
    /// before its key came, or before its key went. Returns whether it did.
    pub fn take_entries_of(&mut self, other: &mut Self) -> bool {
        let searched = self.settings.kind.is_searched() == other.settings.kind.is_searched();
        let dims = [self.settings.dim, other.settings.dim];
        let dims_agree = dims[0].is_none() || dims[1].is_none() || dims[0] == dims[1];
        // Codes of other dimensions are made anew, of one entry after the other.
        let codes_agree = self.settings.matryoshka == other.settings.matryoshka;
        let dims_agree = dims_agree && (codes_agree || other.index.dim().is_none());
        let fits = self.index.totals().entries == 0
            && self.uid == other.uid
            && self.prefix == other.prefix
            && searched
            && dims_agree;
        if !fits {
            return false;
        }
        self.observe_seq(Seq(other.next_seq.saturating_sub(1)));
        let dim = other.settings.dim.filter(|&dim| self.settings.takes_dim(dim));
        self.settings.dim = self.settings.dim.or(dim);
        // What was not met yet is unknown to its next life too.
        self.is_filling |= other.is_filling;
        other.index.close_account();
        std::mem::swap(&mut self.index, &mut other.index);
        if self.index.graph_settings() != self.settings.graph {
            self.index.set_graph_settings(self.settings.graph);
        }
        self.index.set_words(self.settings.words);
        self.bound_tags();
        // What was invalidated while it was elsewhere is to be found by another walk.
        self.epochs.carry_out_again();
        self.carry_out.restart();
        true
    }

    /// Parts with its index: its key moves to another database, where none of its entries is. What it returns waits for
    /// it to come back, with the entries that stay (`take_entries_of`).
    pub fn leave_entries(&mut self) -> Self {
        let settings = self.settings.clone();
        let mut left = Self::empty(self.uid, self.prefix.clone(), self.next_seq, settings);
        self.index.close_account();
        std::mem::swap(&mut left.index, &mut self.index);
        std::mem::swap(&mut left.doubt, &mut self.doubt);
        left.is_filling = std::mem::take(&mut self.is_filling);
        self.victims = Victims::default();
        self.carry_out.restart();
        left
    }

    /// Whether entries are here that the index does not know yet: what a search, a walk or a count of it answers is
    /// not whole.
    pub fn is_filling(&self) -> bool {
        self.is_filling
    }

    /// Why an entry is not found whose key is named by its id.
    pub fn miss_of_key(&self) -> MissReason {
        if self.is_filling { MissReason::Filling } else { MissReason::Empty }
    }

    /// Notes whether it is.
    pub fn set_filling(&mut self, is_filling: bool) {
        self.is_filling = is_filling;
    }

    /// Counts with all others of its kind from here on.
    pub fn count_with(&mut self, totals: &'static KindTotals) {
        self.index.open_account(&totals.held);
        self.stats.count_with(&totals.did);
    }

    /// What it has counts no more; what it did stays counted.
    pub fn count_alone(&mut self) {
        self.index.close_account();
    }

    /// Changes the settings, which passed their check. `secret` signs tickets, where there were none. Returns whether
    /// an epoch of MAXERROR began, of which replicas are to be told.
    pub fn change_settings(&mut self, settings: Settings, secret: TicketSecret) -> bool {
        self.index.set_graph_settings(settings.graph);
        self.near_misses.keep(settings.near_misses);
        let rules = |settings: &Settings| settings.rules(settings.guard);
        let holds = rules(&settings) == rules(&self.settings);
        self.settings = settings;
        let Settings { max_error, threshold, .. } = self.settings;
        let epoch = self.audit.as_ref().map(|audit| audit.evidence().epoch());
        match &mut self.audit {
            _ if !max_error.is_on() => self.audit = None,
            Some(audit) => audit.change(max_error, threshold, holds),
            None => self.audit = Some(Box::new(Audit::new(max_error, threshold, secret, 0))),
        }
        let now = self.audit.as_ref().map(|audit| audit.evidence().epoch());
        now.is_some() && now != epoch
    }

    /// What MAXERROR has learnt, where that is on.
    pub fn audit(&self) -> Option<&Audit> {
        self.audit.as_deref()
    }

    /// The same, to change it.
    pub fn audit_mut(&mut self) -> Option<&mut Audit> {
        self.audit.as_deref_mut()
    }

    /// Identity of this life of the cache.
    pub fn uid(&self) -> ContainerUid {
        self.uid
    }

    /// Whether an entry is of its kind: for entries of unknown origin.
    pub fn is_of_kind(&self, entry: &EntryView<'_>) -> bool {
        entry.is_embedding() == (self.settings.kind == Kind::Embeddings)
    }

    /// Whether an entry is of its kind and its vector of its dimension: for entries of unknown origin.
    pub fn takes(&self, entry: &EntryView<'_>) -> bool {
        let dim = entry.vector_dim();
        let fits = dim == 0 || self.settings.takes_dim(dim);
        fits && self.is_of_kind(entry)
    }

    /// Gives it another identity and an empty index: a second copy of a cache must not claim the
    /// entries of the first. A key name that cannot prefix entry keys leaves the former name in them.
    pub fn become_other(&mut self, name: &[u8], uid: ContainerUid) {
        let former = format!(":{}:", self.uid).len();
        let former = self.prefix[..self.prefix.len() - former].to_vec();
        let prefix = entry_prefix(name, uid).or_else(|_| entry_prefix(&former, uid));
        self.prefix = prefix.map_or_else(|_| self.prefix.clone(), Into::into);
        self.uid = uid;
        self.epochs = Epochs::default();
        self.index.clear();
        if let Some(audit) = &mut self.audit {
            audit.begin_epoch();
        }
    }

    /// Whether its entries are named after a key of this name, as they are unless it was renamed.
    pub fn is_named_after(&self, name: &[u8]) -> bool {
        entry_prefix(name, self.uid).is_ok_and(|prefix| *prefix == *self.prefix)
    }

    /// What every entry key of this cache begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The id of the entry with this digest as a caller writes it.
    pub fn id_text(&self, id: &EntryId) -> Vec<u8> {
        self.index.name_of(id).map_or_else(|| id.hex().to_vec(), <[u8]>::to_vec)
    }

    /// The key of the entry with this digest: named by the caller's id where one was given.
    pub fn entry_key(&self, id: &EntryId) -> EntryKey {
        match self.index.name_of(id) {
            Some(name) => self.named_key(name),
            None => self.named_key(&id.hex()),
        }
    }

    /// The key of the entry in a slot, if the one stored as `seq` is in it.
    pub fn key_at(&self, slot: SlotId, seq: Seq) -> Option<EntryKey> {
        self.index.slot_of(slot, seq).map(|found| self.entry_key(&found.id))
    }

    /// The key of the entry with this id as a caller writes it.
    pub fn named_key(&self, id: &[u8]) -> EntryKey {
        let mut key = EntryKey::with_capacity(self.prefix.len() + id.len());
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(id);
        key
    }

    /// The next place in the store order; taken when an entry of that place is indexed.
    pub fn next_seq(&self) -> Seq {
        Seq(self.next_seq)
    }

    /// The place that is next once so many entries more were stored: for those that one command stores.
    pub fn seq_after(&self, more: u64) -> Seq {
        Seq(self.next_seq.saturating_add(more).min(limits::SEQ_MAX))
    }

    /// Notes that an entry has this place, whoever gave it out. Past the last place, which only a
    /// forged entry comes near, all later entries share it: a proof of a hit then rests on the rest.
    pub fn observe_seq(&mut self, seq: Seq) {
        self.next_seq = self.next_seq.max(seq.0.saturating_add(1)).min(limits::SEQ_MAX);
    }

    /// Memory behind the cache itself, entries not counted.
    pub fn heap_bytes(&self) -> usize {
        allocated_bytes(self.prefix.len())
            + allocated_bytes(self.settings.model.len())
            + allocated_bytes(self.settings.loader.len())
            + allocated_bytes(self.settings.sink.len())
            + self.index.bytes()
            + self.stats.bytes()
            + self.epochs.bytes()
            + self.near_misses.memory_bytes()
            + self.audit.as_ref().map_or(0, |audit| audit.memory_bytes())
    }

    /// Counts a hit on an entry, at the minute `now_min` of its clock. Returns how many it has had.
    pub fn note_hit(&mut self, entry: &EntryView<'_>, now_min: u16) -> u32 {
        let (slot, seq) = (entry.slot(), entry.seq());
        let Some(hits) = self.index.note_hit(slot, seq, now_min) else { return 0 };
        self.stats.note_hot(Hot { slot, seq, hits });
        hits
    }

    /// What was invalidated.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Invalidates what is stored so far, and returns the bound: a place of the store order that no
    /// entry takes. Refused while too many earlier ones are being carried out.
    pub fn invalidate(&mut self, extent: Extent<'_>, severity: Severity) -> Result<Seq> {
        self.epochs.make_room(extent, false)?;
        let bound = self.burn_seq();
        self.raise_epoch(extent, severity, bound);
        Ok(bound)
    }

    /// Takes a place of the store order away, so that what was stored before it can be told from what is
    /// stored after it.
    pub fn burn_seq(&mut self) -> Seq {
        let bound = self.next_seq();
        self.observe_seq(bound);
        bound
    }

    /// Does as the primary did.
    pub fn obey_epoch(&mut self, extent: Extent<'_>, severity: Severity, bound: Seq) -> Result<()> {
        self.epochs.make_room(extent, true)?;
        self.observe_seq(bound);
        self.raise_epoch(extent, severity, bound);
        Ok(())
    }

    fn raise_epoch(&mut self, extent: Extent<'_>, severity: Severity, bound: Seq) {
        self.epochs.raise(extent, severity, bound);
        if let (Extent::Tag(tag), Severity::Gone) = (extent, severity) {
            self.index.set_tag_bound(tag, bound);
        }
    }

    /// Tells the index which tags are invalidated, after it or the bounds were loaded.
    pub fn bound_tags(&mut self) {
        for (tag, bound) in self.epochs.gone_tags() {
            self.index.set_tag_bound(tag, bound);
        }
    }

    /// Whether an entry whose key is open may be served, and if so whether it is stale. The deadline and
    /// the time are asked for only where they matter: of an open key the deadline is not past, so only
    /// what is stale before it has to be held against the clock.
    pub fn staleness(
        &self,
        entry: &EntryView<'_>,
        expire_at: impl FnOnce() -> UnixMs,
        now: impl FnOnce() -> UnixMs,
    ) -> Option<bool> {
        let is_old = || entry.grace_s() > 0 && entry.fresh_until(expire_at()).is_past(now());
        match self.epochs.standing(entry) {
            Some(Severity::Gone) => None,
            Some(Severity::Stale) => Some(true),
            None => Some(entry.is_marked_stale() || is_old()),
        }
    }

    /// An entry was indexed. One that was invalidated before, and came back, is to be found by another
    /// walk.
    pub fn note_arrival(&mut self, entry: &EntryView<'_>) {
        if self.epochs.standing(entry).is_some() {
            self.epochs.carry_out_again();
            self.carry_out.restart();
        }
    }

    /// Whether invalidations wait to be carried out.
    pub fn has_invalidated(&self) -> bool {
        self.epochs.pending().is_some()
    }

    /// Walks on to the next entry that an invalidation may concern; `None` when it passed as many slots
    /// as are passed at once, or when all is carried out (see `has_invalidated`).
    pub fn next_invalidated(&mut self) -> Option<(SlotId, Seq)> {
        self.carry_out.next(&self.index, &mut self.epochs)
    }

    /// Memory of the cache and its entries together.
    pub fn total_bytes(&self) -> u64 {
        self.index.totals().entry_bytes + self.index.bytes() as u64
    }

    /// Whether a limit of its own is passed.
    pub fn is_over_limit(&self) -> bool {
        let (settings, totals) = (&self.settings, self.index.totals());
        (settings.max_entries > 0 && totals.entries > settings.max_entries)
            || (settings.max_memory_bytes > 0 && self.total_bytes() > settings.max_memory_bytes)
    }

    /// The entry to remove when a limit is passed, never `spare`: one that is expired, if a short walk
    /// over the slots meets one, else the least worth keeping among a few picked at random. `None`
    /// when there is no other.
    pub fn pick_victim(
        &mut self,
        spare: SlotId,
        now: UnixMs,
        random: impl FnMut() -> u64,
    ) -> Option<(SlotId, Seq)> {
        self.victims.pick(&self.index, spare, now, random)
    }
}

/// `{name}:<uid>:`, or `name:<uid>:` where the name carries a hash tag of its own.
fn entry_prefix(name: &[u8], uid: ContainerUid) -> Result<Vec<u8>> {
    derived_prefix(name, format!(":{uid}:").as_bytes(), "cache")
}
