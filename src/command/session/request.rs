//! Reads the arguments of `SESSION.*`: the fields that several commands share, and the whole of `SESSION.APPEND`.
//!
//! Owns: the bounds and forms of roles, ids, payloads, tokens and places of messages. Opens no key; runs on the
//! main thread like every parser.

use crate::command::parse::{
    ArgReader, OptionWord, flag_once, is_vector_word, json_object, set_once, vector,
};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::session::{IdText, Link, LinkKind, Message, MessageRef, MessageSeq, Session};
use llmcache_core::vector::Query;
use llmcache_core::work::count_bytes;
use std::borrow::Cow;

/// What the options before the first message say, and the messages.
#[derive(Debug, Default)]
pub struct AppendRequest<'a> {
    pub nx: bool,
    pub xx: bool,
    pub upsert: bool,
    pub clear: bool,
    pub if_seq: Option<u32>,
    pub ttl_ms: Option<u64>,
    pub max_length: Option<u64>,
    pub max_tokens: Option<u64>,
    pub owner: Option<&'a [u8]>,
    pub model: Option<&'a [u8]>,
    pub messages: Vec<Message<'a>>,
    /// Those of them that are kept without a vector, by their places.
    pub without: Vec<usize>,
}

impl<'a> AppendRequest<'a> {
    /// Reads the arguments of `SESSION.APPEND`.
    pub fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let mut request = Self::default();
        let mut bytes = 0;
        while let Some(word) = args.option() {
            if word.as_str() == "MSG" {
                let message = Message::plain(MessageSeq(0), role(&mut args)?, payload(&mut args)?);
                let taken = message.payload.len();
                request.messages.push(message);
                request.check_size(bytes + taken)?;
                bytes += taken + request.read_message(&mut args)?;
                request.check_size(bytes)?;
            } else {
                request.read(&word, &mut args)?;
            }
        }
        if request.messages.is_empty() {
            return Err(Error::err("syntax error: at least one MSG is needed"));
        }
        if request.nx && request.xx {
            return Err(Error::err("syntax error: NX and XX exclude each other"));
        }
        Ok(request)
    }

    fn check_size(&self, bytes: usize) -> Result<()> {
        if self.messages.len() > limits::SESSION_APPEND_MAX {
            let max = limits::SESSION_APPEND_MAX;
            return Err(Error::too_big("APPEND", self.messages.len(), max, "messages"));
        }
        let max = limits::SESSION_APPEND_MAX_BYTES;
        if self.messages.len() > 1 && bytes > max {
            let unit = "bytes of payloads, META and vectors; more follow by another APPEND";
            return Err(Error::too_big("the messages together", bytes, max, unit));
        }
        Ok(())
    }

    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<()> {
        let name = word.as_str();
        match name {
            "NX" => flag_once(&mut self.nx, name),
            "XX" => flag_once(&mut self.xx, name),
            "UPSERT" => flag_once(&mut self.upsert, name),
            "CLEAR" => flag_once(&mut self.clear, name),
            "IFSEQ" => {
                let seq = args.integer(name, 0, limits::SESSION_SEQ_MAX.into())? as u32;
                set_once(&mut self.if_seq, seq, name)
            }
            "TTL" => set_once(&mut self.ttl_ms, ttl_ms(args)?, name),
            "MAXLEN" => set_once(&mut self.max_length, args.integer(name, 0, u64::MAX)?, name),
            "MAXTOKENS" => set_once(&mut self.max_tokens, args.integer(name, 0, u64::MAX)?, name),
            "OWNER" => set_once(&mut self.owner, args.next(name)?, name),
            "EMBED" => {
                let model = args.text(name, limits::EMBED_NAME_MAX_BYTES)?;
                set_once(&mut self.model, model, name)
            }
            _ => Err(word.unknown()),
        }
    }

    /// Reads the options of the message just begun, up to the next one. Bytes of its META and vector.
    fn read_message(&mut self, args: &mut ArgReader<'a>) -> Result<usize> {
        let place = self.messages.len().saturating_sub(1);
        let Some(message) = self.messages.last_mut() else { return Ok(0) };
        let (mut own_tokens, mut own_id, mut own_vector, mut meta) = (None, None, None, None);
        let (mut link, mut no_vector) = (None, false);
        loop {
            let mut ahead = args.clone();
            let Some(word) = ahead.option().filter(|word| word.as_str() != "MSG") else { break };
            *args = ahead;
            let name = word.as_str();
            match name {
                "ID" => set_once(&mut own_id, IdText::Text(id(args, name)?), name)?,
                "TOKENS" => set_once(&mut own_tokens, tokens(args)?, name)?,
                "META" => set_once(&mut meta, json_object(args, name)?, name)?,
                "PIN" => flag_once(&mut message.pinned, name)?,
                "NOVECTOR" => flag_once(&mut no_vector, name)?,
                "CALL" | "RESULT" => {
                    let kind = if name == "CALL" { LinkKind::Call } else { LinkKind::Result };
                    let id = IdText::Text(id(args, name)?);
                    set_once(&mut link, Link { kind, id }, "CALL or RESULT")?;
                }
                _ if is_vector_word(&word) => {
                    set_once(&mut own_vector, stored(&vector(&word, args)?), "the vector")?;
                }
                _ => return Err(word.unknown()),
            }
        }
        if no_vector && own_vector.is_some() {
            return Err(Error::err("syntax error: a vector and NOVECTOR are given"));
        }
        self.without.extend(no_vector.then_some(place));
        let numbers = own_vector.as_ref().map_or(0, Vec::len);
        let bytes = meta.map_or(0, <[u8]>::len) + numbers * size_of::<f32>();
        count_bytes(message.payload.len() + bytes);
        (message.id, message.meta, message.link) = (own_id, meta, link);
        message.vector = own_vector.map(Cow::Owned);
        if let Some(tokens) = own_tokens {
            (message.tokens, message.estimated) = (tokens, false);
        }
        Ok(bytes)
    }
}

/// Reads the place of a message.
pub fn seq(args: &mut ArgReader<'_>, what: &str) -> Result<MessageSeq> {
    Ok(MessageSeq(args.integer(what, 1, limits::SESSION_SEQ_MAX.into())? as u32))
}

/// Reads a role.
pub fn role<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    let role = args.next("the role")?;
    llmcache_core::session::check_role(role)?;
    Ok(role)
}

/// Reads a list of roles.
pub fn roles<'a>(args: &mut ArgReader<'a>) -> Result<&'a [&'a [u8]]> {
    let roles = args.list("ROLES", limits::SESSION_ROLES_MAX)?;
    roles.iter().try_for_each(|role| llmcache_core::session::check_role(role))?;
    Ok(roles)
}

/// Reads an id.
pub fn id<'a>(args: &mut ArgReader<'a>, what: &str) -> Result<&'a [u8]> {
    let id = args.text(what, limits::ID_MAX_BYTES)?;
    llmcache_core::session::check_id(id, what)?;
    Ok(id)
}

/// A message by its place or by its ID.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    Seq(MessageSeq),
    Id(&'a [u8]),
}

impl<'a> Which<'a> {
    /// Reads `seq` or `ID id`.
    pub fn read(args: &mut ArgReader<'a>) -> Result<Self> {
        let mut ahead = args.clone();
        if ahead.option().is_some_and(|word| word.as_str() == "ID") {
            *args = ahead;
            return id(args, "ID").map(Self::Id);
        }
        seq(args, "seq").map(Self::Seq)
    }

    /// Finds the message in a session.
    pub fn locate(self, session: &Session) -> Option<MessageRef> {
        match self {
            Self::Seq(seq) => session.locate(seq),
            Self::Id(id) => session.find_id(id),
        }
    }
}

/// Reads a payload.
pub fn payload<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    args.text("the payload", limits::SESSION_PAYLOAD_MAX_BYTES)
}

/// Reads how long a session lives after its last use.
pub fn ttl_ms(args: &mut ArgReader<'_>) -> Result<u64> {
    Ok(args.integer("TTL", 0, limits::TTL_MAX_MS / 1_000)? * 1_000)
}

/// Reads a number of tokens.
pub fn tokens(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("TOKENS", 0, limits::TOKENS_MAX)? as u32)
}

/// The form in which a session keeps a vector.
pub fn stored(query: &Query) -> Vec<u8> {
    let mut out = Vec::new();
    llmcache_core::session::VECTOR_QUANT.encode(query.normalised(), &mut out);
    out
}
