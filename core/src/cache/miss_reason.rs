//! The reason of a miss: what happened to the entries that were near enough to be considered.
//!
//! Owns: the reasons, their order, the counts behind them. Used by `lookup` alone; main thread only.

use super::EntryView;
use super::guard::Finding;
use crate::ids::EntryId;
use crate::index::Refusals;
use crate::limits::{GUARD_REFUSALS_MAX, GUARD_REFUSED_MAX_BYTES};

/// Why there was no hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum MissReason {
    /// Nothing is stored there.
    Empty,
    /// The nearest entry is not near enough.
    BelowThreshold,
    /// FILTER refused what was near enough.
    Filter,
    /// What was near enough is due.
    Expired,
    /// MAXAGE refused what was near enough.
    MaxAge,
    /// A guard refused what was near enough.
    Guard,
    /// No threshold is proven yet (MAXERROR), and nothing is served by meaning until one is.
    Unproven,
    /// Entries are here that the index does not know yet: what was asked for may be among them.
    Filling,
}

impl MissReason {
    /// How many reasons there are.
    pub const COUNT: usize = 8;
    /// All, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Empty,
        Self::BelowThreshold,
        Self::Filter,
        Self::Expired,
        Self::MaxAge,
        Self::Guard,
        Self::Unproven,
        Self::Filling,
    ];

    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::BelowThreshold => "below-threshold",
            Self::Filter => "filter",
            Self::Expired => "expired",
            Self::MaxAge => "max-age",
            Self::Guard => "guard",
            Self::Unproven => "unproven",
            Self::Filling => "filling",
        }
    }
}

/// The nearest entry of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Its id as a caller writes it.
    pub id: Vec<u8>,
    /// Its prompt.
    pub prompt: Vec<u8>,
    /// Cosine of question and entry.
    pub similarity: f64,
}

/// What became of the entries that were near enough to be looked at.
#[derive(Default)]
pub(super) struct Refused {
    pub(super) filter: Refusals,
    pub(super) invisible: Refusals,
    pub(super) too_old: Refusals,
    pub(super) guarded: Refusals,
    /// The nearest that a guard refused, and why.
    pub(super) nearest_guarded: Option<(Nearest, Finding)>,
    /// Bytes of the prompts that guards refused.
    guarded_bytes: usize,
}

impl Refused {
    /// Whether guards refused so many that one more would tell nothing.
    pub(super) fn is_enough(&self) -> bool {
        self.guarded.count >= GUARD_REFUSALS_MAX || self.guarded_bytes >= GUARD_REFUSED_MAX_BYTES
    }

    /// Takes in what the exact tier refused. A search meets that entry again: it is counted once.
    pub(super) fn merge_exact(&mut self, exact: &Self) {
        for (mine, other) in [
            (&mut self.filter, exact.filter),
            (&mut self.too_old, exact.too_old),
            (&mut self.invisible, exact.invisible),
        ] {
            let count = mine.count.max(other.count);
            mine.join(other);
            mine.count = count;
        }
    }

    pub(super) fn note_guarded(
        &mut self,
        view: &EntryView<'_>,
        id: EntryId,
        similarity: f64,
        finding: Finding,
    ) {
        self.guarded.add(similarity);
        self.guarded_bytes += view.prompt().len();
        let farther = |(nearest, _): &(Nearest, Finding)| nearest.similarity < similarity;
        if self.nearest_guarded.as_ref().is_none_or(farther) {
            let (id, prompt) = (id_text(view, id), view.prompt().to_vec());
            self.nearest_guarded = Some((Nearest { id, prompt, similarity }, finding));
        }
    }

    /// The reason of the nearest entry refused, and its similarity.
    fn nearest(&self) -> Option<(MissReason, f64)> {
        let reasons = [
            (MissReason::Filter, self.filter),
            (MissReason::MaxAge, self.too_old),
            (MissReason::Expired, self.invisible),
            (MissReason::Guard, self.guarded),
        ];
        reasons
            .into_iter()
            .filter_map(|(reason, refusals)| Some((reason, refusals.nearest?)))
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// Why nothing was found: the nearest entry that would have been a hit was refused; or none was near
/// enough; or none was left to be compared.
pub(super) fn miss_reason(refused: &Refused, threshold: f64, nearest: Option<f64>) -> MissReason {
    match refused.nearest() {
        Some((reason, similarity)) if similarity >= threshold || nearest.is_none() => reason,
        _ if nearest.is_some() => MissReason::BelowThreshold,
        _ => MissReason::Empty,
    }
}

/// The id of an entry as a caller writes it; `id` is its digest, which costs a hash to compute.
pub(super) fn id_text(view: &EntryView<'_>, id: EntryId) -> Vec<u8> {
    view.name().map_or_else(|| id.hex().to_vec(), <[u8]>::to_vec)
}
