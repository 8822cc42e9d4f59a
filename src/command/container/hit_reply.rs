//! The map that describes a hit, whole or reduced to the fields of RETURN.

use crate::ffi::Reply;
use crate::keyspace::OpenedEntry;
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryView, Hit, LookupReport, Tier, estimated_tokens};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;

/// A field of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Id of the entry.
    Id,
    /// Tier that found it.
    Tier,
    /// Cosine of question and entry.
    Similarity,
    /// The prompt stored.
    Prompt,
    /// The answer.
    Response,
    /// Milliseconds since it was stored.
    Age,
    /// Milliseconds it has left; -1 for no end.
    Ttl,
    /// Whether it is past its time and served in grace.
    Stale,
    /// META as given.
    Meta,
    /// Tags.
    Tags,
    /// Hits since the process started.
    Hits,
    /// Id of a document.
    Document,
    /// Text of a document.
    Text,
    /// Tokens of a document, given or estimated.
    Tokens,
    /// The vector as it is stored, as a blob of little-endian f32; null for none.
    Vector,
    /// What the order is by.
    Score,
    /// BM25 of the words asked for.
    Words,
    /// The place of the text with most of them.
    Snippet,
}

/// All fields of an answer, in the order of the reply.
pub const ALL: [Field; 11] = [
    Field::Id,
    Field::Tier,
    Field::Similarity,
    Field::Prompt,
    Field::Response,
    Field::Age,
    Field::Ttl,
    Field::Stale,
    Field::Meta,
    Field::Tags,
    Field::Hits,
];

impl Field {
    /// As in replies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id | Self::Document => "id",
            Self::Tier => "tier",
            Self::Similarity => "similarity",
            Self::Prompt => "prompt",
            Self::Response => "response",
            Self::Age => "age",
            Self::Ttl => "ttl",
            Self::Stale => "stale",
            Self::Meta => "meta",
            Self::Tags => "tags",
            Self::Hits => "hits",
            Self::Text => "text",
            Self::Tokens => "tokens",
            Self::Vector => "vector",
            Self::Score => "score",
            Self::Words => "words",
            Self::Snippet => "snippet",
        }
    }
}

/// Reads the fields of RETURN, of those `known`.
pub fn parse_fields(names: &[&[u8]], known: &[Field]) -> Result<Vec<Field>> {
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let field = known.iter().find(|field| field.name().as_bytes().eq_ignore_ascii_case(name));
        let field = *field.ok_or_else(|| {
            let name = String::from_utf8_lossy(&name[..name.len().min(32)]).into_owned();
            Error::err(format!("syntax error: RETURN knows no field '{name}'"))
        })?;
        if fields.contains(&field) {
            return Err(Error::err(format!("syntax error: RETURN names {} twice", field.name())));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// What is told of a hit beside its entry.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// The entry's hits, this one included once it is counted.
    pub hits: u32,
    /// Whether it is past its time, or was marked so.
    pub stale: bool,
    /// In a cache with MAXERROR whether what is served is so by proof.
    pub verified: Option<bool>,
}

/// Says of each hit whether it is stale.
pub fn judge(
    cache: &SharedCache,
    report: &LookupReport<OpenedEntry<'_>>,
    now: UnixMs,
) -> Vec<Served> {
    cache.with(|cache| {
        let stale = |hit: &Hit<OpenedEntry<'_>>| {
            let expire_at = || UnixMs(hit.entry.expire_at_ms());
            cache.staleness(&hit.entry.view(), expire_at, || now).unwrap_or(true)
        };
        let verified = |hit: &Hit<OpenedEntry<'_>>| {
            // The same words need no proof.
            report.verified.map(|is_proven| is_proven || hit.tier == Tier::Exact)
        };
        let served = |hit| Served { hits: 0, stale: stale(hit), verified: verified(hit) };
        report.hits.iter().map(served).collect()
    })
}

/// Tokens of a document: as many as were said, else an estimate.
pub fn tokens_of(view: &EntryView<'_>) -> u64 {
    match view.tokens() {
        0 => estimated_tokens(view.response_len()),
        said => u64::from(said),
    }
}

/// Milliseconds until a deadline; -1 for none.
pub fn ttl_ms(expire_at: UnixMs, now: UnixMs) -> i64 {
    match expire_at {
        UnixMs::NEVER => -1,
        at => at.0.saturating_sub(now.0) as i64,
    }
}

/// Bytes of the texts of a hit in a reply, and about those of the rest.
pub fn bytes_of(view: &EntryView<'_>, fields: &[Field]) -> u64 {
    const REST_BYTES: usize = 32;
    let bytes = |field: &Field| {
        let own = match field {
            Field::Prompt | Field::Document => view.prompt().len(),
            Field::Response | Field::Text => view.response_len(),
            Field::Meta => view.meta().map_or(0, <[u8]>::len),
            Field::Tags => view.tags().map(|tag| tag.len() + 8).sum(),
            Field::Vector => usize::from(view.dim()) * size_of::<f32>(),
            _ => 0,
        };
        (own + REST_BYTES) as u64
    };
    fields.iter().map(bytes).sum()
}

/// Writes a hit.
pub fn write(
    reply: Reply<'_>,
    hit: &Hit<OpenedEntry<'_>>,
    fields: &[Field],
    served: Served,
    now: UnixMs,
) {
    write_audited(reply, hit, fields, served, now, None);
}

/// Writes a hit and the ticket that goes with it.
pub fn write_audited(
    reply: Reply<'_>,
    hit: &Hit<OpenedEntry<'_>>,
    fields: &[Field],
    served: Served,
    now: UnixMs,
    ticket: Option<&str>,
) {
    let more = usize::from(served.verified.is_some()) + usize::from(ticket.is_some());
    reply.map(fields.len() + more);
    if let Some(verified) = served.verified {
        reply.text("verified").int(i64::from(verified));
    }
    if let Some(ticket) = ticket {
        reply.text("audit").text(ticket);
    }
    for &field in fields {
        reply.text(field.name());
        write_field(reply, hit, field, served, now);
    }
}

/// Writes what an audited lookup that is not answered goes with: the ticket, and the candidate that it is about.
pub fn write_audit(reply: Reply<'_>, ticket: &str, candidate: Option<&Hit<OpenedEntry<'_>>>) {
    reply.text("audit").text(ticket);
    reply.text("candidate");
    let Some(hit) = candidate else {
        reply.null();
        return;
    };
    let view = hit.entry.view();
    reply.map(4).text("id");
    match view.name() {
        Some(name) => reply.bytes(name),
        None => reply.bytes(&hit.id.unwrap_or_else(|| view.id()).hex()),
    };
    reply.text("similarity").double(hit.similarity);
    reply.text("prompt").bytes(view.prompt());
    reply.text("response").bytes(&view.response());
}

/// Writes the vector as it is stored, as a blob of little-endian f32; null for none.
pub fn write_vector<'r>(reply: Reply<'r>, view: &EntryView<'_>) -> Reply<'r> {
    match view.vector() {
        Some(vector) => {
            let numbers = vector.to_f32();
            let blob: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            reply.bytes(&blob)
        }
        None => reply.null(),
    }
}

/// Writes the value of a field.
pub fn write_field(
    reply: Reply<'_>,
    hit: &Hit<OpenedEntry<'_>>,
    field: Field,
    served: Served,
    now: UnixMs,
) {
    let view = hit.entry.view();
    match field {
        Field::Id => match view.name() {
            Some(name) => reply.bytes(name),
            None => reply.bytes(&hit.id.unwrap_or_else(|| view.id()).hex()),
        },
        Field::Tier => reply.text(hit.tier.as_str()),
        Field::Similarity => reply.double(hit.similarity),
        Field::Prompt | Field::Document => reply.bytes(view.prompt()),
        Field::Response | Field::Text => reply.bytes(&view.response()),
        Field::Tokens => reply.count(tokens_of(&view)),
        Field::Age => reply.count(now.0.saturating_sub(view.created().0)),
        Field::Ttl => {
            let until = view.fresh_until(UnixMs(hit.entry.expire_at_ms()));
            reply.int(ttl_ms(until, now))
        }
        Field::Stale => reply.int(i64::from(served.stale)),
        Field::Meta => match view.meta() {
            Some(meta) => reply.bytes(meta),
            None => reply.null(),
        },
        Field::Tags => {
            reply.array(view.tag_count());
            view.tags().for_each(|tag| {
                reply.bytes(tag);
            });
            reply
        }
        Field::Hits => reply.count(u64::from(served.hits)),
        Field::Vector => write_vector(reply, &view),
        // Of a search of words, which writes them itself.
        Field::Score | Field::Words | Field::Snippet => reply.null(),
    };
}
