//! Which rows of a graph are neighbours, on every level.
//!
//! Owns: links of both arenas, and that they come in pairs: whatever adds or takes a link does it on
//! both sides, so that the links to a row are found on the row itself. Must not know: how near two
//! rows are. All graphs of an index share it. Main thread only.

use super::super::row_state::NONE;
use super::upper_links::UpperLinks;
use crate::ids::EntryId;
use crate::vector::links::{LinkArena, Row};

/// Highest level; with M = 4 one row in 16 million would pass it.
pub(super) const LEVEL_MAX: usize = 12;

/// Links of all graphs of one index.
#[derive(Debug, Default)]
pub(in crate::index) struct Links {
    m: usize,
    pub(super) base: LinkArena,
    pub(super) upper: UpperLinks,
}

/// The level of an entry: at least `l` for one in M^l, by its digest, so that every server that builds
/// the graph puts it on the same one.
pub(super) fn level_of(id: &EntryId, m: usize) -> usize {
    let mut number = u128::from_le_bytes(id.0);
    // The digest may be a client's own number in a forged entry; the level is bounded all the same.
    number ^= number >> 64;
    let mut digits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    digits ^= digits >> 32;
    let mut level = 0;
    while level < LEVEL_MAX && digits.is_multiple_of(m as u64) {
        digits /= m as u64;
        level += 1;
    }
    level
}

impl Links {
    pub(super) fn new(m: usize) -> Self {
        Self { m, base: LinkArena::new(2 * m), upper: UpperLinks::new(m) }
    }

    pub(super) fn m(&self) -> usize {
        self.m
    }

    /// Most links of a row on a level.
    pub(super) fn capacity(&self, level: usize) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    /// The record of a row on a level above 0.
    pub(super) fn record(&self, row: u32, level: usize) -> Option<u32> {
        let mut at = self.base.upper(row)?;
        for _ in 1..level {
            at = self.upper.up(at);
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    /// The highest level of a linked row.
    pub(super) fn level(&self, row: u32) -> usize {
        let Some(mut at) = self.base.upper(row) else { return 0 };
        let mut level = 1;
        while self.upper.up(at) != NONE {
            at = self.upper.up(at);
            level += 1;
        }
        level
    }

    /// The neighbours of a row on a level; none where it does not reach that level.
    #[inline]
    pub(super) fn of(&self, row: u32, level: usize) -> Row<'_> {
        if level == 0 {
            return self.base.links(row);
        }
        self.record(row, level).map_or(Row::NONE, |at| self.upper.links(at))
    }

    /// Whether a row can take another link on a level.
    pub(super) fn has_room(&self, row: u32, level: usize) -> bool {
        self.of(row, level).len() < self.capacity(level)
    }

    /// Links two rows, which both have room and are not linked yet.
    pub(super) fn join(&mut self, a: u32, b: u32, level: usize) {
        let room = self.has_room(a, level) && self.has_room(b, level);
        debug_assert!(room && a != b && !self.of(a, level).contains(b));
        if !room {
            return;
        }
        self.push(a, b, level);
        self.push(b, a, level);
    }

    /// Adds one side of a link; for loading, which checks afterwards that both are there.
    pub(super) fn push(&mut self, from: u32, to: u32, level: usize) {
        if level == 0 {
            self.base.push(from, to);
        } else if let Some(at) = self.record(from, level) {
            self.upper.push(at, to);
        }
    }

    /// Takes the link between two rows from both.
    pub(super) fn part(&mut self, a: u32, b: u32, level: usize) {
        let both = [self.take(a, b, level), self.take(b, a, level)];
        debug_assert_eq!(both, [true; 2], "links come in pairs");
    }

    fn take(&mut self, from: u32, to: u32, level: usize) -> bool {
        if level == 0 {
            return self.base.take(from, to);
        }
        self.record(from, level).is_some_and(|at| self.upper.take(at, to))
    }

    /// Takes all links of a row on a level, from both sides, and hands them out.
    pub(super) fn part_all(&mut self, row: u32, level: usize, former: &mut Vec<u32>) {
        former.clear();
        former.extend(self.of(row, level).iter());
        for &other in &*former {
            self.part(row, other, level);
        }
    }

    /// Makes a row part of a graph on the levels 0 to `level`, without links; `rings` names a record of
    /// each level above 0, or `NONE`.
    pub(super) fn occupy(&mut self, row: u32, level: usize, rings: &mut [u32; LEVEL_MAX]) {
        self.base.occupy(row);
        let mut below = NONE;
        for ring in &mut rings[..level] {
            let at = self.upper.allocate(row);
            if *ring == NONE {
                *ring = at;
            } else {
                self.upper.join_ring(at, *ring);
            }
            if below == NONE {
                self.base.set_upper(row, Some(at));
            } else {
                self.upper.set_up(below, at);
            }
            below = at;
        }
    }

    /// Takes a row out of its graph; its links were taken before, or all its neighbours go too.
    pub(super) fn vacate(&mut self, row: u32, rings: &mut [u32; LEVEL_MAX]) {
        if let Some(first) = self.base.upper(row) {
            self.base.set_upper(row, None);
            let mut at = first;
            for ring in rings {
                if at == NONE {
                    break;
                }
                let other = self.upper.leave_ring(at);
                if *ring == at {
                    *ring = other.unwrap_or(NONE);
                }
                let up = self.upper.up(at);
                self.upper.release(at);
                at = up;
            }
        }
        self.base.vacate(row);
    }

    pub(super) fn bytes(&self) -> usize {
        self.base.bytes() + self.upper.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_in_m_reaches_the_next_level() {
        for m in [4, 16, 64] {
            let mut reached = [0_u32; LEVEL_MAX + 1];
            for number in 0..200_000_u64 {
                let id = EntryId::of(b"", b"", &number.to_le_bytes());
                for count in &mut reached[..=level_of(&id, m)] {
                    *count += 1;
                }
            }
            let share = f64::from(reached[1]) / 200_000.0 * m as f64;
            assert!((0.9..1.1).contains(&share), "M {m}: {share}");
            assert!(f64::from(reached[2]) / 200_000.0 < 1.5 / (m * m) as f64);
        }
        assert!(level_of(&EntryId([0; 16]), 16) <= LEVEL_MAX);
    }
}
