//! Saved sessions and their changes as hostile bytes: mutated from fixed seeds, with the checksum made
//! right again so that the mutation reaches the decoder. Runs on the test runner's threads.

mod common;
#[path = "common/sections.rs"]
mod sections;

use common::{Random, measure};
use llmcache_core::ids::UnixMs;
use llmcache_core::session::{
    Effect, IdText, Line, Link, LinkKind, Message, MessageSeq, Producer, Session, Status,
    VECTOR_QUANT,
};
use llmcache_core::vector::Query;
use sections::reseal;
use std::borrow::Cow;

const MUTATIONS: usize = 50_000;
/// Decoding a few kilobytes holds at most this.
const PEAK_MAX_BYTES: isize = 1 << 20;

fn vector() -> Vec<u8> {
    let mut out = Vec::new();
    let query = Query::new(&[0.5, -0.25, 1.0]).expect("a vector");
    VECTOR_QUANT.encode(query.normalised(), &mut out);
    out
}

fn messages() -> Vec<Message<'static>> {
    let texts: [&[u8]; 4] = [b"", b"hello", &[0xff, 0, 1, 2], &[b'x'; 300]];
    (0..12)
        .map(|number: u32| {
            let role: &[u8] = [&b"user"[..], b"critic", b"tool"][number as usize % 3];
            let mut message =
                Message::plain(MessageSeq(1 + number * 3), role, texts[number as usize % 4]);
            let id: &[u8] =
                if number == 4 { b"01234567-89ab-cdef-0123-456789abcdef" } else { b"one" };
            message.id = (number == 4 || number == 5).then_some(IdText::Text(id));
            message.pinned = number == 2;
            message.meta = (number % 4 == 1).then_some(b"{\"a\":[1,2]}");
            message.vector = number.is_multiple_of(2).then(|| Cow::Owned(vector()));
            let kind = if number == 6 { LinkKind::Call } else { LinkKind::Result };
            message.link =
                (6..9).contains(&number).then_some(Link { kind, id: IdText::Text(b"call") });
            if number == 11 {
                message.status = Status::Open;
                let lease_until = UnixMs(5_000);
                message.producer = Some(Producer { token: 9, lease_ms: 100, lease_until });
            }
            message
        })
        .collect()
}

/// The same message in other words.
fn restated(message: Message<'static>) -> Message<'static> {
    Message { payload: b"in other words", tokens: 4, estimated: true, ..message }
}

fn sample() -> Session {
    let mut session = Session::new();
    session.apply(&Effect::SetTtl { ttl_ms: 5_000 });
    session.apply(&Effect::Append { messages: messages() });
    session.check_invariants();
    session
}

fn effects() -> Vec<Effect<'static>> {
    let mut more = messages();
    more.truncate(4);
    more.iter_mut().for_each(|message| message.seq.0 += 100);
    let seq = MessageSeq(34);
    let producer = Producer { token: 1, lease_ms: 50, lease_until: UnixMs(9) };
    vec![
        Effect::Append { messages: more },
        Effect::Replace { messages: messages().drain(3..6).map(restated).collect() },
        Effect::SetTtl { ttl_ms: 1 },
        Effect::SetModel { model: b"small@0123456789abcdef0123456789abcdef" },
        Effect::Remove { seqs: vec![MessageSeq(1), MessageSeq(7), MessageSeq(900)] },
        Effect::Cut { before: MessageSeq(10) },
        Effect::Clear,
        Effect::Edit {
            seq: MessageSeq(4),
            payload: b"new",
            tokens: 3,
            estimated: true,
            vector: Some(Cow::Owned(vector())),
        },
        Effect::Compact {
            upto: MessageSeq(20),
            role: b"system",
            payload: b"short",
            tokens: 2,
            estimated: false,
        },
        Effect::Chunk { seq, offset: 300, lease_until: UnixMs(7), data: b"more" },
        Effect::Produce { seq, producer },
        Effect::End {
            seq,
            status: Status::Failed,
            tokens: 8,
            estimated: true,
            meta: Some(b"{\"why\":1}"),
        },
    ]
}

fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        // The frame's own fields are made right again, except now and then.
        let at = if random.below(8) > 0 {
            8 + random.below(out.len().saturating_sub(12))
        } else {
            random.below(out.len())
        };
        match random.below(5) {
            0 => out[at] = random.next() as u8,
            1 => out[at] ^= 1 << random.below(8),
            2 => {
                out.remove(at);
            }
            3 => out.insert(at, random.next() as u8),
            _ => {
                let word = [0, 1, 127, 255, 256, 65_535, u32::MAX][random.below(7)];
                let end = (at + 4).min(out.len());
                out[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
        }
    }
    reseal(&mut out);
    out
}

#[test]
fn changes_are_refused_or_applied_whole() {
    let session = sample();
    let mut random = Random(5);
    let (mut applied, mut refused) = (0, 0);
    for effect in effects() {
        let bytes = effect.encode();
        assert_eq!(Effect::decode(&bytes).expect("our bytes"), effect);
        session.check(&effect).unwrap_or_else(|error| panic!("{effect:?}: {error}"));
        for _ in 0..MUTATIONS / 10 {
            let bad = mutate(&bytes, &mut random);
            let (accepted, _, peak, _) = measure(|| {
                let effect = Effect::decode(&bad).ok()?;
                let mut copy = session.clone();
                copy.check(&effect).ok()?;
                copy.apply(&effect);
                Some(copy)
            });
            assert!(peak < PEAK_MAX_BYTES, "{peak} bytes for {effect:?}");
            match accepted {
                Some(copy) => {
                    copy.check_invariants();
                    applied += 1;
                }
                None => refused += 1,
            }
        }
    }
    assert!(applied > 1_000 && refused > 1_000, "{applied} applied, {refused} refused");
}

#[test]
fn saved_sessions_are_refused_or_loaded_whole() {
    let session = sample();
    let mut sections = vec![session.encode_head()];
    session.encode_messages(|section| sections.push(section));
    assert_eq!(sections.len(), 2);
    let load = |sections: &[Vec<u8>]| {
        let mut session = Session::decode_head(&sections[0]).ok()?;
        for section in &sections[1..] {
            session.decode_messages(section).ok()?;
        }
        Some(session)
    };
    load(&sections).expect("our sections").check_invariants();
    let mut random = Random(6);
    let (mut loaded, mut refused) = (0, 0);
    for _ in 0..MUTATIONS {
        let mut bad = sections.clone();
        let which = random.below(8).min(1);
        bad[which] = mutate(&sections[which], &mut random);
        let (session, _, peak, _) = measure(|| load(&bad));
        assert!(peak < PEAK_MAX_BYTES);
        match session {
            Some(session) => {
                session.check_invariants();
                loaded += 1;
            }
            None => refused += 1,
        }
    }
    assert!(loaded > 500 && refused > 500, "{loaded} loaded, {refused} refused");
}

#[test]
fn every_flipped_bit_is_refused() {
    let session = sample();
    session.encode_messages(|section| {
        for bit in 0..section.len() * 8 {
            let mut bad = section.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut session = Session::decode_head(&session.encode_head()).expect("our head");
            assert!(session.decode_messages(&bad).is_err(), "bit {bit}");
            assert!(session.is_empty(), "a refused section leaves nothing");
        }
    });
}

#[test]
fn lines_of_json_are_refused_with_a_reason() {
    for (line, why) in [
        (&b"{}"[..], "role"),
        (b"[]", "not a JSON object"),
        (b"{\"role\":\"user\"}", "content"),
        (b"{\"role\":\"us er\",\"content\":\"\"}", "role"),
        (b"{\"role\":\"user\",\"content\":[]}", "'content'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"x\":1}", "'x'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"seq\":-1}", "'seq'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"meta\":[]}", "'meta'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"status\":\"open\"}", "'status'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"vector_f16_hex\":\"00\"}", "'vector_f16_hex'"),
        (b"{\"role\":\"user\",\"content_hex\":\"0\"}", "'content_hex'"),
        (b"{\"role\":\"user\",\"content\":\"\",\"id\":\"\"}", "'id'"),
    ] {
        let error = Line::parse(line).expect_err("a bad line");
        assert!(error.message().contains(why), "{error}");
    }
    let line =
        Line::parse(b"{\"content\":\"caf\\u00e9\", \"role\":\"user\"}").expect("a plain line");
    assert_eq!(line.message().1.payload, "café".as_bytes());
}
