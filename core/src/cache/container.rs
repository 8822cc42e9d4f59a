//! One cache: identity, settings, index, store counter, statistics.
//!
//! Owns: how entry keys are named, when a limit is passed and who is to go, the head section that
//! RDB and the create command share. Main thread only; `save_head` also in the forked child.

use super::epochs::{Epochs, Extent, Severity};
use super::maxerror::{Audit, TicketSecret};
use super::near_misses::NearMisses;
use super::stats::Hot;
use super::{EntryView, Kind, Lifetime, MissReason, Settings, Stats};
use crate::account::Account;
use crate::allocation::allocated_bytes;
use crate::cluster::{derived_prefix, hash_tag};
use crate::codec::{DecodeError, Writer, open_section};
use crate::error::Result;
use crate::evict::{VICTIM_SAMPLES, keep_value, minute};
use crate::ids::{ContainerUid, EntryId, Seq, SlotId, UnixMs};
use crate::index::{Index, Slot};
use crate::limits;
use smallvec::SmallVec;

/// Section tag of a container's head.
pub const TAG_HEAD: u16 = 0x0101;
/// Version of a head whose settings are those of the first release.
const VERSION: u16 = 3;
/// Version of a head that has settings beyond those, behind all else.
const VERSION_EXTENDED: u16 = 4;
/// Version of a head that has the state of MAXERROR behind those.
const VERSION_AUDITED: u16 = 5;

/// Slots passed in search of an entry that is due before a living one is removed.
const DUE_WALK_SLOTS: u64 = 256;

/// Name of an entry key; without an allocation where the cache's name has up to 44 bytes.
pub type EntryKey = SmallVec<[u8; 96]>;

/// A cache.
#[derive(Debug)]
pub struct Cache {
    uid: ContainerUid,
    /// What every entry key begins with.
    prefix: Box<[u8]>,
    next_seq: u64,
    /// Where the walk for entries that are due goes on.
    due_walk: u32,
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
    /// Where the walk that carries invalidations out goes on, and up to which bound it does.
    carry_out: Option<CarryOut>,
    /// Entries are here that the index does not know yet.
    is_filling: bool,
    doubt: Doubt,
    /// The next place of the store order when rows and keys were last counted against each other.
    counted_at: u64,
}

/// Whether rows may stand for entries that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// None is known to.
    None,
    /// Some do; which, a walk over all rows is to tell.
    Raised,
    /// That walk is under way.
    Walked,
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

/// A walk that carries invalidations out.
#[derive(Debug, Clone, Copy)]
struct CarryOut {
    next_slot: u32,
    upto: Seq,
}

/// Slots passed in one step of the walk that carries invalidations out.
const CARRY_OUT_SLOTS: usize = 1_024;

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
        let (epochs, carry_out, is_filling) = (Epochs::default(), None, false);
        let due_walk = 0;
        Self {
            uid,
            prefix,
            next_seq,
            due_walk,
            settings,
            index,
            stats,
            near_misses: NearMisses::default(),
            audit: None,
            epochs,
            carry_out,
            is_filling,
            doubt: Doubt::None,
            counted_at: next_seq,
        }
    }

    /// Holds the entries that a walk over all keys met against the rows: what was there throughout was met, so more
    /// rows than that and than were stored since the last such count stand for nothing. They are to be looked at one by
    /// one.
    pub fn count_against(&mut self, met: u64) {
        let stored = self.next_seq - std::mem::replace(&mut self.counted_at, self.next_seq);
        if self.index.totals().entries > met.saturating_add(stored) {
            self.doubt = Doubt::Raised;
        }
    }

    /// A walk over all rows that opens the keys of those it is unsure of begins. Whether it is to open all.
    pub fn begin_walk(&mut self) {
        if self.doubt == Doubt::Raised {
            self.doubt = Doubt::Walked;
        }
    }

    /// Whether that walk is unsure of every row.
    pub fn doubts_all(&self) -> bool {
        self.doubt == Doubt::Walked
    }

    /// That walk is over.
    pub fn end_walk(&mut self) {
        if self.doubt == Doubt::Walked {
            self.doubt = Doubt::None;
        }
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
    /// before its key came, or before its key went. Answers whether it did.
    pub fn take_entries_of(&mut self, other: &mut Self) -> bool {
        let searched = self.settings.kind.is_searched() == other.settings.kind.is_searched();
        let dims = [self.settings.dim, other.index.dim()];
        let dims_agree = dims[0].is_none() || dims[1].is_none() || dims[0] == dims[1];
        let fits = self.index.totals().entries == 0
            && self.uid == other.uid
            && self.prefix == other.prefix
            && searched
            && dims_agree;
        if !fits {
            return false;
        }
        self.observe_seq(Seq(other.next_seq.saturating_sub(1)));
        self.settings.dim = self.settings.dim.or(other.settings.dim);
        other.index.close_account();
        std::mem::swap(&mut self.index, &mut other.index);
        if self.index.graph_settings() != self.settings.graph {
            self.index.set_graph_settings(self.settings.graph);
        }
        self.index.set_words(self.settings.words);
        self.bound_tags();
        // What was invalidated while it was elsewhere is to be found by another walk.
        self.epochs.carry_out_again();
        self.carry_out = None;
        true
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

    /// Changes the settings, which passed their check. `secret` signs tickets, where there were none. Answers whether
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
        let fits = dim == 0 || self.settings.dim.is_none_or(|own| own == dim);
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

    /// Counts a hit on an entry, at the minute `now_min` of its clock. Answers how many it has had.
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

    /// Invalidates what is stored so far, and answers the bound: a place of the store order that no
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
            self.carry_out = None;
        }
    }

    /// Whether invalidations wait to be carried out.
    pub fn has_invalidated(&self) -> bool {
        self.epochs.pending().is_some()
    }

    /// Walks on to the next entry that an invalidation may concern; `None` when it passed as many slots
    /// as are passed at once, or when all is carried out (see `has_invalidated`).
    pub fn next_invalidated(&mut self) -> Option<(SlotId, Seq)> {
        let upto = self.epochs.pending()?;
        let walk = *self.carry_out.get_or_insert(CarryOut { next_slot: 0, upto });
        let mut next_slot = walk.next_slot;
        for _ in 0..CARRY_OUT_SLOTS {
            let Some((id, slot)) = self.index.next_occupied(next_slot) else {
                self.epochs.note_carried_out(walk.upto);
                self.carry_out = None;
                return None;
            };
            next_slot = id.0 + 1;
            let (seq, scope) = (slot.seq(), slot.partition.scope());
            if self.epochs.may_concern(seq, scope, self.index.tags_of(id)) {
                self.carry_out = Some(CarryOut { next_slot, ..walk });
                return Some((id, seq));
            }
        }
        self.carry_out = Some(CarryOut { next_slot, ..walk });
        None
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

    /// The entry to remove when a limit is passed, never `spare`: one that is due, if a short walk
    /// over the slots meets one, else the least worth keeping among a few picked at random. `None`
    /// when there is no other.
    pub fn pick_victim(
        &mut self,
        spare: SlotId,
        now: UnixMs,
        mut random: impl FnMut() -> u64,
    ) -> Option<(SlotId, Seq)> {
        if let Some(due) = self.find_due(spare, now) {
            return Some(due);
        }
        let now_min = minute(now);
        let end = self.index.slot_end();
        let mut worst: Option<(f64, SlotId, Seq)> = None;
        let few = self.index.totals().entries <= VICTIM_SAMPLES as u64;
        let mut from = 0;
        for _ in 0..VICTIM_SAMPLES {
            // A small cache is looked at whole, so that its evictions are exact.
            let start = if few { from } else { (random() % u64::from(end.max(1))) as u32 };
            let Some((id, slot)) = self.next_other(start, spare) else { break };
            from = id.0 + 1;
            let value = keep_value(slot.frequency, now_min, slot.worth(), slot.bytes);
            // Of equals the older goes.
            if worst.is_none_or(|(least, _, seq)| (value, slot.seq()) < (least, seq)) {
                worst = Some((value, id, slot.seq()));
            }
        }
        worst.map(|(_, id, seq)| (id, seq))
    }

    /// The first entry at or after a slot that is not `spare`; behind the last comes the first.
    fn next_other(&self, from: u32, spare: SlotId) -> Option<(SlotId, Slot<'_>)> {
        let other = |from| match self.index.next_occupied(from) {
            Some((id, _)) if id == spare => self.index.next_occupied(id.0 + 1),
            next => next,
        };
        other(from).or_else(|| other(0))
    }

    /// Walks on over some slots, from where the last walk stopped, to an entry that is due. A small
    /// cache is walked once round.
    fn find_due(&mut self, spare: SlotId, now: UnixMs) -> Option<(SlotId, Seq)> {
        for _ in 0..self.index.totals().entries.min(DUE_WALK_SLOTS) {
            let (id, slot) = self.next_other(self.due_walk, spare)?;
            let due = slot.expire_at.is_past(now).then_some((id, slot.seq()));
            self.due_walk = id.0 + 1;
            if due.is_some() {
                return due;
            }
        }
        None
    }

    /// Identity and settings as one section: the argument of the create command, the head of RDB.
    pub fn save_head(&self) -> Vec<u8> {
        self.head(true)
    }

    /// The same without what is this server's own: what a digest of the data set covers.
    pub fn shared_head(&self) -> Vec<u8> {
        self.head(false)
    }

    fn head(&self, is_whole: bool) -> Vec<u8> {
        let extensions = self.settings.extensions();
        let version = match (&self.audit, extensions.is_empty()) {
            (Some(_), _) => VERSION_AUDITED,
            (None, false) => VERSION_EXTENDED,
            (None, true) => VERSION,
        };
        let mut out = Writer::section(TAG_HEAD, version);
        out.u64(self.uid.0).bytes(&self.prefix).u64(self.next_seq);
        self.settings.write(&mut out);
        self.epochs.write(&mut out);
        Settings::write_extensions(&extensions, &mut out);
        if let Some(audit) = &self.audit {
            out.bytes(&audit.write(is_whole));
        }
        out.finish()
    }

    /// A cache without entries from a head; hostile bytes are refused.
    pub fn load_head(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if tag != TAG_HEAD || !(VERSION..=VERSION_AUDITED).contains(&version) {
            return Err(DecodeError("not a cache of a known version"));
        }
        let uid = ContainerUid(from.u64()?);
        let prefix: Box<[u8]> = from.bytes(2 * limits::CONTAINER_NAME_MAX_BYTES)?.into();
        let next_seq = from.u64()?;
        let mut settings = Settings::read(&mut from)?;
        let epochs = Epochs::read(&mut from, next_seq)?;
        if version >= VERSION_EXTENDED {
            settings.read_extensions(&mut from)?;
        }
        if settings.max_error.is_on() != (version == VERSION_AUDITED) {
            return Err(DecodeError("a promise without its evidence"));
        }
        let audit = match version {
            VERSION_AUDITED => {
                let state = from.bytes(limits::AUDIT_BYTES_MAX)?;
                Some(Box::new(Audit::read(state, settings.max_error, settings.threshold)?))
            }
            _ => None,
        };
        from.finish()?;
        let tail = format!(":{uid}:");
        let name_ok = prefix.strip_suffix(tail.as_bytes()).is_some_and(|name| !name.is_empty());
        if !name_ok || hash_tag(&prefix).is_none() || next_seq == 0 || next_seq > limits::SEQ_MAX {
            return Err(DecodeError("identity of a cache"));
        }
        Ok(Self { epochs, audit, ..Self::empty(uid, prefix, next_seq, settings) })
    }
}

/// `{name}:<uid>:`, or `name:<uid>:` where the name carries a hash tag of its own.
fn entry_prefix(name: &[u8], uid: ContainerUid) -> Result<Vec<u8>> {
    derived_prefix(name, format!(":{uid}:").as_bytes(), "cache")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::maxerror::{MaxError, SimilarityE4};
    use crate::cluster::key_slot;

    const UID: ContainerUid = ContainerUid(0xab);
    const SECRET: TicketSecret = TicketSecret([3, 4]);

    #[test]
    fn entry_keys_share_the_slot_of_their_cache() {
        for name in [&b"faq"[..], b"faq{x}", b"{x}faq", b"a{b", b"{{x}", b"\x00\xff"] {
            let cache = Cache::new(name, UID, Settings::default(), SECRET).unwrap();
            assert_eq!(key_slot(name), key_slot(&cache.named_key(b"any}thing{")), "{name:?}");
        }
        for name in [&b""[..], b"a}b", b"{}", b"{}a{b}", b"}{"] {
            let refused = Cache::new(name, UID, Settings::default(), SECRET);
            assert!(refused.is_err(), "{name:?}");
        }
    }

    #[test]
    fn head_round_trips_and_refuses_every_flipped_bit() {
        let max_error = MaxError { max_error_ppm: 50_000, ..MaxError::default() };
        for settings in [
            Settings { dim: Some(3), ..Settings::default() },
            Settings { dim: Some(3), exchange: true, ..Settings::default() },
            Settings { dim: Some(3), max_error, ..Settings::default() },
        ] {
            head_round_trips(settings);
        }
    }

    fn head_round_trips(settings: Settings) {
        let mut cache = Cache::new(b"faq", UID, settings, SECRET).unwrap();
        if let Some(audit) = cache.audit_mut() {
            for _ in 0..30 {
                audit.note_near(SimilarityE4(9_000), true);
            }
        }
        for (extent, severity) in [
            (Extent::Tag(b"t"), Severity::Gone),
            (Extent::Scope(b"s"), Severity::Stale),
            (Extent::Scope(b""), Severity::Gone),
            (Extent::All, Severity::Stale),
        ] {
            cache.invalidate(extent, severity).unwrap();
        }
        let head = cache.save_head();
        let loaded = Cache::load_head(&head).unwrap();
        assert_eq!(loaded.save_head(), head);
        let shared = Cache::load_head(&cache.shared_head()).unwrap();
        assert!(shared.audit().is_none_or(|audit| audit.evidence().warm().is_empty()));
        assert_eq!(loaded.epochs().min_seq(b""), Seq(3));
        assert_eq!(loaded.uid(), UID);
        assert_eq!(loaded.settings, cache.settings);
        assert_eq!(loaded.prefix(), b"{faq}:00000000000000ab:");
        for bit in 0..head.len() * 8 {
            let mut bad = head.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Cache::load_head(&bad).is_err(), "bit {bit}");
        }
        for end in 0..head.len() {
            assert!(Cache::load_head(&head[..end]).is_err());
        }
    }
}
