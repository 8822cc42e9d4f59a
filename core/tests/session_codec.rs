//! Saved sessions and their changes as hostile bytes: mutated from fixed seeds, with the checksum made
//! right again so that the mutation reaches the decoder. Runs on the test runner's threads.

mod common;
#[path = "common/sections.rs"]
mod sections;
#[path = "common/sessions.rs"]
mod sessions;

use common::{Random, measure};
use llmcache_core::codec::DecodeError;
use llmcache_core::ids::UnixMs;
use llmcache_core::session::{Effect, IdText, Line, Message, MessageSeq, Session, Status};
use sections::reseal;
use sessions::{effects, sample};
use std::borrow::Cow;

const MUTATIONS: usize = 50_000;
/// Decoding a few kilobytes holds at most this.
const PEAK_MAX_BYTES: isize = 1 << 20;

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

/// A message of words behind those of the sample, perhaps with an id.
fn message(seq: u32, id: Option<&'static [u8]>) -> Message<'static> {
    let mut message = Message::plain(MessageSeq(seq), b"user", b"words");
    message.id = id.map(IdText::Text);
    message
}

fn edit(seq: u32) -> Effect<'static> {
    Effect::Edit { seq: MessageSeq(seq), payload: b"x", tokens: 1, estimated: true, vector: None }
}

#[test]
fn changes_that_do_not_fit_the_session_are_refused() {
    let session = sample();
    let append = |messages| Effect::Append { messages };
    let chunk = |seq, offset| Effect::Chunk {
        seq: MessageSeq(seq),
        offset,
        lease_until: UnixMs(7),
        data: b"more",
    };
    let end = |seq, status| Effect::End {
        seq: MessageSeq(seq),
        status,
        tokens: 1,
        estimated: true,
        meta: None,
    };
    let other_dim = Message { vector: Some(Cow::Borrowed(&[0, 60])), ..message(100, None) };
    let refused: [(Effect<'_>, &str); 12] = [
        (append(vec![message(100, Some(b"one"))]), "an id of two messages"),
        (
            append(vec![message(100, Some(b"new")), message(101, Some(b"new"))]),
            "an id of two messages",
        ),
        (append(vec![message(34, None)]), "messages out of order"),
        (append(vec![message(101, None), message(100, None)]), "messages out of order"),
        (append(vec![other_dim]), "vector of a message"),
        (
            Effect::Replace { messages: vec![message(1, Some(b"one"))] },
            "a message in the place of another",
        ),
        (edit(2), "no such message"),
        (edit(34), "no such message"),
        (chunk(1, 0), "no such open message"),
        (chunk(34, 299), "the part does not fit its message"),
        (end(34, Status::Whole), "no end of a stream"),
        (end(1, Status::Failed), "no such message"),
    ];
    for (effect, why) in refused {
        assert_eq!(session.check(&effect), Err(DecodeError(why)), "{effect:?}");
    }
    session.check(&append(vec![message(100, Some(b"new"))])).expect("what fits");
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
