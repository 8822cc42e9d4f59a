//! Selects the newest messages that fit a budget.
//!
//! Owns: the rules of WINDOW. A walk from the newest message back, a block at a time: what it costs is
//! what it answers, and finding nothing before it costs nothing, so no sums over the whole session are
//! needed. Messages that ROLES passes over are walked over, up to a limit, at which the window ends.

use super::calls::Finder;
use super::log::{MessageRef, Session};
use super::message::{MessageSeq, Status};
use super::record::{FLAG_LINK, FLAG_PINNED, FLAG_RESULT, Head};
use super::tables::USER;
use crate::limits;
use crate::work::count_path;

/// Bounds and form of a window.
#[derive(Debug, Clone, Copy, Default)]
pub struct WindowRequest<'a> {
    /// Most tokens.
    pub tokens: Option<u64>,
    /// Most messages.
    pub last: Option<u64>,
    /// Most turns; no turn is cut.
    pub turns: Option<u64>,
    /// These roles alone.
    pub roles: Option<&'a [&'a [u8]]>,
    /// Keeps results with their call.
    pub pairs: bool,
    /// Most bytes of the reply.
    pub bytes: Option<u64>,
}

/// What fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Tokens of all its messages.
    pub tokens: u64,
    /// The oldest message besides pinned ones.
    pub first: Option<MessageSeq>,
    /// Whether older ones were left out.
    pub more: bool,
    /// The messages, oldest first.
    pub messages: Vec<MessageRef>,
}

struct Budget {
    tokens: Option<u64>,
    messages: Option<u64>,
    turns: Option<u64>,
    bytes: Option<u64>,
}

impl Budget {
    /// Takes from the budget, or nothing when there is too little.
    fn take(&mut self, tokens: u64, messages: u64, turns: u64, bytes: u64) -> bool {
        let fits = |left: Option<u64>, need: u64| left.is_none_or(|left| need <= left);
        if !fits(self.tokens, tokens)
            || !fits(self.messages, messages)
            || !fits(self.turns, turns)
            || !fits(self.bytes, bytes)
        {
            return false;
        }
        let less = |left: &mut Option<u64>, need: u64| *left = left.map(|left| left - need);
        less(&mut self.tokens, tokens);
        less(&mut self.messages, messages);
        less(&mut self.turns, turns);
        less(&mut self.bytes, bytes);
        true
    }
}

/// Messages that are in the window together or not at all.
#[derive(Default)]
struct Group {
    messages: Vec<(u32, MessageRef)>,
    tokens: u64,
    turns: u64,
    bytes: u64,
    /// The call that must be reached before the group may end.
    call: Option<u32>,
}

struct Walk<'s> {
    session: &'s Session,
    roles: u128,
    pairs: bool,
    finder: Finder<'s>,
}

impl Walk<'_> {
    fn wants(&self, head: &Head) -> bool {
        self.roles >> head.role & 1 == 1 && head.status() != Status::Open
    }

    /// Pinned, and not at the same time one end of a pair that must stay together.
    fn is_privileged(&self, head: &Head) -> bool {
        head.has(FLAG_PINNED) && !(self.pairs && head.has(FLAG_LINK))
    }

    /// Adds a message to the group, unless it is the result of a call that is not there.
    fn add(&mut self, group: &mut Group, at: MessageRef, head: &Head) {
        if self.pairs
            && head.has(FLAG_RESULT)
            && let Some(link) = self.session.record(at).1.link()
        {
            let call = self.finder.call(&link.id, head.seq).filter(|call| self.wants(call));
            let Some(call) = call else { return };
            group.call = Some(group.call.map_or(call.seq, |other| other.min(call.seq)));
        }
        group.messages.push((head.seq, at));
        group.tokens += u64::from(head.tokens);
        group.bytes += Session::answered_bytes(head);
    }
}

impl Session {
    /// The newest messages that fit: pinned ones first, then from the newest back, until one does not
    /// fit. Open messages are left out.
    pub fn window(&self, request: &WindowRequest<'_>) -> Window {
        let roles = self.roles.mask(request.roles);
        let finder = Finder::new(self);
        let mut walk = Walk { session: self, roles, pairs: request.pairs, finder };
        let most = limits::SESSION_REPLY_MESSAGES_MAX as u64;
        let messages = Some(request.last.map_or(most, |last| last.min(most)));
        let mut budget =
            Budget { tokens: request.tokens, messages, turns: request.turns, bytes: request.bytes };
        let (mut picked, mut tokens, pins_fit) = self.pick_pinned(&mut walk, &mut budget);
        let pins = picked.len();
        let mut more = !pins_fit;
        let mut group = Group::default();
        let newest = MessageSeq(if pins_fit { u32::MAX } else { 0 });
        let mut walked = 0;
        for (at, head) in self.heads_back(newest) {
            if walked == limits::SESSION_WALKED_MAX {
                more = true;
                break;
            }
            walked += 1;
            let seq = head.seq;
            if walk.is_privileged(&head) {
                continue;
            }
            if walk.wants(&head) {
                walk.add(&mut group, at, &head);
            }
            if head.role == USER && request.turns.is_some() {
                group.turns += 1;
            } else if request.turns.is_some() {
                continue;
            }
            if group.call.is_some_and(|call| call < seq) {
                continue;
            }
            if !budget.take(group.tokens, group.messages.len() as u64, group.turns, group.bytes) {
                more = true;
                break;
            }
            tokens += group.tokens;
            picked.append(&mut group.messages);
            (group.tokens, group.turns, group.bytes, group.call) = (0, 0, 0, None);
        }
        count_path(walked);
        more |= !group.messages.is_empty();
        let first = picked[pins..].last().map(|(seq, _)| MessageSeq(*seq));
        if pins > 0 {
            picked.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        }
        let messages = picked.into_iter().rev().map(|(_, at)| at).collect();
        Window { tokens, first, more, messages }
    }

    /// The pinned messages that fit, newest first, their tokens, and whether all did.
    fn pick_pinned(
        &self,
        walk: &mut Walk<'_>,
        budget: &mut Budget,
    ) -> (Vec<(u32, MessageRef)>, u64, bool) {
        let (mut picked, mut tokens) = (Vec::new(), 0);
        for &seq in self.pinned.iter().rev() {
            let Some((at, head)) = walk.finder.head(seq) else { continue };
            if !walk.is_privileged(&head) || !walk.wants(&head) {
                continue;
            }
            if !budget.take(head.tokens.into(), 1, 0, Self::answered_bytes(&head)) {
                return (picked, tokens, false);
            }
            tokens += u64::from(head.tokens);
            picked.push((seq, at));
        }
        (picked, tokens, true)
    }
}
