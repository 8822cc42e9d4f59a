//! How often an entry was hit lately: a count that halves with time, in four bytes.

use crate::ids::UnixMs;

/// Minutes in which a count loses half its weight.
const HALF_LIFE_MIN: u16 = 60;
/// One hit, in the fixed-point scale of the count (8 fractional bits).
const HIT: u16 = 1 << 8;

/// The clock of frequencies, in minutes; wraps after 45 days.
pub fn minute(now: UnixMs) -> u16 {
    (now.0 / 60_000) as u16
}

/// Hits, aged by a half-life of an hour. Process-local; neither persisted nor replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgedFrequency {
    value: u16,
    minute: u16,
}

impl AgedFrequency {
    /// Counts a hit at the minute `now_min` (of any clock that wraps at 65,536 minutes).
    pub fn touch(&mut self, now_min: u16) {
        self.value = self.read(now_min).saturating_add(HIT);
        self.minute = now_min;
    }

    /// The count of an entry that had so many hits spread evenly over its age, of which older ones have faded.
    pub fn spread(hits: u32, age: UnixMs, now_min: u16) -> Self {
        let age_min = (age.0 / 60_000).max(1);
        // The sum of what is left of each is that of as many as came in a half-life / ln 2.
        let recent = u64::from(HALF_LIFE_MIN) * 1_000 / 693;
        let value = u64::from(hits) * u64::from(HIT) * recent.min(age_min) / age_min;
        Self { value: u16::try_from(value).unwrap_or(u16::MAX), minute: now_min }
    }

    /// The aged count, in 1/256 of a hit.
    pub fn read(self, now_min: u16) -> u16 {
        let halvings = now_min.wrapping_sub(self.minute) / HALF_LIFE_MIN;
        self.value.checked_shr(u32::from(halvings)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_every_hour_and_survives_the_wrap_of_the_clock() {
        let mut frequency = AgedFrequency::default();
        let start = u16::MAX - 10;
        for _ in 0..4 {
            frequency.touch(start);
        }
        assert_eq!(frequency.read(start), 4 * HIT);
        assert_eq!(frequency.read(start.wrapping_add(60)), 2 * HIT);
        assert_eq!(frequency.read(start.wrapping_add(180)), HIT / 2);
        assert_eq!(frequency.read(start.wrapping_add(60_000)), 0);
    }

    #[test]
    fn hits_of_long_ago_have_faded() {
        let hours = |hours: u64| UnixMs(hours * 3_600_000);
        assert_eq!(AgedFrequency::spread(4, UnixMs(0), 7).read(7), 4 * HIT);
        assert_eq!(AgedFrequency::spread(4, hours(1), 7).read(7), 4 * HIT);
        let day = AgedFrequency::spread(240, hours(24), 7).read(7);
        // Ten an hour for a day: of the sum 10 + 5 + 2.5 + … some 15 are left, more or less by when in the hour they came.
        assert!((10 * HIT..20 * HIT).contains(&day), "{day}");
        assert_eq!(AgedFrequency::spread(u32::MAX, UnixMs(0), 7).read(7), u16::MAX);
        assert_eq!(AgedFrequency::spread(0, hours(5), 7).read(7), 0);
    }

    #[test]
    fn saturates() {
        let mut frequency = AgedFrequency::default();
        for _ in 0..1_000 {
            frequency.touch(0);
        }
        assert_eq!(frequency.read(0), u16::MAX);
    }
}
