//! Bulk invalidation: a tag, a scope or the whole cache gets a bound in the store order; entries stored before it are
//! removed or stale from then on.
//!
//! Owns: the bounds, their canonical bytes, how many are kept. Bounds are saved and replicated; how far
//! they were carried out, by unlinking or marking the entries one by one, is known to this process
//! alone. A bound stays after it was carried out, so that an answer whose making began before the
//! invalidation is refused, and an entry that comes back by RESTORE is not served. Main thread only.

use super::EntryView;
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, ErrorWord, Result};
use crate::ids::{ScopeKey, Seq};
use crate::limits;
use hashbrown::HashMap;

/// What is invalidated as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent<'a> {
    /// Entries with this tag.
    Tag(&'a [u8]),
    /// Entries of this scope.
    Scope(&'a [u8]),
    /// Every entry.
    All,
}

/// What becomes of invalidated entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// They are gone.
    Gone,
    /// They are stale: served as such until they are regenerated or expire.
    Stale,
}

/// Entries stored before these places are gone, or stale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    gone: Seq,
    stale: Seq,
}

impl Bounds {
    fn newest(self) -> Seq {
        self.gone.max(self.stale)
    }

    fn join(self, other: Self) -> Self {
        Self { gone: self.gone.max(other.gone), stale: self.stale.max(other.stale) }
    }

    fn raise(&mut self, severity: Severity, to: Seq) {
        let bound = match severity {
            Severity::Gone => &mut self.gone,
            Severity::Stale => &mut self.stale,
        };
        *bound = to.max(*bound);
    }
}

type Named = HashMap<Box<[u8]>, Bounds>;

/// The bounds of a cache.
#[derive(Debug, Default)]
pub struct Epochs {
    tags: Named,
    scopes: Named,
    all: Bounds,
    /// The bounds of scopes by their key, for passing by slots without opening entries.
    scope_keys: HashMap<ScopeKey, Bounds>,
    /// Every bound up to here was carried out by this process.
    carried_out: Seq,
}

impl Epochs {
    /// Whether nothing was ever invalidated.
    pub fn is_empty(&self) -> bool {
        self.all == Bounds::default() && self.tags.is_empty() && self.scopes.is_empty()
    }

    /// How many tags and scopes have a bound.
    pub fn len(&self) -> usize {
        self.tags.len() + self.scopes.len()
    }

    /// What was stored in a scope before this is gone, tags aside.
    pub fn min_seq(&self, scope: &[u8]) -> Seq {
        self.all.gone.max(self.scopes.get(scope).map_or(Seq(0), |bounds| bounds.gone))
    }

    /// The same by the key of a scope: of two scopes that share a key, the later bound.
    pub fn min_seq_of(&self, scope: ScopeKey) -> Seq {
        self.all.gone.max(self.scope_keys.get(&scope).map_or(Seq(0), |bounds| bounds.gone))
    }

    fn bounds_of<'t>(&self, scope: &[u8], tags: impl Iterator<Item = &'t [u8]>) -> Bounds {
        let named = |map: &Named, name: &[u8]| map.get(name).copied().unwrap_or_default();
        let scope = self.all.join(named(&self.scopes, scope));
        if self.tags.is_empty() {
            return scope;
        }
        tags.fold(scope, |bounds, tag| bounds.join(named(&self.tags, tag)))
    }

    /// What became of an entry, if anything did.
    pub fn standing(&self, entry: &EntryView<'_>) -> Option<Severity> {
        if self.is_empty() {
            return None;
        }
        let bounds = self.bounds_of(entry.scope(), entry.tags());
        if entry.seq() < bounds.gone {
            Some(Severity::Gone)
        } else {
            (entry.seq() < bounds.stale).then_some(Severity::Stale)
        }
    }

    /// Whether something that an answer of this scope and these tags belongs to was invalidated at or
    /// after `since`.
    pub fn changed_since<'t>(
        &self,
        since: Seq,
        scope: &[u8],
        tags: impl Iterator<Item = &'t [u8]>,
    ) -> bool {
        self.bounds_of(scope, tags).newest() >= since
    }

    /// Whether the entry in a slot may have a bound to be carried out, judged without opening it.
    pub fn may_concern<'t>(
        &self,
        seq: Seq,
        scope: ScopeKey,
        tags: impl Iterator<Item = &'t [u8]>,
    ) -> bool {
        let mut tags = tags;
        seq < self.all.newest()
            || self.scope_keys.get(&scope).is_some_and(|bounds| seq < bounds.newest())
            || tags.any(|tag| self.tags.get(tag).is_some_and(|bounds| seq < bounds.newest()))
    }

    /// Makes room for one more bound, if `extent` needs it. Where this server decides, a bound is let go
    /// of only after it was carried out; where it obeys, the oldest goes, as it did on the primary.
    pub fn make_room(&mut self, extent: Extent<'_>, obey: bool) -> Result<()> {
        let known = match extent {
            Extent::All => true,
            Extent::Tag(name) => self.tags.contains_key(name),
            Extent::Scope(name) => self.scopes.contains_key(name),
        };
        if known || self.len() < limits::EPOCHS_MAX {
            return Ok(());
        }
        let oldest = self.tags.values().chain(self.scopes.values()).map(|b| b.newest()).min();
        let oldest = oldest.unwrap_or_default();
        if !obey && oldest > self.carried_out {
            let message = "too many invalidations are still being carried out, try again later";
            return Err(Error::new(ErrorWord::Busy, message));
        }
        self.tags.retain(|_, bounds| bounds.newest() > oldest);
        self.scopes.retain(|_, bounds| bounds.newest() > oldest);
        self.index_scopes();
        Ok(())
    }

    /// Invalidates what was stored before `bound`.
    pub fn raise(&mut self, extent: Extent<'_>, severity: Severity, bound: Seq) {
        match extent {
            Extent::All => self.all.raise(severity, bound),
            Extent::Tag(name) => {
                self.tags.entry(name.into()).or_default().raise(severity, bound);
            }
            Extent::Scope(name) => {
                self.scopes.entry(name.into()).or_default().raise(severity, bound);
                let bounds = self.scope_keys.entry(ScopeKey::of(name)).or_default();
                bounds.raise(severity, bound);
            }
        }
    }

    /// The newest bound that was not carried out yet.
    pub fn pending(&self) -> Option<Seq> {
        if self.is_empty() {
            return None;
        }
        let named = self.tags.values().chain(self.scopes.values());
        let newest = named.map(|bounds| bounds.newest()).fold(self.all.newest(), Seq::max);
        (newest > self.carried_out).then_some(newest)
    }

    /// Nothing counts as carried out any more.
    pub fn carry_out_again(&mut self) {
        self.carried_out = Seq(0);
    }

    /// Every bound up to this one was carried out.
    pub fn note_carried_out(&mut self, upto: Seq) {
        self.carried_out = upto.max(self.carried_out);
    }

    /// Bounds of tags below which entries are gone, for the index.
    pub fn gone_tags(&self) -> impl Iterator<Item = (&[u8], Seq)> {
        self.tags.iter().map(|(tag, bounds)| (&**tag, bounds.gone)).filter(|(_, b)| *b > Seq(0))
    }

    fn index_scopes(&mut self) {
        self.scope_keys.clear();
        for (name, bounds) in &self.scopes {
            let joined = self.scope_keys.entry(ScopeKey::of(name)).or_default();
            *joined = joined.join(*bounds);
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        let names = self.tags.keys().chain(self.scopes.keys());
        let names: usize = names.map(|name| crate::allocation::allocated_bytes(name.len())).sum();
        self.tags.allocation_size()
            + self.scopes.allocation_size()
            + self.scope_keys.allocation_size()
            + names
    }

    /// Appends the canonical bytes: names in their order.
    pub fn write(&self, out: &mut Writer) {
        out.u64(self.all.gone.0).u64(self.all.stale.0);
        for map in [&self.tags, &self.scopes] {
            let mut names: Vec<_> = map.iter().collect();
            names.sort_unstable_by_key(|(name, _)| *name);
            out.u32(names.len() as u32);
            for (name, bounds) in names {
                out.bytes(name).u64(bounds.gone.0).u64(bounds.stale.0);
            }
        }
    }

    /// Reads what `write` wrote; hostile bytes are refused.
    pub fn read(from: &mut Reader<'_>, next_seq: u64) -> std::result::Result<Self, DecodeError> {
        let mut epochs = Self { all: read_bounds(from, next_seq)?, ..Self::default() };
        epochs.tags = read_named(from, limits::TAG_MAX_BYTES, next_seq)?;
        epochs.scopes = read_named(from, limits::SCOPE_MAX_BYTES, next_seq)?;
        if epochs.len() > limits::EPOCHS_MAX {
            return Err(DecodeError("too many invalidations"));
        }
        epochs.index_scopes();
        Ok(epochs)
    }
}

fn read_bounds(from: &mut Reader<'_>, next_seq: u64) -> std::result::Result<Bounds, DecodeError> {
    let bounds = Bounds { gone: Seq(from.u64()?), stale: Seq(from.u64()?) };
    if bounds.newest().0 > next_seq {
        return Err(DecodeError("an invalidation of the future"));
    }
    Ok(bounds)
}

fn read_named(
    from: &mut Reader<'_>,
    longest: usize,
    next_seq: u64,
) -> std::result::Result<Named, DecodeError> {
    let count = from.u32()? as usize;
    if count > limits::EPOCHS_MAX {
        return Err(DecodeError("too many invalidations"));
    }
    let mut named = Named::new();
    for _ in 0..count {
        let name = from.bytes(longest)?;
        let bounds = read_bounds(from, next_seq)?;
        if bounds == Bounds::default() || named.insert(name.into(), bounds).is_some() {
            return Err(DecodeError("an invalidation given twice, or of nothing"));
        }
    }
    Ok(named)
}
