//! A hit counter in four bytes that halves with time.

use crate::ids::UnixMs;

/// Minutes in which a count loses half its weight.
const HALF_LIFE_MIN: u16 = 60;
/// One hit, in the fixed-point scale of the count (8 fractional bits).
const HIT: u16 = 1 << 8;

/// Fractional bits of `LEFT`: a count times a share of it fits into 32 bits.
const LEFT_BITS: u32 = 16;

/// What is left of a count after so many minutes: `2^(-minutes / 60)`. Without the part of a half-life, a count
/// touched more often than that would never fade.
const LEFT: [u32; HALF_LIFE_MIN as usize] = {
    // `2^(-1 / 60)`, with 32 fractional bits.
    const MINUTE: u64 = 4_245_635_389;
    let mut left = [0; HALF_LIFE_MIN as usize];
    let (mut share, mut minute) = (1_u64 << 32, 0);
    while minute < left.len() {
        left[minute] = (share >> (32 - LEFT_BITS)) as u32;
        share = (share * MINUTE) >> 32;
        minute += 1;
    }
    left
};

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
        let age = now_min.wrapping_sub(self.minute);
        let left = u32::from(self.value) * LEFT[usize::from(age % HALF_LIFE_MIN)];
        let left = (left + (1 << (LEFT_BITS - 1))) >> LEFT_BITS;
        left.checked_shr(u32::from(age / HALF_LIFE_MIN)).unwrap_or(0) as u16
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

    /// Whatever the time between two hits, the count settles at what that rate keeps alive.
    #[test]
    fn what_is_hit_more_often_than_hourly_fades_too() {
        for every in [1, 7, 20, 59, 60, 61, 150] {
            let (mut frequency, mut now) = (AgedFrequency::default(), 0_u16);
            for _ in 0..2_000 {
                frequency.touch(now);
                now = now.wrapping_add(every);
            }
            let kept = (-f64::from(every) / f64::from(HALF_LIFE_MIN)).exp2();
            let settled = f64::from(HIT) / (1.0 - kept);
            let last = now.wrapping_sub(every);
            let read = f64::from(frequency.read(last));
            assert!((read / settled - 1.0).abs() < 0.02, "every {every} min: {read}, {settled}");
            assert!((f64::from(frequency.read(now)) / (settled * kept) - 1.0).abs() < 0.03);
            assert_eq!(frequency.read(last.wrapping_add(40 * HALF_LIFE_MIN)), 0);
        }
    }

    #[test]
    fn fades_from_minute_to_minute() {
        let mut frequency = AgedFrequency::default();
        (0..200).for_each(|_| frequency.touch(0));
        let read: Vec<u16> = (0..=180).map(|minute| frequency.read(minute)).collect();
        assert!(read.windows(2).all(|pair| pair[1] < pair[0]), "{read:?}");
        assert_eq!((read[60], read[120]), (read[0] / 2, read[0] / 4));
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
