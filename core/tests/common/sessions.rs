//! A session with messages of every kind, and a change of every kind; for the tests that attack their bytes.

use llmcache_core::ids::UnixMs;
use llmcache_core::session::{
    Effect, IdText, Link, LinkKind, Message, MessageSeq, Producer, Session, Status, VECTOR_QUANT,
};
use llmcache_core::vector::Query;
use std::borrow::Cow;

fn vector() -> Vec<u8> {
    let mut out = Vec::new();
    let query = Query::new(&[0.5, -0.25, 1.0]).expect("a vector");
    VECTOR_QUANT.encode(query.normalised(), &mut out);
    out
}

pub fn messages() -> Vec<Message<'static>> {
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

pub fn sample() -> Session {
    let mut session = Session::new();
    session.apply(&Effect::SetTtl { ttl_ms: 5_000 });
    session.apply(&Effect::Append { messages: messages() });
    session.check_invariants();
    session
}

pub fn effects() -> Vec<Effect<'static>> {
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
