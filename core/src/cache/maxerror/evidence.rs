//! The evidence that labels give about each threshold, and the threshold that it supports.
//!
//! Owns: the warm-up that fixes where the chains start, the counts of each threshold, the chains, the
//! alarm, the nonces that were used, their bytes. Main thread only.

use super::{Bets, SimilarityE4};
use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{AUDIT_NONCES_MAX, MAXERROR_GRID_MAX};
use hashbrown::HashSet;
use std::collections::VecDeque;

/// The strictest threshold, in ten-thousandths.
pub const STRICTEST_E4: u16 = 9_900;
/// The distance of one threshold from the next.
const STEP_E4: u16 = 100;
/// Near lookups whose similarities fix the starts.
pub(super) const WARM_UP_LOOKUPS: usize = 100;
/// Which of them, from the nearest down.
const START_RANKS: [usize; 3] = [10, 30, 60];
/// A chain goes on to the next threshold only over this many labels between the two.
const BAND_LABELS_MIN: u32 = 10;

/// Thresholds from the strictest down to the least similarity of a near lookup.
fn thresholds(least: SimilarityE4) -> usize {
    usize::from(STRICTEST_E4.saturating_sub(least.0) / STEP_E4) + 1
}

fn threshold(index: usize) -> SimilarityE4 {
    SimilarityE4(STRICTEST_E4 - STEP_E4 * index as u16)
}

/// Indexes of the thresholds at which chains start, ascending, each once.
pub type Starts = Vec<u8>;

/// What a label did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelEffect {
    /// It counts.
    Counted,
    /// It counts nothing: the starts are not fixed, or its ticket was used before.
    Ignored,
    /// Answers were worse than promised: all evidence is forgotten and a new epoch begun.
    Alarm,
}

/// A threshold, and what labels at or above it say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The threshold.
    pub threshold: SimilarityE4,
    /// Labels at or above it.
    pub labels: u32,
    /// Those of them that are wrong.
    pub wrong: u32,
    /// Whether they prove it.
    pub is_proven: bool,
}

/// The evidence of one cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    epoch: u32,
    /// Similarities of the near lookups so far, until the starts are fixed; nothing of this process's
    /// lookups is replicated before that.
    warm: Vec<u16>,
    /// Empty until fixed.
    starts: Starts,
    points: Vec<Point>,
    /// Index of the threshold in use, which every lookup asks for.
    in_use: Option<u8>,
    alarm: i64,
    nonces: Nonces,
}

/// The last nonces that were used, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Nonces {
    order: VecDeque<u64>,
    known: HashSet<u64>,
    /// When the latest ticket was issued of those whose nonces are remembered no more: one that is not
    /// younger may have been used before. 0 while all are remembered.
    forgotten_s: u32,
}

/// When the ticket of a nonce was issued.
fn issued_s(nonce: u64) -> u32 {
    (nonce >> 32) as u32
}

impl Nonces {
    /// Whether the nonce may still be new.
    fn may_take(&self, nonce: u64) -> bool {
        let is_remembered = self.forgotten_s == 0 || issued_s(nonce) > self.forgotten_s;
        is_remembered && !self.known.contains(&nonce)
    }

    /// Whether the nonce is new; it is known from now on.
    fn take(&mut self, nonce: u64) -> bool {
        if !self.may_take(nonce) {
            return false;
        }
        self.known.insert(nonce);
        self.order.push_back(nonce);
        if self.order.len() > AUDIT_NONCES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.forgotten_s = self.forgotten_s.max(issued_s(oldest));
        }
        true
    }
}

impl Evidence {
    /// No evidence, for thresholds down to `least`.
    pub fn new(least: SimilarityE4, epoch: u32) -> Self {
        let points = (0..thresholds(least)).map(|index| Point {
            threshold: threshold(index),
            labels: 0,
            wrong: 0,
            is_proven: false,
        });
        Self {
            epoch,
            warm: Vec::new(),
            starts: Starts::new(),
            points: points.collect(),
            in_use: None,
            alarm: 0,
            nonces: Nonces::default(),
        }
    }

    /// Forgets all evidence and begins the next epoch.
    pub fn begin_epoch(&mut self, least: SimilarityE4) {
        *self = Self::new(least, self.epoch.wrapping_add(1));
    }

    /// The epoch that tickets belong to.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where chains start; empty while the starts are not fixed.
    pub fn starts(&self) -> &[u8] {
        &self.starts
    }

    /// Similarities of near lookups seen so far, while the starts are not fixed.
    pub fn warm(&self) -> &[u16] {
        &self.warm
    }

    /// Takes over what was seen before a restart; refuses what no warm-up has seen.
    pub fn set_warm(&mut self, warm: Vec<u16>) -> bool {
        let is_one = warm.len() < WARM_UP_LOOKUPS && warm.iter().all(|&seen| seen <= 10_000);
        let fits = is_one && (self.starts.is_empty() || warm.is_empty());
        if fits {
            self.warm = warm;
        }
        fits
    }

    /// Whether a label under this nonce would count.
    pub fn would_count(&self, nonce: u64) -> bool {
        !self.starts.is_empty() && self.nonces.may_take(nonce)
    }

    /// Each threshold, the strictest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Takes the similarity of a near lookup into account, which counts until the starts are fixed.
    pub fn see(&mut self, similarity: SimilarityE4) {
        if !self.starts.is_empty() {
            return;
        }
        self.warm.push(similarity.0);
        if self.warm.len() >= WARM_UP_LOOKUPS {
            self.warm.sort_unstable_by_key(|similarity| std::cmp::Reverse(*similarity));
            let last = self.points.len() - 1;
            let start = |rank: usize| {
                let least = self.warm[rank - 1];
                self.points.iter().position(|point| point.threshold.0 <= least).unwrap_or(last)
                    as u8
            };
            let mut starts: Starts = START_RANKS.map(start).to_vec();
            starts.dedup();
            self.starts = starts;
            self.warm = Vec::new();
        }
    }

    /// Takes over the starts that a primary fixed; refuses what no primary fixes.
    pub fn fix_starts(&mut self, starts: &[u8]) -> bool {
        let fits = is_valid_starts(starts, self.points.len()) && !starts.is_empty();
        if fits {
            self.starts = starts.to_vec();
            self.warm = Vec::new();
        }
        fits
    }

    /// Counts a label under a nonce that must be new. `bets` are those of the settings, `least` is for
    /// the new epoch that an alarm begins.
    pub fn label(
        &mut self,
        similarity: SimilarityE4,
        wrong: bool,
        nonce: u64,
        bets: &Bets,
        least: SimilarityE4,
    ) -> LabelEffect {
        if self.starts.is_empty() || !self.nonces.take(nonce) {
            return LabelEffect::Ignored;
        }
        let in_use = self.in_use();
        let was_served = in_use.is_some_and(|point| similarity >= point.threshold);
        for point in self.points.iter_mut().filter(|point| point.threshold <= similarity) {
            point.labels = point.labels.saturating_add(1);
            point.wrong = point.wrong.saturating_add(u32::from(wrong));
            point.is_proven |= bets.are_won(point.labels, point.wrong);
        }
        self.in_use = self.loosest();
        if was_served {
            self.alarm = bets.alarm_after(self.alarm, wrong);
            if Bets::is_alarm(self.alarm) {
                self.begin_epoch(least);
                return LabelEffect::Alarm;
            }
        }
        LabelEffect::Counted
    }

    /// The loosest threshold that is proven, if any is.
    pub fn in_use(&self) -> Option<Point> {
        self.in_use.map(|index| self.points[usize::from(index)])
    }

    fn loosest(&self) -> Option<u8> {
        let ends = self.starts.iter().filter_map(|&start| self.chain_end(usize::from(start)));
        ends.max().map(|index| index as u8)
    }

    /// How far the chain from a start goes; `None` where the start is not proven.
    fn chain_end(&self, start: usize) -> Option<usize> {
        self.points.get(start).filter(|point| point.is_proven)?;
        let goes_on = |&index: &usize| {
            let (here, next) = (self.points[index], self.points.get(index + 1));
            next.is_some_and(|next| next.is_proven && next.labels - here.labels >= BAND_LABELS_MIN)
        };
        Some(start + (start..self.points.len()).take_while(goes_on).count())
    }

    /// The next looser threshold than that in use, or the loosest start where none is proven: what
    /// further labels would open.
    pub fn next(&self) -> Option<Point> {
        match self.in_use() {
            Some(point) => self.points.iter().find(|next| next.threshold < point.threshold),
            None => self.points.get(usize::from(*self.starts.last()?)),
        }
        .copied()
    }

    /// Appends the canonical bytes: what primary and replica share.
    pub fn write(&self, out: &mut Writer) {
        self.write_with(&self.starts, out);
    }

    /// The same with these starts: none as long as they are to be known to nobody else.
    pub(super) fn write_with(&self, starts: &[u8], out: &mut Writer) {
        out.u32(self.epoch).bytes(starts).u32(self.points.len() as u32);
        for point in &self.points {
            out.u32(point.labels).u32(point.wrong).u8(u8::from(point.is_proven));
        }
        out.u64(self.alarm as u64).u32(self.nonces.order.len() as u32);
        for nonce in &self.nonces.order {
            out.u64(*nonce);
        }
        out.u32(self.nonces.forgotten_s);
    }

    /// Reads what `write` wrote; hostile bytes are refused.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let epoch = from.u32()?;
        let starts = from.bytes(START_RANKS.len())?.to_vec();
        let count = from.u32()? as usize;
        if count == 0 || count > MAXERROR_GRID_MAX || !is_valid_starts(&starts, count) {
            return Err(DecodeError("thresholds of MAXERROR"));
        }
        let mut points = Vec::with_capacity(count);
        for index in 0..count {
            let (labels, wrong, proven) = (from.u32()?, from.u32()?, from.u8()?);
            let before = points.last().map_or(0, |point: &Point| point.labels);
            if wrong > labels || labels < before || proven > 1 {
                return Err(DecodeError("labels of MAXERROR"));
            }
            let (threshold, is_proven) = (threshold(index), proven == 1);
            points.push(Point { threshold, labels, wrong, is_proven });
        }
        let alarm = from.u64()? as i64;
        let mut nonces = Nonces::default();
        for _ in 0..from.u32()? {
            if nonces.order.len() >= AUDIT_NONCES_MAX || !nonces.take(from.u64()?) {
                return Err(DecodeError("tickets of MAXERROR"));
            }
        }
        nonces.forgotten_s = from.u32()?;
        if alarm < 0 || Bets::is_alarm(alarm) {
            return Err(DecodeError("alarm of MAXERROR"));
        }
        let warm = Vec::new();
        let mut evidence = Self { epoch, warm, starts, points, in_use: None, alarm, nonces };
        evidence.in_use = evidence.loosest();
        Ok(evidence)
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let of = |items: usize, bytes: usize| items * bytes;
        of(self.warm.capacity(), 2)
            + self.starts.capacity()
            + of(self.points.capacity(), size_of::<Point>())
            + of(self.nonces.order.capacity(), 8)
            + of(self.nonces.known.capacity(), 10)
    }
}

fn is_valid_starts(starts: &[u8], points: usize) -> bool {
    starts.len() <= START_RANKS.len()
        && starts.iter().all(|&start| usize::from(start) < points)
        && starts.windows(2).all(|pair| pair[0] < pair[1])
}
