//! Tickets: signed tokens that a caller returns with its verdict on an answer.
//!
//! Owns: the bytes of a ticket, the proof that this cache issued it, the coin that decides which lookups
//! get one. A ticket holds all that a label needs, so nothing is kept for those that never come back. Any
//! thread.

use super::SimilarityE4;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

const VERSION: u8 = 1;
const BODY_BYTES: usize = 24;
/// Bytes of a ticket, written as twice as many hexadecimal digits.
pub const TICKET_BYTES: usize = BODY_BYTES + 8;

const FLAG_SERVED: u8 = 1;
const FLAG_REPLICA: u8 = 2;

/// The secret under which a cache signs its tickets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketSecret(pub [u64; 2]);

impl std::fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketSecret")
    }
}

/// A lookup that may be labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Epoch of the evidence.
    pub epoch: u32,
    /// Similarity of the question and the candidate.
    pub similarity: SimilarityE4,
    /// Whether the candidate was served.
    pub was_served: bool,
    /// Whether a replica issued it.
    pub by_replica: bool,
    /// Which entry was the candidate.
    pub entry_tag: u64,
    /// When it was issued, in seconds since 1970.
    pub issued_s: u32,
    /// What makes it unique among those of this second.
    pub serial: u32,
}

/// Why a text is no ticket of this cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketError;

impl Ticket {
    /// What no two tickets of a cache share.
    pub fn nonce(&self) -> u64 {
        u64::from(self.issued_s) << 32 | u64::from(self.serial)
    }

    /// As handed out, signed.
    pub fn write(&self, secret: TicketSecret) -> String {
        let mut bytes = [0; TICKET_BYTES];
        let flags =
            u8::from(self.was_served) * FLAG_SERVED + u8::from(self.by_replica) * FLAG_REPLICA;
        bytes[0] = VERSION;
        bytes[1..5].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[5..7].copy_from_slice(&self.similarity.0.to_le_bytes());
        bytes[7] = flags;
        bytes[8..16].copy_from_slice(&self.entry_tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.nonce().to_le_bytes());
        let proof = sign(&bytes[..BODY_BYTES], secret);
        bytes[BODY_BYTES..].copy_from_slice(&proof.to_le_bytes());
        crate::ids::hex_of(&bytes)
    }

    /// Reads what `write` wrote under this secret; anything else is refused.
    pub fn read(text: &[u8], secret: TicketSecret) -> Result<Self, TicketError> {
        let bytes: [u8; TICKET_BYTES] = crate::ids::from_hex(text).ok_or(TicketError)?;
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let (flags, nonce, proof) = (bytes[7], u64_at(16), u64_at(BODY_BYTES));
        let is_ours = sign(&bytes[..BODY_BYTES], secret) == proof;
        if bytes[0] != VERSION || flags > FLAG_SERVED + FLAG_REPLICA || !is_ours {
            return Err(TicketError);
        }
        Ok(Self {
            epoch: u32::from_le_bytes(std::array::from_fn(|i| bytes[1 + i])),
            similarity: SimilarityE4(u16::from_le_bytes([bytes[5], bytes[6]])),
            was_served: flags & FLAG_SERVED != 0,
            by_replica: flags & FLAG_REPLICA != 0,
            entry_tag: u64_at(8),
            issued_s: (nonce >> 32) as u32,
            serial: nonce as u32,
        })
    }
}

fn sign(body: &[u8], TicketSecret([first, second]): TicketSecret) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(first, second);
    hasher.write(body);
    hasher.finish()
}

/// Decides which lookups are audited, by a counter and never by similarity: a rate that depended on it
/// would bias the evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coin(u64);

impl Coin {
    /// A coin that begins at a random word, so that no two processes toss alike.
    pub fn new(start: u64) -> Self {
        Self(start)
    }

    /// Whether the coin falls, with a probability in millionths.
    pub fn falls(&mut self, probability_ppm: u32) -> bool {
        self.0 = self.0.wrapping_add(1);
        splitmix64(self.0) % 1_000_000 < u64::from(probability_ppm)
    }

    /// A word for the serial of a ticket.
    pub fn serial(&self) -> u32 {
        splitmix64(!self.0) as u32
    }
}

/// Steele, Lea and Flood's SplitMix64.
fn splitmix64(counter: u64) -> u64 {
    let mut word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: TicketSecret = TicketSecret([1, 2]);

    #[test]
    fn a_ticket_round_trips_and_no_other_text_is_one() {
        let ticket = Ticket {
            epoch: 7,
            similarity: SimilarityE4(9_123),
            was_served: true,
            by_replica: false,
            entry_tag: 0x1234_5678_9abc_def0,
            issued_s: 1_800_000_000,
            serial: 42,
        };
        let text = ticket.write(SECRET);
        assert_eq!(text.len(), 64);
        assert_eq!(Ticket::read(text.as_bytes(), SECRET), Ok(ticket));
        assert_eq!(Ticket::read(text.as_bytes(), TicketSecret([1, 3])), Err(TicketError));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(Ticket::read(&forged, SECRET), Err(TicketError), "digit {at}");
        }
        for text in [&b""[..], b"0", &[b'x'; 64], &[b'0'; 64], &[b'0'; 66]] {
            assert_eq!(Ticket::read(text, SECRET), Err(TicketError));
        }
    }

    #[test]
    fn the_coin_falls_as_often_as_it_should() {
        let mut coin = Coin::new(99);
        let falls = (0..100_000).filter(|_| coin.falls(20_000)).count();
        assert!((1_800..2_200).contains(&falls), "{falls}");
        assert!((0..1_000).all(|_| coin.falls(1_000_000)));
        assert!(!(0..1_000).any(|_| coin.falls(0)));
    }
}
