//! The state of MAXERROR in a cache: evidence, the secret that signs tickets, this process's counters.
//!
//! Owns: when a ticket is issued and what one that comes back is worth; the bytes of all that. What a
//! primary decides (starts, labels, epochs) a replica is told; `Audit` decides nothing by itself there.
//! Main thread only; `write` also in the forked child.

use super::evidence::{LabelEffect, WARM_UP_LOOKUPS};
use super::{
    Bets, Coin, Cold, Evidence, MaxError, Point, SimilarityE4, Ticket, TicketError, TicketSecret,
};
use crate::codec::{DecodeError, Writer, open_section};
use crate::ids::EntryId;

/// Section tag of the state.
const TAG: u16 = 0x0103;
/// Version of its bytes.
const VERSION: u16 = 1;

/// What this process counted; neither saved nor replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Near lookups.
    pub near: u64,
    /// Tickets issued.
    pub audits: u64,
    /// Reports on tickets.
    pub reports: u64,
    /// Reports that counted nothing: late, repeated, of another epoch.
    pub ignored: u64,
    /// Alarms.
    pub alarms: u64,
    /// Opinions on entries that they are right.
    pub opinions_right: u64,
    /// Opinions on entries that they are wrong.
    pub opinions_wrong: u64,
}

/// How far the evidence has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The first near lookups are still being seen.
    WarmUp,
    /// Labels come in; no threshold is proven.
    Unproven,
    /// No threshold is proven, and at every start more answers than promised are wrong.
    Refuted,
    /// A threshold is proven.
    Proven,
}

impl Standing {
    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Unproven => "unproven",
            Self::Refuted => "refuted",
            Self::Proven => "proven",
        }
    }
}

/// Labels at a start from which on more wrong ones than promised count as a refutation.
const REFUTED_LABELS_MIN: u32 = 100;

/// What a ticket that came back is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A label.
    Label(Ticket),
    /// Nothing: late, repeated, of another epoch.
    Nothing,
}

/// The state of a cache with MAXERROR.
#[derive(Debug)]
pub struct Audit {
    settings: MaxError,
    least: SimilarityE4,
    bets: Bets,
    evidence: Evidence,
    secret: TicketSecret,
    /// Whether replicas know where the chains start.
    is_published: bool,
    coin: Option<Coin>,
    /// What this process counted.
    pub counts: AuditCounts,
}

impl Audit {
    /// Without evidence, for a cache of this THRESHOLD.
    pub fn new(settings: MaxError, threshold: f64, secret: TicketSecret, epoch: u32) -> Self {
        let least = settings.least_similarity(threshold);
        Self {
            settings,
            least,
            bets: Bets::new(settings.max_error_ppm, settings.confidence_ppm),
            evidence: Evidence::new(least, epoch),
            secret,
            is_published: false,
            coin: None,
            counts: AuditCounts::default(),
        }
    }

    /// Takes over settings under which the evidence holds, or begins an epoch for those under which it does not.
    pub fn change(&mut self, settings: MaxError, threshold: f64, holds: bool) {
        let least = settings.least_similarity(threshold);
        let (was, is) = (self.settings, settings);
        let holds = holds
            && least == self.least
            && (was.max_error_ppm, was.confidence_ppm) == (is.max_error_ppm, is.confidence_ppm);
        self.settings = settings;
        if !holds {
            self.bets = Bets::new(settings.max_error_ppm, settings.confidence_ppm);
            self.least = least;
            self.begin_epoch();
        }
    }

    /// Forgets all evidence.
    pub fn begin_epoch(&mut self) {
        self.evidence.begin_epoch(self.least);
        self.is_published = false;
    }

    /// The evidence.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The bets on it.
    pub fn bets(&self) -> &Bets {
        &self.bets
    }

    /// Least similarity of a near lookup.
    pub fn least(&self) -> SimilarityE4 {
        self.least
    }

    /// The least similarity that is served: of the threshold in use, or by what is served before there is one.
    /// `None` where nothing is.
    pub fn serves_from(&self, threshold: f64) -> Option<f64> {
        match (self.evidence.in_use(), self.settings.cold) {
            (Some(point), _) => Some(point.threshold.as_f64()),
            (None, Cold::Static) => Some(threshold),
            (None, Cold::Exact) => None,
        }
    }

    /// Whether what is served by meaning is so by a proven threshold.
    pub fn is_proven(&self) -> bool {
        self.evidence.in_use().is_some()
    }

    /// How far the evidence has come.
    pub fn standing(&self) -> Standing {
        let exceeds = |point: &Point| {
            let promised = u64::from(point.labels) * u64::from(self.settings.max_error_ppm);
            point.labels >= REFUTED_LABELS_MIN && u64::from(point.wrong) * 1_000_000 > promised
        };
        let starts = self.evidence.starts();
        let points = self.evidence.points();
        match starts {
            [] => Standing::WarmUp,
            _ if self.is_proven() => Standing::Proven,
            _ if starts.iter().all(|&start| exceeds(&points[usize::from(start)])) => {
                Standing::Refuted
            }
            _ => Standing::Unproven,
        }
    }

    /// Near lookups that are to be seen before tickets are issued.
    pub fn warm_up_left(&self) -> u64 {
        match self.evidence.starts() {
            [] => (WARM_UP_LOOKUPS - self.evidence.warm().len()) as u64,
            _ => 0,
        }
    }

    /// Counts a near lookup. Where `decides`, on a primary, its similarity helps to fix the starts.
    pub fn note_near(&mut self, similarity: SimilarityE4, decides: bool) {
        self.counts.near += 1;
        if decides {
            self.evidence.see(similarity);
        }
    }

    /// A ticket for a near lookup whose caller can report, if the coin falls. `random` seeds the coin of this process,
    /// once; the time is asked for where there is a ticket.
    pub fn issue(
        &mut self,
        similarity: SimilarityE4,
        candidate: &EntryId,
        (was_served, by_replica): (bool, bool),
        now_s: impl FnOnce() -> u32,
        random: impl FnOnce() -> u64,
    ) -> Option<String> {
        if self.evidence.starts().is_empty() {
            return None;
        }
        let coin = self.coin.get_or_insert_with(|| Coin::new(random()));
        let always = self.settings.cold == Cold::Exact && self.evidence.in_use().is_none();
        if !coin.falls(if always { 1_000_000 } else { self.settings.audit_ppm }) {
            return None;
        }
        self.counts.audits += 1;
        let (tag, _) = candidate.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let ticket = Ticket {
            epoch: self.evidence.epoch(),
            similarity,
            was_served,
            by_replica,
            entry_tag: u64::from_le_bytes(*tag),
            issued_s: now_s(),
            serial: coin.serial(),
        };
        Some(ticket.write(self.secret))
    }

    /// What a ticket is worth that comes back now and counts for `ttl_s` seconds; an error where this cache did not
    /// issue it.
    pub fn judge(&self, ticket: &[u8], now_s: u32, ttl_s: u32) -> Result<Report, TicketError> {
        let ticket = Ticket::read(ticket, self.secret)?;
        let is_late = now_s.saturating_sub(ticket.issued_s) > ttl_s;
        let is_of_now = ticket.epoch == self.evidence.epoch() && !is_late;
        let counts = is_of_now && self.evidence.would_count(ticket.nonce());
        Ok(if counts { Report::Label(ticket) } else { Report::Nothing })
    }

    /// Counts a label of an epoch.
    pub fn label(
        &mut self,
        epoch: u32,
        similarity: SimilarityE4,
        is_wrong: bool,
        nonce: u64,
    ) -> LabelEffect {
        if epoch != self.evidence.epoch() {
            return LabelEffect::Ignored;
        }
        let effect = self.evidence.label(similarity, is_wrong, nonce, &self.bets, self.least);
        if effect == LabelEffect::Alarm {
            self.counts.alarms += 1;
            self.is_published = false;
        }
        effect
    }

    /// What replicas are to be told before the next label: once in each epoch, where the chains start.
    pub fn publish(&mut self) -> Option<Vec<u8>> {
        let news = !self.is_published && !self.evidence.starts().is_empty();
        news.then(|| self.told())
    }

    /// The state as replicas are told it.
    pub fn told(&mut self) -> Vec<u8> {
        self.is_published = !self.evidence.starts().is_empty();
        self.write(false)
    }

    /// Does as the primary did; what this process counted stays.
    pub fn obey(&mut self, told: Self) {
        *self = Self { coin: self.coin, counts: self.counts, ..told };
    }

    /// The bytes: all that a restart needs, or what primary and replica share.
    pub fn write(&self, is_whole: bool) -> Vec<u8> {
        let mut out = Writer::section(TAG, VERSION);
        let TicketSecret([first, second]) = self.secret;
        out.u64(first).u64(second);
        // Lookups write nothing to replicas: what they have seen is this server's own.
        let warm = if is_whole { self.evidence.warm() } else { &[] };
        let starts = if is_whole || self.is_published { self.evidence.starts() } else { &[] };
        out.u8(u8::from(self.is_published)).u8(warm.len() as u8);
        for seen in warm {
            out.u16(*seen);
        }
        self.evidence.write_with(starts, &mut out);
        out.finish()
    }

    /// Reads what `write` wrote for a cache of these settings; hostile bytes are refused.
    pub fn read(bytes: &[u8], settings: MaxError, threshold: f64) -> Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if (tag, version) != (TAG, VERSION) {
            return Err(DecodeError("evidence of another version"));
        }
        let secret = TicketSecret([from.u64()?, from.u64()?]);
        let is_published = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError("evidence of MAXERROR")),
        };
        let warm = (0..from.u8()?).map(|_| from.u16()).collect::<Result<Vec<_>, _>>()?;
        let mut evidence = Evidence::read(&mut from)?;
        from.finish()?;
        let mut audit = Self::new(settings, threshold, secret, 0);
        let fits = evidence.points().len() == audit.evidence.points().len()
            && evidence.set_warm(warm)
            && !(is_published && evidence.starts().is_empty());
        if !fits {
            return Err(DecodeError("evidence of other settings"));
        }
        audit.evidence = evidence;
        audit.is_published = is_published;
        Ok(audit)
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.evidence.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId([7; 16]);
    const NOW_S: u32 = 1_800_000_000;
    const TTL_S: u32 = 86_400;

    fn settings() -> MaxError {
        MaxError { max_error_ppm: 50_000, ..MaxError::default() }
    }

    fn audit() -> Audit {
        Audit::new(settings(), 0.9, TicketSecret([1, 2]), 0)
    }

    fn warmed() -> Audit {
        let mut audit = audit();
        for seen in 0..WARM_UP_LOOKUPS as u16 {
            assert_eq!(audit.issue(SimilarityE4(9_000), &ID, (false, false), || NOW_S, || 5), None);
            audit.note_near(SimilarityE4(8_000 + 10 * seen), true);
        }
        audit
    }

    fn ticket(audit: &mut Audit, similarity: u16) -> String {
        audit.issue(SimilarityE4(similarity), &ID, (false, false), || NOW_S, || 5).unwrap()
    }

    fn report(audit: &mut Audit, ticket: &str, is_wrong: bool, now_s: u32) -> LabelEffect {
        match audit.judge(ticket.as_bytes(), now_s, TTL_S).unwrap() {
            Report::Nothing => LabelEffect::Ignored,
            Report::Label(ticket) => {
                audit.label(ticket.epoch, ticket.similarity, is_wrong, ticket.nonce())
            }
        }
    }

    #[test]
    fn a_ticket_counts_once_in_its_time_and_epoch() {
        let mut audit = warmed();
        let [once, late, old] = [0; 3].map(|_| ticket(&mut audit, 9_000));
        assert_eq!(report(&mut audit, &once, false, NOW_S + TTL_S), LabelEffect::Counted);
        assert_eq!(report(&mut audit, &once, false, NOW_S), LabelEffect::Ignored);
        assert_eq!(report(&mut audit, &late, false, NOW_S + TTL_S + 1), LabelEffect::Ignored);
        audit.begin_epoch();
        assert_eq!(report(&mut audit, &old, false, NOW_S), LabelEffect::Ignored);
        assert!(audit.judge(b"0000", NOW_S, TTL_S).is_err());
        assert_eq!(audit.evidence().points().last().unwrap().labels, 0);
    }

    #[test]
    fn a_ticket_whose_nonce_is_forgotten_counts_nothing() {
        let mut audit = warmed();
        let first = ticket(&mut audit, 9_000);
        assert_eq!(report(&mut audit, &first, false, NOW_S), LabelEffect::Counted);
        for _ in 0..crate::limits::AUDIT_NONCES_MAX {
            let next = audit.issue(SimilarityE4(9_000), &ID, (false, false), || NOW_S + 1, || 5);
            let Some(next) = next else { continue };
            report(&mut audit, &next, true, NOW_S + 1);
        }
        let labels = audit.evidence().points().last().unwrap().labels;
        assert_eq!(report(&mut audit, &first, false, NOW_S), LabelEffect::Ignored);
        assert_eq!(audit.evidence().points().last().unwrap().labels, labels);
    }

    #[test]
    fn bytes_round_trip_and_replicas_are_told_what_they_share() {
        let mut primary = audit();
        for _ in 0..40 {
            primary.note_near(SimilarityE4(8_800), true);
        }
        let mut replica = Audit::read(&primary.write(false), settings(), 0.9).unwrap();
        assert_eq!(replica.write(false), primary.write(false), "what was seen is not shared");
        let saved = Audit::read(&primary.write(true), settings(), 0.9).unwrap();
        assert_eq!(saved.evidence().warm(), primary.evidence().warm());
        for _ in 40..WARM_UP_LOOKUPS {
            primary.note_near(SimilarityE4(8_800), true);
        }
        assert_eq!(
            replica.write(false),
            primary.write(false),
            "nor are starts before they are told"
        );
        let label = ticket(&mut primary, 9_000);
        replica.obey(Audit::read(&primary.publish().unwrap(), settings(), 0.9).unwrap());
        assert_eq!(primary.publish(), None);
        let Report::Label(label) = primary.judge(label.as_bytes(), NOW_S, TTL_S).unwrap() else {
            panic!()
        };
        for side in [&mut primary, &mut replica] {
            side.label(label.epoch, label.similarity, true, label.nonce());
        }
        assert_eq!(replica.write(true), primary.write(true));
        assert_eq!(primary.evidence().points().last().unwrap().wrong, 1);
        // A ticket of the replica is one of the primary.
        let own = replica.issue(SimilarityE4(9_100), &ID, (true, true), || NOW_S, || 9).unwrap();
        assert!(matches!(primary.judge(own.as_bytes(), NOW_S, TTL_S), Ok(Report::Label(_))));
        let bytes = primary.write(true);
        for end in 0..bytes.len() {
            assert!(Audit::read(&bytes[..end], settings(), 0.9).is_err());
        }
        assert!(Audit::read(&bytes, settings(), 0.7).is_err(), "another grid");
    }

    #[test]
    fn settings_that_judge_otherwise_begin_an_epoch() {
        let with = |change: fn(&mut MaxError)| {
            let mut settings = settings();
            change(&mut settings);
            settings
        };
        let holds = [
            with(|s| s.audit_ppm = 1),
            with(|s| s.cold = Cold::Static),
            with(|s| s.min_similarity = Some(SimilarityE4(7_000))),
        ];
        let ends = [
            with(|s| s.max_error_ppm = 1),
            with(|s| s.confidence_ppm = 900_000),
            with(|s| s.min_similarity = Some(SimilarityE4(7_100))),
        ];
        for (settings, epoch) in
            holds.into_iter().map(|s| (s, 0)).chain(ends.into_iter().map(|s| (s, 1)))
        {
            let mut audit = warmed();
            audit.change(settings, 0.9, true);
            assert_eq!(audit.evidence().epoch(), epoch, "{settings:?}");
            assert_eq!(audit.evidence().starts().is_empty(), epoch > 0);
        }
        let mut audit = warmed();
        audit.change(settings(), 0.9, false);
        assert_eq!(audit.evidence().epoch(), 1, "other guards");
    }

    #[test]
    fn what_is_served_follows_from_the_evidence() {
        let mut audit = warmed();
        assert_eq!((audit.standing(), audit.serves_from(0.9)), (Standing::Unproven, None));
        for _ in 0..107 {
            let ticket = ticket(&mut audit, 9_900);
            report(&mut audit, &ticket, false, NOW_S);
        }
        assert_eq!(audit.standing(), Standing::Proven);
        let in_use = audit.evidence().in_use().unwrap().threshold.as_f64();
        assert_eq!(audit.serves_from(0.9), Some(in_use));
        audit.begin_epoch();
        assert_eq!((audit.standing(), audit.warm_up_left()), (Standing::WarmUp, 100));
        audit.change(MaxError { cold: Cold::Static, ..settings() }, 0.9, true);
        assert_eq!(audit.serves_from(0.88), Some(0.88));
        let mut dirty = warmed();
        for at in 0..400 {
            let ticket = ticket(&mut dirty, 9_900);
            report(&mut dirty, &ticket, at % 5 == 0, NOW_S);
        }
        assert_eq!(dirty.standing(), Standing::Refuted);
    }
}
