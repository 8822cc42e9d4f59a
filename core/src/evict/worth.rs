//! What losing an entry would cost: aged frequency x cost saved / bytes (the GreedyDual-Size-
//! Frequency value of Cherkasova, HPL-98-69, without its inflation term: frequency ages instead).

use super::AgedFrequency;

/// Nano-dollars a token counts for where no COST was given: one dollar a million tokens.
const NANO_USD_PER_TOKEN: u64 = 1_000;
/// Nano-dollars an answer counts for where nothing is known of it: that of a short one.
const NANO_USD_UNKNOWN: u64 = 100 * NANO_USD_PER_TOKEN;
/// Steps of the scale per doubling of the cost.
const STEPS_PER_DOUBLING: f64 = 4.0;
/// An entry never hit counts as this share of one hit, so that new entries differ by cost and size.
const UNHIT: f64 = 0.125;

/// The cost of making an answer on a logarithmic scale of one byte, four steps a doubling, from the
/// stated cost in nano-dollars, else from its tokens.
pub fn worth(cost_nano_usd: u64, tokens: u64) -> u8 {
    let nano = match (cost_nano_usd, tokens) {
        (0, 0) => NANO_USD_UNKNOWN,
        (0, tokens) => tokens.saturating_mul(NANO_USD_PER_TOKEN),
        (cost, _) => cost,
    };
    // The logarithm of a u64 is below 64, so the product is below 256.
    ((nano.max(1) as f64).log2() * STEPS_PER_DOUBLING) as u8
}

/// How much keeping the entry saves per byte; the entry with the least goes first.
pub fn keep_value(frequency: AgedFrequency, now_min: u16, worth: u8, bytes: u32) -> f64 {
    let hits = f64::from(frequency.read(now_min)) / 256.0 + UNHIT;
    hits * (f64::from(worth) / STEPS_PER_DOUBLING).exp2() / f64::from(bytes.max(1))
}

/// The LFU counter an entry starts with, so that under `allkeys-lfu` and `volatile-lfu` a dear
/// answer outlives a cheap one of equal use. An ordinary answer starts at 5, as Redis starts every
/// key; the counter is logarithmic, and 64 is what some ten thousand hits earn.
pub fn initial_lfu(worth: u8) -> u8 {
    let neutral = self::worth(0, 0);
    let doublings = (i32::from(worth) - i32::from(neutral)) / STEPS_PER_DOUBLING as i32;
    (5 + 2 * doublings).clamp(5, 64) as u8
}

/// The LFU counter of an entry that had so many hits already. With the server's `lfu-log-factor` of 10 the counter
/// reaches 5 + n by about 5 n^2 of them.
pub fn lfu_after(worth: u8, hits: u32) -> u8 {
    let earned = (hits / 5).isqrt();
    (u32::from(initial_lfu(worth)) + earned).min(u32::from(u8::MAX)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dearer_smaller_and_busier_entries_are_kept() {
        let mut busy = AgedFrequency::default();
        busy.touch(0);
        let quiet = AgedFrequency::default();
        let (cheap, dear) = (worth(1_000_000, 0), worth(64_000_000, 0));
        assert_eq!(dear - cheap, 24, "six doublings of four steps");
        assert!(keep_value(quiet, 0, dear, 1_000) > keep_value(quiet, 0, cheap, 1_000));
        assert!(keep_value(quiet, 0, cheap, 500) > keep_value(quiet, 0, cheap, 1_000));
        assert!(keep_value(busy, 0, cheap, 1_000) > keep_value(quiet, 0, cheap, 1_000));
    }

    #[test]
    fn hits_of_before_count_in_the_lfu_hint() {
        let plain = worth(0, 0);
        assert_eq!(lfu_after(plain, 0), 5);
        assert_eq!(lfu_after(plain, 10_000), 49);
        assert_eq!(lfu_after(plain, u32::MAX), 255);
    }

    #[test]
    fn lfu_hint_stays_in_its_band() {
        assert_eq!(initial_lfu(worth(0, 0)), 5);
        assert_eq!(initial_lfu(worth(1, 0)), 5);
        assert_eq!(initial_lfu(worth(u64::MAX, 0)), 64);
        assert!(initial_lfu(worth(0, 10_000)) > initial_lfu(worth(0, 100)));
    }
}
