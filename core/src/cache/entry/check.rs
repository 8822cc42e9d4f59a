//! Validates the bytes of an entry from RDB, RESTORE or a replicated command.
//!
//! Owns: every property that readers of an entry rely on. Any thread.

use super::layout::{
    COSTS, EMBEDDING, FLAGS_AT, HEADER, LABELS, LABELS_BYTES, NORM_BYTES, PACKED, QUANT, STALE,
    VERSION,
};
use super::view::EntryView;
use crate::codec::{DecodeError, pack_text, unpack_text};
use crate::limits;
use crate::vector::Quant;
use crate::vector::normalise::decode_fp32;

impl EntryView<'_> {
    /// Checks everything that a reader relies on.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let known = QUANT | STALE | EMBEDDING | COSTS | LABELS | PACKED;
        if self.bytes.len() < HEADER
            || self.bytes[0] != VERSION
            || self.bytes[FLAGS_AT] & !known != 0
            || self.bytes.len() < self.parts_at()
        {
            return Err(DecodeError("entry header"));
        }
        if Quant::from_byte(self.bytes[FLAGS_AT] & QUANT).is_none()
            || u32::from(self.dim()) > limits::DIM_MAX
        {
            return Err(DecodeError("entry's vector form"));
        }
        // An entry has one form: a group that says nothing is left out.
        let costs = (self.cost_nano_usd(), self.tokens(), self.latency_ms(), self.grace_s());
        let empty = |at: usize| self.bytes[at..at + LABELS_BYTES].iter().all(|&byte| byte == 0);
        if (self.has(COSTS) && costs == (0, 0, 0, 0)) || self.labels().is_some_and(empty) {
            return Err(DecodeError("entry's groups"));
        }
        let lengths = self.lengths();
        let bounds = [
            usize::MAX,
            limits::SCOPE_MAX_BYTES,
            limits::CONTEXT_MAX_BYTES,
            limits::PROMPT_MAX_BYTES,
            limits::RESPONSE_MAX_BYTES,
            limits::ID_MAX_BYTES,
            usize::MAX,
            limits::META_MAX_BYTES,
        ];
        if lengths.iter().zip(bounds).any(|(&length, bound)| length > bound) {
            return Err(DecodeError("entry part is longer than its bound"));
        }
        if self.whole_len() != self.bytes.len() {
            return Err(DecodeError("entry length does not fit its parts"));
        }
        if self.dim() > 0 && self.vector().is_none() {
            return Err(DecodeError("entry's vector"));
        }
        if self.name().is_some_and(|name| name.iter().any(u8::is_ascii_control)) {
            return Err(DecodeError("entry's name"));
        }
        if self.tags_checked().is_none() {
            return Err(DecodeError("entry's tags"));
        }
        if self.meta().is_some() && self.meta_object().is_none() {
            return Err(DecodeError("entry's META"));
        }
        if self.has(PACKED) && (self.is_embedding() || !is_packed_text(self.kept_response())) {
            return Err(DecodeError("entry's packed response"));
        }
        let sane = u64::from(self.latency_ms()) <= limits::LATENCY_MAX_MS
            && self.cost_nano_usd() <= limits::COST_MAX_NANO_USD
            && self.grace_s() <= limits::GRACE_MAX_S;
        if self.is_embedding() && !self.is_sound_embedding() {
            return Err(DecodeError("embedding"));
        }
        if sane { Ok(()) } else { Err(DecodeError("entry's numbers")) }
    }

    fn is_sound_embedding(&self) -> bool {
        let named =
            self.prompt().len() == 32 && self.scope().is_empty() && self.context().is_empty();
        named && self.name().is_none() && self.is_packed_embedding()
    }

    fn tags_checked(&self) -> Option<()> {
        let mut rest = self.part(6);
        let mut count = 0;
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_le_bytes(*length));
            if length == 0 || length > limits::TAG_MAX_BYTES {
                return None;
            }
            rest = tail.get(length..)?;
            count += 1;
        }
        (count == self.tag_count() && count <= limits::TAGS_MAX).then_some(())
    }

    /// Whether response and vector are what `pack_embedding` makes: for entries of unknown origin.
    fn is_packed_embedding(&self) -> bool {
        let response = self.kept_response();
        if self.dim() > 0 {
            let norm = response.first_chunk::<NORM_BYTES>().map(|bytes| f64::from_le_bytes(*bytes));
            let usable = norm.is_some_and(|norm| norm.is_finite() && norm > 0.0);
            return usable && response.len() == NORM_BYTES && self.quant() != Quant::None;
        }
        self.quant() == Quant::None && decode_fp32(response).is_ok()
    }
}

/// Whether bytes are what a text is packed into: it has one such form, and an unpacked one where that does not pay.
fn is_packed_text(packed: &[u8]) -> bool {
    unpack_text(packed, limits::PACKED_TEXT_MAX_BYTES)
        .is_some_and(|text| pack_text(&text).as_deref() == Some(packed))
}
