//! The sequential tests against thresholds that serve too many wrong answers, and the alarm, in integers.
//!
//! Owns: their gains, losses and bars in billionths of a nat. They are computed once from the settings by
//! a logarithm in software, whose result has the same bits on every CPU. Any thread.

/// Largest MAXERROR, in millionths.
pub const MAX_ERROR_MAX_PPM: u32 = 500_000;

/// The alarm goes off at ln(10,000).
const ALARM_BAR: i64 = 9_210_340_372;
/// What a wrong label adds to the alarm: ln 2.
const ALARM_WRONG: i64 = 693_147_181;
/// What the bets wager: the larger of two wins sooner where nothing is wrong, the smaller where little is.
const WAGERS: [f64; 2] = [0.125, 0.5];
/// Chains of thresholds, one from each start.
const CHAINS: f64 = 3.0;

/// One bet: what a right label adds and a wrong one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bet {
    gain: i64,
    loss: i64,
}

/// Both bets, the bar that either has to pass, and the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bets {
    bets: [Bet; WAGERS.len()],
    bar: i64,
    alarm_right: i64,
}

/// A logarithm in billionths, rounded. `libm` is software: the same bits everywhere.
fn ln_e9(value: f64) -> i64 {
    (1e9 * libm::log(value)).round() as i64
}

impl Bets {
    /// For a largest share of wrong answers and a confidence, both in millionths.
    pub fn new(max_error_ppm: u32, confidence_ppm: u32) -> Self {
        let delta = f64::from(max_error_ppm) / 1e6;
        let doubt = f64::from(1_000_000 - confidence_ppm) / 1e6;
        let bet = |wager: f64| Bet {
            gain: (1e9 * (libm::log(1.0 - wager * delta) - libm::log(1.0 - delta))).round() as i64,
            loss: -ln_e9(wager),
        };
        Self {
            bets: WAGERS.map(bet),
            bar: ln_e9(WAGERS.len() as f64 * CHAINS / doubt),
            // At a share of a half the alarm has no pull back: every wrong answer counts.
            alarm_right: if max_error_ppm < MAX_ERROR_MAX_PPM {
                ln_e9((1.0 - 2.0 * delta) / (1.0 - delta))
            } else {
                -ALARM_BAR
            },
        }
    }

    /// Whether labels at or above a threshold, so many and of them so many wrong, win either bet.
    pub fn are_won(&self, labels: u32, wrong: u32) -> bool {
        self.reach(labels, wrong, self.bar)
    }

    /// Whether they win at another bar.
    pub fn reach(&self, labels: u32, wrong: u32, bar: i64) -> bool {
        let (right, wrong) = (i64::from(labels - wrong), i64::from(wrong));
        self.bets.iter().any(|bet| right * bet.gain - wrong * bet.loss >= bar)
    }

    /// Further right labels in a row until either bet is won.
    pub fn labels_to_win(&self, labels: u32, wrong: u32) -> u64 {
        let (right, wrong) = (i64::from(labels - wrong), i64::from(wrong));
        let missing = |bet: &Bet| {
            let short = self.bar - (right * bet.gain - wrong * bet.loss);
            (short.max(0) as u64).div_ceil(bet.gain.max(1) as u64)
        };
        self.bets.iter().map(missing).min().unwrap_or(0)
    }

    /// The alarm after a label.
    pub fn alarm_after(&self, alarm: i64, wrong: bool) -> i64 {
        (alarm + if wrong { ALARM_WRONG } else { self.alarm_right }).max(0)
    }

    /// Whether the alarm goes off.
    pub fn is_alarm(alarm: i64) -> bool {
        alarm >= ALARM_BAR
    }

    /// The least share of wrong answers, in millionths, that so many labels with so many wrong ones
    /// refute with this confidence: the upper end of an estimate. `None` where they refute none.
    pub fn upper_share_ppm(labels: u32, wrong: u32, confidence_ppm: u32) -> Option<u32> {
        let doubt = f64::from(1_000_000 - confidence_ppm) / 1e6;
        let bar = ln_e9(WAGERS.len() as f64 / doubt);
        let refuted = |ppm: u32| Self::new(ppm, confidence_ppm).reach(labels, wrong, bar);
        if !refuted(MAX_ERROR_MAX_PPM) {
            return None;
        }
        let (mut low, mut high) = (0, MAX_ERROR_MAX_PPM);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if refuted(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_specification() {
        for (ppm, small, large) in [
            (10_000, (8_799_554, 2_079_441_542), (5_037_794, 693_147_181)),
            (20_000, (17_699_577, 2_079_441_542), (10_152_371, 693_147_181)),
            (50_000, (45_023_681, 2_079_441_542), (25_975_486, 693_147_181)),
        ] {
            let bets = Bets::new(ppm, 950_000);
            let found = bets.bets.map(|bet| (bet.gain, bet.loss));
            assert_eq!(found, [small, large], "{ppm}");
            assert_eq!(bets.bar, 4_787_491_743);
        }
    }

    #[test]
    fn right_answers_in_a_row_that_prove_a_share() {
        for (ppm, rows) in [(50_000, 107), (20_000, 271), (10_000, 545)] {
            let bets = Bets::new(ppm, 950_000);
            assert!(bets.are_won(rows, 0) && !bets.are_won(rows - 1, 0), "{ppm}");
            assert_eq!(bets.labels_to_win(0, 0), u64::from(rows));
            assert_eq!(bets.labels_to_win(rows, 0), 0);
        }
    }

    #[test]
    fn the_alarm_of_one_wrong_in_four() {
        let bets = Bets::new(50_000, 950_000);
        let mut alarm = 0;
        let labels = (0..).map(|at| at % 4 == 0);
        let rounds = labels.take_while(|&wrong| {
            alarm = bets.alarm_after(alarm, wrong);
            !Bets::is_alarm(alarm)
        });
        assert_eq!((rounds.count() + 1, alarm), (69, 9_719_220_987));
    }

    #[test]
    fn the_upper_share_falls_with_labels() {
        assert_eq!(Bets::upper_share_ppm(1, 0, 950_000), None);
        let at = |labels, wrong| Bets::upper_share_ppm(labels, wrong, 950_000).unwrap();
        assert!(at(100, 0) > at(1_000, 0) && at(1_000, 10) > at(1_000, 0));
        assert!((30_000..60_000).contains(&at(1_000, 30)), "{}", at(1_000, 30));
    }
}
