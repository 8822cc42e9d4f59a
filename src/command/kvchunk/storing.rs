//! Stores chunks of one prompt: what is due there goes first, deadlines before them are raised, room is made, then they
//! are put into their keys one by one. Of a long prompt or of many chunks that is done in slices.
//!
//! Owns: the order of these steps, and which payloads are kept as the server has them. Main thread only.

use super::chain::Names;
use super::create::ensure_made;
use super::reach::need_chunk;
use crate::command::parse::Expiry;
use crate::ffi::{Access, CommandArgs, Ctx, HeldString, RString, Reply, ServerString, WritePermit};
use crate::keyspace::{
    NewChunk, Pieces, Presence, chunk_bytes, doomed_for, due_before, ending_before, evict_one,
    make_room, open_chunk, open_namespace, put_chunk, raise_deadline, refused_parent, remove_due,
    room_of, run_pieces, use_stored,
};
use crate::keytype::namespace_registry::{NAMESPACES, SharedNamespace};
use crate::keytype::{Whole, payload_crc};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{
    Checksum, ChunkDigest, ChunkHeader, Lineage, Refused, content_of, fits_its_class, segment_plan,
};
use std::cell::Cell;
use std::ops::Range;

/// Payloads that are stored in one piece and kept as the server has them. Those of more are copied: the client keeps
/// its arguments while it waits, and strings that two hold must not be in a database that another thread may free.
const KEPT_AT_ONCE: usize = 64;

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    Exists,
    Rejected(&'static str),
}

impl Outcome {
    fn write(self, reply: Reply<'_>) {
        match self {
            Self::Stored => reply.text("STORED"),
            Self::Exists => reply.text("EXISTS"),
            Self::Rejected(reason) => reply.text(&format!("REJECTED {reason}")),
        };
    }
}

/// A payload as arguments of the command: which ones, and how long together.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Their numbers.
    pub arguments: Range<usize>,
    /// Their bytes.
    pub bytes: usize,
}

/// What holds for all chunks of a command.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// META.
    pub meta: Option<&'a [u8]>,
    /// When they expire.
    pub expiry: Option<Expiry>,
    /// PRIO.
    pub prio: Option<u8>,
    /// Whether what is there stays.
    pub nx: bool,
    /// Whether each is stored for itself: the order says who is evicted first, and nothing else.
    pub loose: bool,
    /// CRC-32 of each payload, as the client computed it; empty where the server is to do that.
    pub checksums: Box<[u32]>,
}

/// What a command wants stored.
pub struct Request<'a> {
    /// Where.
    pub namespace: SharedNamespace,
    /// The chunks of the prompt.
    pub names: Names,
    /// The first that is stored.
    pub from: usize,
    /// Those of it and of what follows it.
    pub payloads: Vec<Payload>,
    /// What holds for all.
    pub options: Options<'a>,
    /// Whether one outcome is answered, and not an array of them.
    pub is_one: bool,
}

/// Stores them, or refuses all.
pub fn store(ctx: Ctx<'_>, args: &CommandArgs<'_>, request: Request<'_>) -> Result<()> {
    let Request { namespace, mut names, from, payloads, options, is_one } = request;
    let presence = Presence::of(ctx, args.name());
    if !presence.is_whole() {
        // All are looked for before the first is written: a refused command changes nothing.
        let all: Vec<ChunkDigest> = std::iter::from_fn(|| names.next()).collect();
        let stored = &all[from..from + payloads.len()];
        stored.iter().try_for_each(|digest| need_chunk(ctx, &presence, &namespace, digest))?;
        names.begin_anew();
    }
    let now = UnixMs(ctx.now_ms());
    let own_deadline = match options.expiry {
        Some(Expiry::At(at)) => at,
        Some(Expiry::Persist) => UnixMs::NEVER,
        None => namespace.with(|namespace| namespace.settings().deadline(now)),
    };
    let is_kept = payloads.len() <= KEPT_AT_ONCE;
    let hold =
        |payload: &Payload| payload.arguments.clone().map(|number| args.held(number)).collect();
    let work = Storing {
        is_made: Cell::new(stands_in_key(ctx, &namespace)),
        name: args.name().to_vec(),
        step: Step::Naming,
        from,
        before: None,
        own_deadline,
        all_bytes: payloads.iter().map(|payload| payload.bytes as u64).sum(),
        payloads: payloads.iter().map(hold).collect::<Vec<Box<[HeldString]>>>().into_iter(),
        postponed: None,
        is_raised: false,
        is_kept,
        is_first_call: true,
        meta: options.meta.unwrap_or_default().into(),
        prio: options.prio.unwrap_or(0),
        nx: options.nx,
        loose: options.loose,
        checksums: options.checksums,
        lineage: None,
        broken: false,
        refused: None,
        outcomes: Vec::with_capacity(payloads.len()),
        fresh: false,
        last_stored: None,
        is_one,
        namespace,
        names,
    };
    run_pieces(args, work);
    Ok(())
}

fn stands_in_key(ctx: Ctx<'_>, namespace: &SharedNamespace) -> bool {
    NAMESPACES.find(namespace.with(|namespace| namespace.uid()), ctx.db()).is_some()
}

/// What is done next.
#[derive(Debug)]
enum Step {
    /// The chunks before the first that is stored are named.
    Naming,
    /// What is past its deadline before it is removed.
    Due(Vec<ChunkDigest>),
    /// Deadlines before it are raised, the first of the prompt first.
    Raising(Vec<ChunkDigest>),
    /// Room is made for all.
    Evicting(Vec<ChunkDigest>),
    Storing,
}

struct Storing {
    namespace: SharedNamespace,
    /// Whether it stands in its key: else the first chunk that is stored puts it there.
    is_made: Cell<bool>,
    /// Its key.
    name: Vec<u8>,
    names: Names,
    step: Step,
    from: usize,
    /// The chunk before the next.
    before: Option<ChunkDigest>,
    own_deadline: UnixMs,
    all_bytes: u64,
    payloads: std::vec::IntoIter<Box<[HeldString]>>,
    /// The chunk that is stored once deadlines before it are raised, and whether they are.
    postponed: Option<(ChunkDigest, Box<[HeldString]>)>,
    is_raised: bool,
    /// Whether all are stored as one piece.
    is_kept: bool,
    /// Whether the command's own call goes on: its client does not wait, and lets go of its arguments with it.
    is_first_call: bool,
    meta: Box<[u8]>,
    prio: u8,
    nx: bool,
    loose: bool,
    /// Those that the client computed.
    checksums: Box<[u32]>,
    /// What the next chunk would follow, and what `PrefixTree::linked` said then.
    lineage: Option<(Lineage, u64)>,
    /// Whether one was rejected: what follows it would be stored for nothing.
    broken: bool,
    /// Why the only one was refused.
    refused: Option<Error>,
    outcomes: Vec<Outcome>,
    /// Whether WATCH and client-side caching are to be told.
    fresh: bool,
    last_stored: Option<ChunkDigest>,
    is_one: bool,
}

impl Pieces for Storing {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        if self.is_made.get() && !stands_in_key(*ctx, &self.namespace) {
            let why = "the namespace was removed before all was stored; repeat the command";
            self.refused = Some(Error::new(ErrorWord::Busy, why));
            return false;
        }
        match &mut self.step {
            Step::Naming if self.names.position() < self.from => {
                self.before = self.names.next();
                true
            }
            Step::Naming => {
                let stored_behind = self.before.as_ref().filter(|_| !self.loose);
                let due = stored_behind.map(|before| due_before(*ctx, &self.namespace, before));
                // Of what is due the last goes first.
                let due = due.into_iter().flatten().rev().collect();
                self.step = Step::Due(due);
                true
            }
            Step::Due(due) => {
                match due.pop() {
                    Some(digest) => remove_due(ctx, &self.namespace, &digest),
                    None => self.step = Step::Evicting(self.to_evict()),
                }
                true
            }
            Step::Raising(short) => {
                match short.pop() {
                    Some(digest) => {
                        raise_deadline(ctx, &self.namespace, &digest, self.own_deadline);
                    }
                    None => self.step = Step::Storing,
                }
                true
            }
            Step::Evicting(doomed) => {
                match doomed.pop() {
                    Some(digest) => evict_one(ctx, &self.namespace, &digest),
                    None => self.step = Step::Storing,
                }
                true
            }
            Step::Storing => {
                let mut stores = self.store_next(ctx);
                while stores && self.is_kept && matches!(self.step, Step::Storing) {
                    stores = self.store_next(ctx);
                }
                stores
            }
        }
    }

    fn tell(&mut self, ctx: WritePermit<'_>) {
        self.is_first_call = false;
        if std::mem::take(&mut self.fresh) {
            ctx.signal_modified(&RString::new(&self.name));
        }
    }

    fn known(&self) -> usize {
        self.payloads.len()
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        if let Some(digest) = &self.last_stored {
            use_stored(ctx, &self.namespace, digest);
        }
        let reply = Reply::new(ctx);
        if let Some(error) = &self.refused {
            return reply.error(&error.to_string());
        }
        if !self.is_one {
            reply.array(self.outcomes.len());
        }
        self.outcomes.iter().for_each(|outcome| outcome.write(reply));
    }
}

impl Storing {
    /// The chunks before the first that end before what is stored.
    fn to_raise(&self) -> Vec<ChunkDigest> {
        let Some(before) = self.before.as_ref().filter(|_| !self.loose) else { return Vec::new() };
        ending_before(&self.namespace, before, self.own_deadline)
    }

    /// What has to go so that all fits, where that can be; else each makes room for itself.
    fn to_evict(&self) -> Vec<ChunkDigest> {
        let room = room_of(&self.namespace);
        if room == 0 || self.all_bytes > room {
            return Vec::new();
        }
        let keep: Vec<&ChunkDigest> = self.before.iter().collect();
        doomed_for(&self.namespace, room, self.all_bytes, &keep)
    }

    /// Stores the next chunk; false when that was the last.
    fn store_next(&mut self, ctx: WritePermit<'_>) -> bool {
        let next = self.postponed.take().or_else(|| {
            let payload = self.payloads.next()?;
            Some((self.names.next()?, payload))
        });
        let Some((digest, payload)) = next else { return false };
        let outcome = if self.broken {
            // What a missing chunk cuts off would be stored for nothing.
            Outcome::Rejected("prefix")
        } else {
            match self.check(&digest) {
                Ok(()) => match self.store(ctx, &digest, &payload) {
                    Ok(outcome) => outcome,
                    Err(short) => {
                        self.is_raised = true;
                        (self.step, self.postponed) =
                            (Step::Raising(short), Some((digest, payload)));
                        return true;
                    }
                },
                Err(_) if !self.is_one => Outcome::Rejected("parent"),
                Err(refused) => {
                    self.refused = Some(refused_parent(refused));
                    return false;
                }
            }
        };
        self.namespace.with(|namespace| {
            if let Some((lineage, linked)) = &mut self.lineage {
                lineage.push(&namespace.tree, &digest);
                *linked = namespace.tree.linked();
            }
            let stats = &mut namespace.stats;
            *match outcome {
                Outcome::Stored => &mut stats.stored,
                Outcome::Exists => &mut stats.exists,
                Outcome::Rejected(_) => &mut stats.rejected,
            } += 1;
        });
        if outcome == Outcome::Stored {
            self.fresh = true;
            self.last_stored = Some(digest.clone());
        }
        let is_rejected = matches!(outcome, Outcome::Rejected(_));
        self.broken |= is_rejected && !self.loose;
        if !(is_rejected && self.loose) {
            self.before = Some(digest);
        }
        self.outcomes.push(outcome);
        self.payloads.len() > 0
    }

    /// Whether a chunk may follow the one before it.
    fn check(&mut self, digest: &ChunkDigest) -> std::result::Result<(), Refused> {
        if self.loose {
            return Ok(());
        }
        let before = self.before.as_ref();
        self.namespace.with(|namespace| {
            let tree = &namespace.tree;
            if self.is_one {
                return tree.check_parent(digest, before);
            }
            // Others may have put chunks behind chunks meanwhile.
            let (lineage, _) = match self.lineage.take() {
                Some((lineage, linked)) if linked == tree.linked() => {
                    self.lineage.insert((lineage, linked))
                }
                _ => self.lineage.insert((tree.lineage(before), tree.linked())),
            };
            lineage.check(digest)
        })
    }

    /// Stores one chunk, or says why not. Nothing is left of one that is not stored. Where nothing hinders it but that
    /// deadlines before it are to be raised first: these.
    fn store(
        &self,
        ctx: WritePermit<'_>,
        digest: &ChunkDigest,
        payload: &[HeldString],
    ) -> std::result::Result<Outcome, Vec<ChunkDigest>> {
        let Self { namespace, own_deadline, .. } = self;
        let now = UnixMs(ctx.now_ms());
        if self.nx && open_chunk(*ctx, namespace, digest, Access::Probe).is_some() {
            return Ok(Outcome::Exists);
        }
        let bytes = payload.iter().map(|segment| segment.as_bytes().len() as u64).sum();
        let right = namespace.with(|n| n.settings().payload_bytes()).unwrap_or(bytes);
        if bytes != right {
            return Ok(Outcome::Rejected("length"));
        }
        if own_deadline.is_past(now) {
            return Ok(Outcome::Rejected("expired"));
        }
        let segments = stored_form(payload, self.is_kept && self.is_first_call);
        let header = self.header(digest, bytes, now, &segments);
        let (key, durable) = namespace.with(|n| (n.chunk_key(digest), n.settings().durable));
        let whole = Whole { header, segments, durable };
        let room = room_of(namespace);
        let takes = chunk_bytes(&key, &whole);
        let freed = namespace.with(|namespace| {
            let former = namespace.tree.find(digest);
            former.map_or(0, |former| namespace.tree.node(former).bytes)
        });
        let keep: Vec<&ChunkDigest> = std::iter::once(digest).chain(self.before.as_ref()).collect();
        let need = takes.saturating_sub(freed);
        if room > 0 && (takes > room || !make_room(ctx, namespace, room, need, &keep)) {
            return Ok(Outcome::Rejected("budget"));
        }
        let short = if self.is_raised { Vec::new() } else { self.to_raise() };
        if !short.is_empty() {
            return Err(short);
        }
        if !self.is_made.get() {
            // Somebody else may have made one meanwhile.
            let name = RString::new(&self.name);
            if !matches!(open_namespace(*ctx, &name), Ok(None)) {
                return Ok(Outcome::Rejected("namespace"));
            }
            ensure_made(ctx, &self.name, namespace);
            self.is_made.set(true);
        }
        let ahead = self.before.clone().filter(|_| self.loose);
        let new = NewChunk { key, whole, key_expire_at: None, fits: !self.is_one, ahead };
        put_chunk(ctx, Some(namespace), new);
        namespace.with(|namespace| {
            namespace.stats.bytes_in += bytes;
            namespace.adapt_to(room);
        });
        Ok(Outcome::Stored)
    }

    fn header(
        &self,
        digest: &ChunkDigest,
        payload_bytes: u64,
        now: UnixMs,
        segments: &[HeldString],
    ) -> ChunkHeader {
        let tokens = self.names.tokens();
        // Each chunk before it has an outcome.
        let told = self.checksums.get(self.outcomes.len()).copied();
        self.namespace.with(|namespace| {
            let settings = namespace.settings();
            let behind =
                self.before.as_ref().map_or(0, |before| namespace.tree.position_behind(before));
            ChunkHeader {
                uid: namespace.uid(),
                fingerprint: *namespace.fingerprint(),
                digest: digest.clone(),
                parent: self.before.clone().filter(|_| !self.loose),
                position: tokens.map_or(behind, |_| self.names.position() as u32 - 1),
                dtype: settings.dtype,
                shape: settings.shape.clone(),
                prio: self.prio,
                pinned: false,
                created: now,
                deadline: namespace.tree.deadline_for(digest, self.own_deadline),
                payload_bytes,
                checksum: (settings.checksum == Checksum::On)
                    .then(|| told.unwrap_or_else(|| payload_crc(segments))),
                content: tokens.map(|tokens| content_of(self.names.root(), tokens)),
                meta: self.meta.clone(),
            }
        })
    }
}

/// A payload as it is stored: where it is `kept`, as the server has it where its allocator wastes little on that; else
/// copied once into pieces that fit its size classes.
fn stored_form(payload: &[HeldString], is_kept: bool) -> Box<[HeldString]> {
    let mut segments = Vec::with_capacity(payload.len());
    for argument in payload {
        let mut rest = argument.as_bytes();
        if rest.is_empty() {
            continue;
        }
        if is_kept && fits_its_class(rest.len()) {
            segments.push(HeldString::hold(argument));
            continue;
        }
        for length in segment_plan(rest.len()) {
            let (piece, behind) = rest.split_at(length);
            segments.push(HeldString::new(piece));
            rest = behind;
        }
    }
    segments.into()
}
