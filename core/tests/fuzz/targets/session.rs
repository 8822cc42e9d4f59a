//! Sessions: saved ones, changes from a primary or an AOF, lines of JSON.

use super::{PLAIN, Target, joined, pieces, sealed};
use crate::sessions::{effects, sample};
use llmcache_core::session::{Effect, Line, Session, to_json};

pub const SESSION: Target = Target {
    name: "session",
    covers: &[
        "session/codec.rs::decode_head",
        "session/codec.rs::decode_messages",
        "session/message.rs::decode",
        "session/message.rs::plain",
        "session/record.rs::parse",
    ],
    seeds: || {
        let session = sample();
        let mut sections = vec![session.encode_head()];
        session.encode_messages(|section| sections.push(section));
        vec![joined(&sections), joined(&sections[..1])]
    },
    attack: |bytes| {
        let sections: Vec<_> = pieces(bytes).into_iter().map(sealed).collect();
        let Some((head, messages)) = sections.split_first() else { return false };
        let Ok(mut session) = Session::decode_head(head) else { return false };
        // A section that is refused leaves what was there.
        let whole = messages.iter().all(|section| session.decode_messages(section).is_ok());
        session.check_invariants();
        let mut again =
            Session::decode_head(&session.encode_head()).expect("what was just written");
        session.encode_messages(|section| {
            again.decode_messages(&section).expect("what was just written")
        });
        let digest = |session: &Session| {
            let mut all = Vec::new();
            session.digest(|part| all.extend_from_slice(part));
            all
        };
        assert_eq!(digest(&again), digest(&session));
        whole
    },
    ..PLAIN
};

/// Gives the messages of a change places that are free, as checksums are made right: what else is wrong of them is
/// reached then, such as an id that is there already.
fn put_behind(effect: &mut Effect<'_>, session: &Session) {
    if let Effect::Append { messages } = effect {
        let first = session.next_seq().0;
        for (seq, message) in (first..).zip(messages) {
            message.seq.0 = seq;
        }
    }
}

pub const EFFECT: Target = Target {
    name: "effect",
    covers: &["session/effect.rs::decode", "session/message.rs::decode"],
    seeds: || effects().iter().map(|effect| joined([effect.encode()])).collect(),
    attack: |bytes| {
        let mut session = sample();
        let mut applied = false;
        for piece in pieces(bytes) {
            let section = sealed(piece);
            let Ok(mut effect) = Effect::decode(&section) else { continue };
            assert_eq!(Effect::decode(&effect.encode()).as_ref(), Ok(&effect));
            put_behind(&mut effect, &session);
            if session.check(&effect).is_ok() {
                session.apply(&effect);
                session.check_invariants();
                applied = true;
            }
        }
        applied
    },
    ..PLAIN
};

pub const LINE: Target = Target {
    name: "line",
    covers: &["session/export.rs::parse", "session/message.rs::parse"],
    seeds: || {
        let session = sample();
        let mut lines: Vec<_> = session.whole_messages().map(|message| to_json(&message)).collect();
        // A message that is still written is none that could be loaded.
        lines.retain(|line| Line::parse(line).is_ok());
        lines
    },
    attack: |bytes| {
        let Ok(line) = Line::parse(bytes) else { return false };
        let (seq, mut message) = line.message();
        message.seq = seq.unwrap_or(message.seq);
        // An exported message is one line: breaks between the words of META become spaces.
        let no_break = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        let meta: Option<Vec<u8>> = message.meta.map(|meta| meta.iter().map(no_break).collect());
        message.meta = meta.as_deref();
        // What is written of it is read as the same.
        let again = to_json(&message);
        let read = Line::parse(&again).expect("what was just written");
        let (_, mut twice) = read.message();
        twice.seq = message.seq;
        assert_eq!(twice, message);
        true
    },
    ..PLAIN
};
