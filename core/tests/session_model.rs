//! Random commands on a session against a plain list: what is answered, what a replica that is told the
//! changes holds, and what saving and loading makes of it. Runs on the test runner's threads.

mod common;

use common::Random;
use llmcache_core::ids::UnixMs;
use llmcache_core::session::{
    AppendTerms, BeginRequest, Effect, IdText, Line, Link, LinkKind, Message, MessageRef,
    MessageSeq, Outcome, Session, Status, WindowRequest, estimate_tokens, to_json,
};
use llmcache_core::vector::Query;
use llmcache_core::work::take_counted;
use std::borrow::Cow;

const STEPS: usize = 1_000_000;
const ROLES: [&[u8]; 6] = [b"user", b"assistant", b"tool", b"system", b"critic", b"x.y-z_1"];

/// A message of the plain list.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    seq: u32,
    role: Vec<u8>,
    payload: Vec<u8>,
    id: Option<Vec<u8>>,
    tokens: u32,
    estimated: bool,
    pinned: bool,
    summary: bool,
    link: Option<(LinkKind, Vec<u8>)>,
    meta: Option<Vec<u8>>,
    vector: Option<Vec<u8>>,
    status: Status,
}

impl Plain {
    fn of(message: &Message<'_>) -> Self {
        Self {
            seq: message.seq.0,
            role: message.role.to_vec(),
            payload: message.payload.to_vec(),
            id: message.id.map(|id| id.to_vec()),
            tokens: message.tokens,
            estimated: message.estimated,
            pinned: message.pinned,
            summary: message.summary,
            link: message.link.map(|link| (link.kind, link.id.to_vec())),
            meta: message.meta.map(<[u8]>::to_vec),
            vector: message.vector.as_ref().map(|vector| vector.to_vec()),
            status: message.status,
        }
    }

    fn message(&self) -> Message<'_> {
        let mut message = Message::plain(MessageSeq(self.seq), &self.role, &self.payload);
        message.id = self.id.as_deref().map(IdText::Text);
        (message.tokens, message.estimated) = (self.tokens, self.estimated);
        message.pinned = self.pinned;
        let link = self.link.as_ref();
        message.link = link.map(|(kind, id)| Link { kind: *kind, id: IdText::Text(id) });
        message.meta = self.meta.as_deref();
        message.vector = self.vector.as_deref().map(Cow::Borrowed);
        message.status = self.status;
        message
    }
}

#[derive(Default)]
struct Model {
    list: Vec<Plain>,
    next: u32,
    /// Token and end of the lease of open messages.
    producers: Vec<(u32, u64, u64)>,
}

struct World {
    random: Random,
    session: Session,
    replica: Session,
    model: Model,
    now: u64,
}

fn seqs(session: &Session, refs: &[MessageRef]) -> Vec<u32> {
    refs.iter().map(|at| session.message(*at).seq.0).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let model = Model { next: 1, ..Model::default() };
        let (session, replica) = (Session::new(), Session::new());
        Self { random: Random(seed), session, replica, model, now: 1_000 }
    }

    /// Applies a change here, and its bytes there.
    fn apply(&mut self, effect: &Effect<'_>) -> u64 {
        let bytes = effect.encode();
        let told = Effect::decode(&bytes).expect("our own bytes");
        assert_eq!(told, *effect);
        self.replica.check(&told).expect("our own change");
        self.replica.apply(&told);
        self.session.apply(effect)
    }

    fn some_seq(&mut self) -> u32 {
        match self.model.list.len() {
            0 => self.random.below(5) as u32,
            len if self.random.below(8) > 0 => self.model.list[self.random.below(len)].seq,
            _ => self.random.below(self.model.next as usize + 3) as u32,
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match self.random.below(40) {
            0 => 9_000 + self.random.below(9_000),
            1 => 0,
            2..8 => self.random.below(900),
            _ => self.random.below(40),
        };
        (0..length).map(|_| self.random.next() as u8).collect()
    }

    fn vector(&mut self) -> Vec<u8> {
        let numbers: Vec<f32> = (0..4).map(|_| self.random.below(2_000) as f32 - 999.5).collect();
        let query = Query::new(&numbers).expect("a vector");
        let mut out = Vec::new();
        llmcache_core::session::VECTOR_QUANT.encode(query.normalised(), &mut out);
        out
    }

    fn fresh(&mut self) -> Plain {
        let payload = self.payload();
        let told = self.random.below(3) > 0;
        let id = match self.random.below(6) {
            0 => Some(format!("{:08x}-0000-4000-8000-00000000000a", self.random.below(400))),
            1 => Some(format!("id{}", self.random.below(400))),
            _ => None,
        };
        let link = match self.random.below(8) {
            0 => Some((LinkKind::Call, format!("c{}", self.random.below(30)).into_bytes())),
            1 | 2 => Some((LinkKind::Result, format!("c{}", self.random.below(30)).into_bytes())),
            _ => None,
        };
        Plain {
            seq: 0,
            role: ROLES[self.random.below(ROLES.len())].to_vec(),
            tokens: if told {
                self.random.below(60) as u32
            } else {
                estimate_tokens(payload.len())
            },
            estimated: !told,
            payload,
            id: id.map(String::into_bytes),
            pinned: self.random.below(25) == 0,
            summary: false,
            link,
            meta: (self.random.below(5) == 0).then(|| b"{\"a\": 1}".to_vec()),
            vector: (self.random.below(4) == 0).then(|| self.vector()),
            status: Status::Whole,
        }
    }

    fn append(&mut self) {
        let mut fresh: Vec<Plain> = (0..1 + self.random.below(3)).map(|_| self.fresh()).collect();
        if self.random.below(6) == 0
            && let Some(known) = self.model.list.iter().rev().find(|m| m.id.is_some())
        {
            fresh[0] = known.clone();
        }
        let newest = self.model.list.last().map_or(0, |last| last.seq);
        let if_seq = match self.random.below(8) {
            0 => Some(newest),
            1 => Some(newest + 1),
            _ => None,
        };
        let messages = fresh.iter().map(Plain::message).collect();
        let planned =
            self.session.plan_append(messages, AppendTerms { if_seq, ..Default::default() }, b"s");
        let (mut outcomes, mut added, mut refused) = (Vec::new(), Vec::<Plain>::new(), false);
        for plain in &fresh {
            let same_id = |other: &&Plain| plain.id.is_some() && other.id == plain.id;
            let known = added.iter().find(same_id).or(self.model.list.iter().find(same_id));
            match known {
                Some(known)
                    if known.role == plain.role
                        && known.payload == plain.payload
                        && known.status == Status::Whole =>
                {
                    outcomes.push((known.seq, Outcome::Duplicate))
                }
                Some(_) => refused = true,
                None => {
                    let seq = self.model.next + added.len() as u32;
                    outcomes.push((seq, Outcome::New));
                    added.push(Plain { seq, ..plain.clone() });
                }
            }
        }
        if refused {
            assert!(planned.is_err(), "another message under a used id");
            return;
        }
        let planned = planned.expect("a fine message");
        if !added.is_empty() && if_seq.is_some_and(|seq| seq != newest) {
            assert!(planned.is_none());
            return;
        }
        let planned = planned.expect("the condition holds");
        let seen: Vec<_> =
            planned.outcomes.iter().map(|(seq, outcome)| (seq.0, *outcome)).collect();
        assert_eq!(seen, outcomes);
        if added.is_empty() {
            assert!(planned.messages.is_empty());
            return;
        }
        let effect = Effect::Append { messages: planned.messages };
        self.apply(&effect);
        self.model.next += added.len() as u32;
        self.model.list.extend(added);
    }

    fn cut(&mut self) {
        let most = 20 + self.random.below(300);
        let by_length = self.random.below(2) == 0;
        let list = &mut self.model.list;
        let cut = if by_length {
            self.session.cut_for_length(most as u64)
        } else {
            self.session.cut_for_tokens(most as u64 * 20)
        };
        let over = |list: &[Plain]| {
            let tokens: u64 = list.iter().map(|m| u64::from(m.tokens)).sum();
            if by_length { list.len() > most } else { tokens > most as u64 * 20 }
        };
        let mut removed = 0;
        while over(list)
            && let Some(oldest) = list.iter().position(|message| !message.pinned)
        {
            list.remove(oldest);
            removed += 1;
        }
        assert_eq!(self.apply(&Effect::Cut { before: cut }), removed);
        self.forget_producers();
    }

    fn forget_producers(&mut self) {
        let list = &self.model.list;
        self.model.producers.retain(|(seq, ..)| list.iter().any(|m| m.seq == *seq));
    }

    fn remove(&mut self) {
        let seqs: Vec<MessageSeq> =
            (0..1 + self.random.below(4)).map(|_| MessageSeq(self.some_seq())).collect();
        let before = self.model.list.len();
        self.model.list.retain(|message| !seqs.contains(&MessageSeq(message.seq)));
        let removed = self.apply(&Effect::Remove { seqs });
        assert_eq!(removed as usize, before - self.model.list.len());
        self.forget_producers();
    }

    fn edit(&mut self) {
        let (seq, payload) = (MessageSeq(self.some_seq()), self.payload());
        let tokens = (self.random.below(2) == 0).then(|| self.random.below(60) as u32);
        let vector = (self.random.below(3) == 0).then(|| self.vector());
        let planned = self.session.plan_edit(seq, &payload, tokens, vector.clone(), b"s");
        let place = self.model.list.iter().position(|message| message.seq == seq.0);
        let Some(place) = place else {
            assert_eq!(planned.expect("no error"), None);
            return;
        };
        if self.model.list[place].status == Status::Open {
            assert!(planned.is_err());
            return;
        }
        let effect = planned.expect("no error").expect("a message");
        assert_eq!(self.apply(&effect), 1);
        let message = &mut self.model.list[place];
        (message.tokens, message.estimated) =
            (tokens.unwrap_or(estimate_tokens(payload.len())), tokens.is_none());
        (message.payload, message.vector) = (payload, vector);
    }

    /// Messages of known and new ids that take the place of those of their ids, or follow all others.
    fn upsert(&mut self) {
        let mut fresh: Vec<Plain> = (0..1 + self.random.below(3)).map(|_| self.fresh()).collect();
        for plain in &mut fresh {
            let open = self.model.list.iter().find(|m| m.status == Status::Open);
            plain.id = match open.filter(|_| self.random.below(8) == 0) {
                Some(open) => open.id.clone(),
                None => Some(format!("id{}", self.random.below(400)).into_bytes()),
            };
        }
        let is_named = |m: &&Plain| m.id.as_ref().is_some_and(|id| id.starts_with(b"id"));
        let known = self.model.list.iter().rev().find(is_named);
        if self.random.below(4) == 0
            && let Some(known) = known
        {
            fresh[0] = Plain { seq: 0, ..known.clone() };
        }
        let messages = fresh.iter().map(Plain::message).map(|message| Message {
            status: Status::Whole,
            summary: false,
            ..message
        });
        let terms = AppendTerms { upsert: true, ..Default::default() };
        let planned = self.session.plan_append(messages.collect(), terms, b"s");
        let (mut list, mut next) = (self.model.list.clone(), self.model.next);
        let (mut outcomes, mut refused) = (Vec::new(), false);
        for plain in &fresh {
            let plain = Plain { status: Status::Whole, summary: false, ..plain.clone() };
            match list.iter_mut().find(|other| other.id == plain.id) {
                Some(other) if other.status == Status::Open => refused = true,
                Some(other) => {
                    let new = Plain { seq: other.seq, summary: false, ..plain };
                    let same = *other == new;
                    outcomes
                        .push((new.seq, if same { Outcome::Duplicate } else { Outcome::Replaced }));
                    *other = new;
                }
                None => {
                    outcomes.push((next, Outcome::New));
                    list.push(Plain { seq: next, ..plain });
                    next += 1;
                }
            }
        }
        if refused {
            assert!(planned.is_err(), "an open message is nobody's to replace");
            return;
        }
        let planned = planned.expect("fine messages").expect("no condition");
        // What a request says twice of a new id is one new message.
        let seen = planned.outcomes.iter().map(|(seq, _)| seq.0);
        assert!(seen.eq(outcomes.iter().map(|(seq, _)| *seq)));
        assert_eq!(planned.changes_nothing(), list == self.model.list);
        for effect in [
            Effect::Replace { messages: planned.replaced },
            Effect::Append { messages: planned.messages },
        ] {
            self.apply(&effect);
        }
        (self.model.list, self.model.next) = (list, next);
    }

    fn compact(&mut self) {
        let (upto, payload) = (self.some_seq(), self.payload());
        let planned = self.session.plan_compact(MessageSeq(upto), b"system", &payload, Some(7));
        let list = &mut self.model.list;
        if list.iter().any(|m| m.seq <= upto && m.status == Status::Open) {
            assert!(planned.is_err());
            return;
        }
        let doomed = |message: &Plain| message.seq <= upto && !message.pinned;
        let Some(place) = list.iter().rposition(doomed) else {
            assert_eq!(planned.expect("no error"), None);
            return;
        };
        let effect = planned.expect("no error").expect("messages");
        let removed = list.iter().filter(|message| doomed(message)).count();
        let mut summary =
            Plain::of(&Message::plain(MessageSeq(list[place].seq), b"system", &payload));
        (summary.tokens, summary.estimated, summary.summary) = (7, false, true);
        list[place] = summary;
        let kept = list[place].seq;
        list.retain(|message| !doomed(message) || message.seq == kept);
        assert_eq!(self.apply(&effect), removed as u64);
    }

    fn stream(&mut self) {
        self.now += self.random.below(400) as u64;
        let now = UnixMs(self.now);
        match self.random.below(6) {
            0 => self.begin(now),
            1..4 => self.chunk(now),
            4 => self.end(),
            _ => self.stop(now),
        }
    }

    fn begin(&mut self, now: UnixMs) {
        let id = format!("st{}", self.random.below(6));
        let (token, takeover) = (self.random.next(), self.random.below(2) == 0);
        let request = BeginRequest {
            role: b"assistant",
            id: Some(id.as_bytes()),
            lease_ms: 1_000,
            meta: None,
            takeover,
        };
        let began = self.session.plan_begin(&request, now, token).expect("room");
        let found = self.model.list.iter().find(|m| m.id.as_deref() == Some(id.as_bytes()));
        let Some(found) = found.cloned() else {
            assert_eq!((began.seq.0, began.offset), (self.model.next, 0));
            self.apply(&began.effect.expect("a new message"));
            let mut message = Message::plain(began.seq, b"assistant", b"");
            message.estimated = false;
            let mut plain = Plain { status: Status::Open, ..Plain::of(&message) };
            plain.id = Some(id.clone().into_bytes());
            self.model.list.push(plain);
            self.model.next += 1;
            self.model.producers.push((began.seq.0, token, self.now + 1_000));
            return;
        };
        assert_eq!((began.seq.0, began.offset), (found.seq, found.payload.len() as u64));
        let own = self.model.producers.iter_mut().find(|(seq, ..)| *seq == found.seq);
        let lapsed = own.as_ref().is_some_and(|(_, _, until)| *until <= now.0);
        assert_eq!(began.effect.is_some(), takeover && lapsed);
        if let (Some(own), Some(effect)) = (own, began.effect) {
            (own.1, own.2) = (token, now.0 + 1_000);
            self.apply(&effect);
        }
    }

    fn chunk(&mut self, now: UnixMs) {
        if self.model.producers.is_empty() {
            return;
        }
        let at = self.random.below(self.model.producers.len());
        let (seq, token, ..) = self.model.producers[at];
        let place = self.model.list.iter().position(|m| m.seq == seq).expect("it is there");
        let have = self.model.list[place].payload.clone();
        let mut data = self.payload();
        // Some parts come again, some overlap, some leave a gap, some say something else.
        let back = self.random.below(30).min(have.len()) * usize::from(self.random.below(3) == 0);
        let gap = u64::from(self.random.below(20) == 0);
        let offset = (have.len() - back) as u64 + gap;
        if back > 0 && gap == 0 {
            let overlap = back.min(data.len());
            data[..overlap].copy_from_slice(&have[have.len() - back..][..overlap]);
            if overlap > 0 && self.random.below(4) == 0 {
                data[0] ^= 1;
            }
        }
        let wrong = self.random.below(20) == 0;
        let planned = self.session.plan_chunk(
            MessageSeq(seq),
            token.wrapping_add(wrong.into()),
            offset,
            &data,
            now,
        );
        let fits = offset <= have.len() as u64 && {
            let overlap = (have.len() - offset as usize).min(data.len());
            have[offset as usize..][..overlap] == data[..overlap]
        };
        if wrong || !fits {
            assert!(planned.is_err());
            return;
        }
        let planned = planned.expect("a part that fits");
        assert_eq!(planned.end, offset + data.len() as u64);
        assert!(!planned.stop);
        if let Some(effect) = planned.effect {
            self.apply(&effect);
            self.model.producers[at].2 = now.0 + 1_000;
        }
        let text = &mut self.model.list[place].payload;
        text.truncate(offset as usize);
        text.extend_from_slice(&data);
        if text.len() < have.len() {
            *text = have;
        }
    }

    fn end(&mut self) {
        if self.model.producers.is_empty() {
            return;
        }
        let at = self.random.below(self.model.producers.len());
        let (seq, token, _) = self.model.producers.remove(at);
        let tokens = (self.random.below(2) == 0).then_some(11);
        let failed = (self.random.below(3) == 0).then_some(Status::Failed);
        let planned = self.session.plan_end(MessageSeq(seq), token, failed, tokens, None);
        let ended = planned.expect("the producer's own");
        let bytes = ended.bytes;
        self.apply(&ended.effect.expect("the first END"));
        let message = self.model.list.iter_mut().find(|m| m.seq == seq).expect("it is there");
        assert_eq!(bytes, message.payload.len() as u64);
        message.status = failed.unwrap_or(Status::Done);
        message.tokens = tokens.unwrap_or(estimate_tokens(message.payload.len()));
        message.estimated = tokens.is_none();
        let again = self.session.plan_end(MessageSeq(seq), token, failed, tokens, None);
        let again = again.expect("END sent again");
        assert_eq!((again.bytes, again.effect), (bytes, None));
    }

    fn stop(&mut self, now: UnixMs) {
        let seq = MessageSeq(self.some_seq());
        let effect = self.session.plan_stop(seq);
        let place = self.model.producers.iter().position(|(own, ..)| *own == seq.0);
        assert_eq!(effect.is_some(), place.is_some());
        let (Some(place), Some(effect)) = (place, effect) else { return };
        self.apply(&effect);
        let (_, token, _) = self.model.producers.remove(place);
        let message = self.model.list.iter_mut().find(|m| m.seq == seq.0).expect("it is there");
        message.status = Status::Stopped;
        (message.tokens, message.estimated) = (estimate_tokens(message.payload.len()), true);
        let bytes = message.payload.len() as u64;
        // Its producer learns of it, adds nothing more, and may still tell tokens.
        let chunk = self.session.plan_chunk(seq, token, bytes, b"more", now);
        let chunk = chunk.expect("no error");
        assert_eq!((chunk.end, chunk.stop, chunk.effect), (bytes, true, None));
        assert!(self.session.plan_chunk(seq, token ^ 1, bytes, b"more", now).is_err());
        let ended = self.session.plan_end(seq, token, None, Some(5), None).expect("no error");
        assert_eq!((ended.bytes, ended.status), (bytes, Status::Stopped));
        self.apply(&ended.effect.expect("tokens"));
        let message = self.model.list.iter_mut().find(|m| m.seq == seq.0).expect("it is there");
        (message.tokens, message.estimated) = (5, false);
    }

    fn window(&mut self) {
        let some = |random: &mut Random, bound: usize| {
            (random.below(2) == 0).then(|| random.below(bound) as u64)
        };
        let random = &mut self.random;
        let roles: Vec<&[u8]> = ROLES.iter().copied().filter(|_| random.below(2) == 0).collect();
        let request = WindowRequest {
            tokens: some(random, 4_000),
            last: some(random, 60),
            turns: some(random, 12),
            roles: (random.below(4) == 0).then_some(&roles),
            pairs: random.below(2) == 0,
            bytes: None,
        };
        let window = self.session.window(&request);
        let expected = plain_window(&self.model.list, &request);
        let got = (window.tokens, seqs(&self.session, &window.messages));
        assert_eq!(got, (expected.tokens, expected.seqs), "{request:?}");
        assert_eq!(window.first.map(|seq| seq.0), expected.first, "{request:?}");
        assert_eq!(window.more, expected.more, "{request:?}");
    }

    fn read(&mut self) {
        let (a, b) = (self.some_seq(), self.some_seq());
        let (from, to) = (a.min(b), a.max(b));
        let list = &self.model.list;
        let wanted: Vec<u32> =
            list.iter().map(|m| m.seq).filter(|seq| (from..=to).contains(seq)).collect();
        let forward =
            self.session.forward(MessageSeq(from)).map(|at| self.session.message(at).seq.0);
        assert_eq!(forward.take_while(|seq| *seq <= to).collect::<Vec<_>>(), wanted);
        let back = self.session.backward(MessageSeq(to)).map(|at| self.session.message(at).seq.0);
        let mut back: Vec<_> = back.take_while(|seq| *seq >= from).collect();
        back.reverse();
        assert_eq!(back, wanted);
        let at = self.session.locate(MessageSeq(a));
        let found = at.map(|at| Plain::of(&self.session.whole_message(at)));
        assert_eq!(found.as_ref(), list.iter().find(|message| message.seq == a));
        if let Some(id) = found.and_then(|message| message.id) {
            assert_eq!(self.session.find_id(&id), at);
        }
        assert_eq!(self.session.find_id(b"nobody"), None);
    }

    fn recall(&mut self) {
        let numbers: Vec<f32> = (0..4).map(|_| self.random.below(2_000) as f32 - 999.5).collect();
        let query = Query::new(&numbers).expect("a vector");
        let count = 1 + self.random.below(5);
        let found = self.session.recall(&query, count, 0.2, Some(&[b"user", b"tool"]));
        let mut expected: Vec<(f64, u32)> = Vec::new();
        for message in &self.model.list {
            let Some(vector) = &message.vector else { continue };
            if [&b"user"[..], b"tool"].contains(&message.role.as_slice()) {
                let quant = llmcache_core::session::VECTOR_QUANT;
                let stored = llmcache_core::vector::StoredVector::parse(quant, 4, vector);
                let similarity = stored.expect("a stored vector").similarity(&query);
                if similarity >= 0.2 {
                    expected.push((similarity, message.seq));
                }
            }
        }
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        expected.truncate(count);
        let seq = |at: MessageRef| self.session.message(at).seq.0;
        let found: Vec<_> = found.iter().map(|r| (r.similarity, seq(r.message))).collect();
        assert_eq!(found, expected);
    }

    fn compare(&mut self) {
        self.session.check_invariants();
        self.replica.check_invariants();
        let all = |session: &Session| -> Vec<Plain> {
            let refs = session.forward(MessageSeq(0));
            refs.map(|at| Plain::of(&session.whole_message(at))).collect()
        };
        for (ours, theirs) in all(&self.session).iter().zip(&self.model.list) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(self.session.len() as usize, self.model.list.len());
        assert_eq!(self.session.next_seq().0, self.model.next);
        let digest = |session: &Session| {
            let mut bytes = Vec::new();
            session.digest(|part| bytes.extend_from_slice(part));
            bytes
        };
        assert!(digest(&self.session) == digest(&self.replica), "a replica differs");
        let mut loaded = Session::decode_head(&self.session.encode_head()).expect("our head");
        let mut sections = 0;
        self.session.encode_messages(|section| {
            sections += 1;
            loaded.decode_messages(&section).expect("our messages");
        });
        assert_eq!(sections, self.session.sections());
        loaded.check_invariants();
        assert!(digest(&self.session) == digest(&loaded), "what was loaded differs");
        self.compare_exports();
        // Go on with what was loaded.
        self.replica = loaded;
    }

    fn compare_exports(&self) {
        let lines = |session: &Session| -> Vec<Vec<u8>> {
            session.forward(MessageSeq(0)).map(|at| to_json(&session.whole_message(at))).collect()
        };
        let exported = lines(&self.session);
        let parsed: Vec<Line> =
            exported.iter().map(|line| Line::parse(line).expect("our line")).collect();
        let mut copy = Session::new();
        let messages = parsed.iter().map(Line::message).collect();
        let messages = copy.plan_load(messages, b"s").expect("our messages");
        copy.apply(&Effect::Append { messages });
        copy.check_invariants();
        // Open messages are abandoned in a copy, so the copy's copy is compared.
        let fork = self.session.fork(MessageSeq(u32::MAX));
        assert!(lines(&fork) == lines(&copy), "a fork exports as a loaded copy");
        fork.check_invariants();
        self.compare_forks();
        for (a, b) in copy.forward(MessageSeq(0)).zip(self.session.forward(MessageSeq(0))) {
            assert_eq!(copy.message(a).payload, self.session.message(b).payload);
        }
    }

    /// A fork up to any place holds what a copy of those messages holds, and neither of the two changes the other.
    fn compare_forks(&self) {
        let digest = |session: &Session| {
            let mut bytes = Vec::new();
            session.digest(|part| bytes.extend_from_slice(part));
            bytes
        };
        let upto = MessageSeq(self.session.next_seq().0 / 2);
        let mut fork = self.session.fork(upto);
        fork.check_invariants();
        let mut plain = Session::new();
        for message in self.session.whole_messages().take_while(|message| message.seq <= upto) {
            let mut message = message.clone();
            if message.status == Status::Open {
                message.abandon();
            }
            plain.apply(&Effect::Append { messages: vec![message] });
        }
        plain.apply(&Effect::SetTtl { ttl_ms: self.session.ttl_ms() });
        assert!(digest(&fork) == digest(&plain), "a fork differs from a copy");
        assert_eq!(fork.totals(), plain.totals());
        let before = digest(&self.session);
        let middle = MessageSeq(upto.0 / 2);
        fork.apply(&Effect::Cut { before: middle });
        fork.apply(&Effect::Append {
            messages: vec![Message::plain(fork.next_seq(), b"user", b"new")],
        });
        let gone: Vec<MessageSeq> = (0..upto.0).step_by(3).map(MessageSeq).collect();
        fork.apply(&Effect::Remove { seqs: gone });
        fork.check_invariants();
        self.session.check_invariants();
        assert!(digest(&self.session) == before, "a fork's change is the session's");
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.append(),
            30..34 => self.cut(),
            34..40 => self.remove(),
            40..43 => self.edit(),
            43..45 => self.upsert(),
            45 => self.compact(),
            46..61 => self.stream(),
            61..81 => self.window(),
            81..90 => self.read(),
            90..99 => self.recall(),
            _ if self.random.below(100) == 0 => {
                assert_eq!(self.apply(&Effect::Clear) as usize, self.model.list.len());
                self.model.list.clear();
                self.model.producers.clear();
            }
            _ => {}
        }
    }
}

struct PlainWindow {
    tokens: u64,
    first: Option<u32>,
    more: bool,
    seqs: Vec<u32>,
}

/// WINDOW by its description: groups from the newest back, by looking at everything.
fn plain_window(list: &[Plain], request: &WindowRequest<'_>) -> PlainWindow {
    let wants = |m: &Plain| {
        request.roles.is_none_or(|roles| roles.contains(&&*m.role)) && m.status != Status::Open
    };
    let privileged = |m: &Plain| m.pinned && !(request.pairs && m.link.is_some());
    let (mut tokens, mut count, mut turns) = (0u64, 0u64, 0u64);
    let mut seqs: Vec<u32> = Vec::new();
    let fits = |tokens: u64, count: u64, turns: u64| {
        request.tokens.is_none_or(|most| tokens <= most)
            && request.last.is_none_or(|most| count <= most)
            && request.turns.is_none_or(|most| turns <= most)
    };
    for pin in list.iter().rev().filter(|m| privileged(m) && wants(m)) {
        if !fits(tokens + u64::from(pin.tokens), count + 1, 0) {
            return PlainWindow { tokens, first: None, more: true, seqs: sorted(seqs) };
        }
        tokens += u64::from(pin.tokens);
        count += 1;
        seqs.push(pin.seq);
    }
    let rest: Vec<&Plain> = list.iter().filter(|m| !privileged(m)).collect();
    // The place of the call of a result, among the rest.
    let call_of = |at: usize| -> Option<Option<usize>> {
        let (kind, id) = rest[at].link.as_ref().filter(|_| request.pairs)?;
        (*kind == LinkKind::Result).then(|| {
            let calls = |m: &&Plain| m.link.as_ref() == Some(&(LinkKind::Call, id.clone()));
            rest[..at].iter().rposition(calls).filter(|&call| wants(rest[call]))
        })
    };
    let taken = |at: usize| wants(rest[at]) && call_of(at) != Some(None);
    // A group may begin where no result behind has its call before, and, with TURNS, at a user.
    let begins = |at: usize, end: usize| {
        let cut =
            (at..end).any(|r| taken(r) && matches!(call_of(r), Some(Some(call)) if call < at));
        !cut && (request.turns.is_none() || rest[at].role == b"user")
    };
    let (mut end, mut first, mut more) = (rest.len(), None, false);
    while end > 0 {
        let Some(start) = (0..end).rev().find(|&at| begins(at, end)) else {
            more = (0..end).any(taken);
            break;
        };
        let group: Vec<&Plain> = (start..end).filter(|&at| taken(at)).map(|at| rest[at]).collect();
        let sum: u64 = group.iter().map(|m| u64::from(m.tokens)).sum();
        let users = if request.turns.is_some() {
            rest[start..end].iter().filter(|m| m.role == b"user").count() as u64
        } else {
            0
        };
        if !fits(tokens + sum, count + group.len() as u64, turns + users) {
            more = true;
            break;
        }
        tokens += sum;
        count += group.len() as u64;
        turns += users;
        first = group.first().map(|m| m.seq).or(first);
        seqs.extend(group.iter().map(|m| m.seq));
        end = start;
    }
    PlainWindow { tokens, first, more, seqs: sorted(seqs) }
}

fn sorted(mut seqs: Vec<u32>) -> Vec<u32> {
    seqs.sort_unstable();
    seqs
}

#[test]
fn a_session_is_a_list() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        for step in 0..STEPS / 4 {
            world.step();
            if step % 2_000 == 0 {
                world.compare();
            }
        }
        world.compare();
    }
}

/// What MEMORY USAGE tells is what the allocator gave, up to its size classes.
#[test]
fn memory_is_told_as_it_is() {
    for bytes in [40, 200, 3_000] {
        let payload = vec![b'x'; bytes];
        let (session, _, _, kept) = common::measure(|| {
            let mut session = Session::new();
            for number in 0..2_000u32 {
                let id = format!("{number:08x}-0000-4000-8000-00000000000a");
                let mut message = Message::plain(MessageSeq(number + 1), b"user", &payload);
                message.id = Some(IdText::Text(id.as_bytes()));
                session.apply(&Effect::Append { messages: vec![message] });
            }
            session
        });
        let (told, kept) = (session.heap_bytes() as f64, kept as f64);
        assert!(told >= kept && told < kept * 1.1, "{told} told, {kept} kept, {bytes} a payload");
        let overhead = told / 2_000.0 - bytes as f64 - 17.0;
        assert!(
            overhead < 40.0 + bytes as f64 * 0.2,
            "{overhead} bytes beside a payload of {bytes}"
        );
    }
}

/// N calls and N results of one id, in the orders that are worst for whoever looks each up by itself: what the window
/// answers is what the plain list says, and its steps are those of its messages.
#[test]
fn pairs_of_one_id_cost_what_their_messages_do() {
    const PAIRS: u32 = 3_000;
    let link = |kind| Link { kind, id: IdText::Text(b"one") };
    let steps_of = |kinds: &[LinkKind]| {
        let mut session = Session::new();
        for (at, kind) in kinds.iter().enumerate() {
            let mut message = Message::plain(MessageSeq(at as u32 + 1), b"tool", b"x");
            message.link = Some(link(*kind));
            session.apply(&Effect::Append { messages: vec![message] });
        }
        take_counted();
        let request = WindowRequest { pairs: true, ..WindowRequest::default() };
        let window = session.window(&request);
        (window.messages.len(), take_counted().path)
    };
    let most = u64::from(PAIRS) * 10;
    let in_turns: Vec<_> = (0..PAIRS).flat_map(|_| [LinkKind::Call, LinkKind::Result]).collect();
    let (messages, path) = steps_of(&in_turns);
    assert_eq!(messages, 2 * PAIRS as usize);
    assert!(path < most, "{path} steps");
    let apart: Vec<_> = [LinkKind::Call, LinkKind::Result]
        .into_iter()
        .flat_map(|kind| std::iter::repeat_n(kind, PAIRS as usize))
        .collect();
    let (messages, path) = steps_of(&apart);
    assert!(messages > 0 && path < most, "{messages} messages, {path} steps");
    let uncalled = vec![LinkKind::Result; PAIRS as usize];
    let (messages, path) = steps_of(&uncalled);
    assert!(messages == 0 && path < most, "{path} steps");
}

/// What large sessions cost to fork, cut and clear is their blocks, not their messages.
#[test]
fn whole_blocks_come_and_go() {
    const MESSAGES: u32 = 100_000;
    let mut session = Session::new();
    for first in (1..=MESSAGES).step_by(1_000) {
        let ids: Vec<String> = (first..first + 1_000).map(|seq| format!("id-{seq}")).collect();
        let message = |(id, seq)| {
            let mut message =
                Message::plain(MessageSeq(seq), b"user", b"a few words of one who asks");
            message.id = Some(IdText::Text(str::as_bytes(id)));
            message
        };
        let messages = ids.iter().map(String::as_str).zip(first..).map(message).collect();
        session.apply(&Effect::Append { messages });
    }
    take_counted();
    let most = u64::from(MESSAGES) / 50;
    let mut fork = session.fork(MessageSeq(u32::MAX));
    assert_eq!((fork.len(), take_counted().path < most), (u64::from(MESSAGES), true));
    let cut = fork.cut_for_length(10);
    assert_eq!(fork.apply(&Effect::Cut { before: cut }), u64::from(MESSAGES) - 10);
    let path = take_counted().path;
    assert!(path < most, "{path} steps to trim");
    fork.check_invariants();
    assert_eq!(fork.find_id(b"id-5"), None);
    assert!(fork.find_id(b"id-99995").is_some());
    assert!(fork.heap_bytes() < 64 << 10, "{} bytes for ten messages", fork.heap_bytes());
    assert!(session.find_id(b"id-5").is_some(), "the other still has it");
    take_counted();
    assert_eq!(session.apply(&Effect::Clear), u64::from(MESSAGES));
    assert!(take_counted().path < most);
    session.check_invariants();
}
