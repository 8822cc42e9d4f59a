//! `KVCHUNK.MATCH`: the longest stored prefix of a prompt, in one namespace or in several at once.
//!
//! Owns: the walk over namespaces one after the other, and what MATCH teaches their trees: that chunks named in a row
//! come behind each other in prompts. Main thread.

use super::chain::{ChainArgs, Names};
use super::retention::{begin_lease, end_lease, lease_ms, write_lease};
use crate::command::filtered::Sieve;
use crate::command::parse::{ArgReader, flag_once, parse_filter, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{LeadingRun, Pieces, find_namespace, run_pieces};
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{ChunkHeader, LeaseId, Namespace, NodeId};
use llmcache_core::limits;
use std::cell::Cell;

/// Runs `KVCHUNK.MATCH`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut chain, mut filter, mut length_ms) = (ChainArgs::default(), None, None);
    let (mut also, mut is_sparse) = (None, false);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "FILTER" => set_once(&mut filter, parse_filter(&mut reader)?, name)?,
            "LEASE" => set_once(&mut length_ms, lease_ms(&mut reader)?, name)?,
            "SPARSE" => flag_once(&mut is_sparse, name)?,
            "ALSO" => set_once(&mut also, reader.list(name, limits::KV_ALSO_MAX)?, name)?,
            _ if chain.read(&word, &mut reader)? => {}
            _ => return Err(word.unknown()),
        }
    }
    chain.check()?;
    let is_several = is_sparse || also.is_some();
    let keys = std::iter::once(args.name()).chain(also.into_iter().flatten().copied());
    let found = keys.map(|name| find_namespace(ctx, &args.argument_of(name).unwrap_or(args.key())));
    let found: Vec<Option<SharedNamespace>> = found.collect::<Result<_>>()?;
    let mut asked = Vec::with_capacity(found.len());
    for namespace in found {
        let names = match &namespace {
            Some(namespace) => namespace.with(|namespace| chain.names(args, namespace))?,
            None => chain.names(args, &super::create::defaults(args.name())?)?,
        };
        asked.push((namespace, names));
    }
    let all: usize = asked.iter().map(|(_, names)| names.len()).sum();
    if asked.len() > 1 && all > limits::CHUNKS_MAX {
        return Err(Error::too_big("MATCH", all, limits::CHUNKS_MAX, "chunks of all namespaces"));
    }
    // All leases or none: a refused command keeps nothing.
    let mut places: Vec<Place> = Vec::with_capacity(asked.len());
    for (namespace, names) in asked {
        let lease = match (length_ms, &namespace) {
            (Some(length_ms), Some(namespace)) => begin_lease(ctx, namespace, length_ms),
            _ => Ok(0),
        };
        match lease {
            Ok(id) => places.push(Place::new(namespace, names, (id != 0).then_some(id), is_sparse)),
            Err(error) => {
                places.iter_mut().for_each(Place::let_go);
                return Err(error);
            }
        }
    }
    let sieve = Sieve::new(filter);
    run_pieces(args, Matching { places, at: 0, sieve, is_sparse, is_several, refused: None });
    Ok(())
}

/// One of the namespaces that are looked into.
struct Place {
    namespace: Option<SharedNamespace>,
    names: Names,
    run: LeadingRun,
    /// Chunks before the first that is not there.
    leading: usize,
    has_hole: bool,
    lease: Option<LeaseId>,
    held: usize,
    /// The node of the last chunk that is there; forgotten between slices.
    last: Option<NodeId>,
    /// A bit for each chunk, the highest of a byte first; with SPARSE.
    bits: Vec<u8>,
}

impl Place {
    fn new(
        namespace: Option<SharedNamespace>,
        names: Names,
        lease: Option<LeaseId>,
        is_sparse: bool,
    ) -> Self {
        let bits = if is_sparse { vec![0; names.len().div_ceil(8)] } else { Vec::new() };
        let run = LeadingRun::new();
        Self {
            namespace,
            names,
            run,
            leading: 0,
            has_hole: false,
            lease,
            held: 0,
            last: None,
            bits,
        }
    }

    /// Looks for the next chunk; false where it is not there or was the last.
    fn next(
        &mut self,
        ctx: Ctx<'_>,
        is_sparse: bool,
        accept: impl Fn(&ChunkHeader) -> bool,
    ) -> bool {
        let Some(namespace) = &self.namespace else { return false };
        let at = self.names.position();
        let Some(digest) = self.names.next() else { return false };
        // After a pause, since the tree may have changed.
        let before = if self.last.is_none() { self.run.last().cloned() } else { None };
        let Some(mut chunk) = self.run.next(ctx, namespace, &digest, Access::Probe, accept) else {
            self.has_hole = true;
            return is_sparse;
        };
        self.leading += usize::from(!self.has_hole);
        if is_sparse {
            self.bits[at / 8] |= 0x80 >> (at % 8);
        }
        let (last, lease) = (std::mem::replace(&mut self.last, chunk.node()), self.lease);
        let Some(node) = chunk.node() else { return true };
        let is_held = namespace.with(|namespace| {
            let Namespace { tree, leases, .. } = namespace;
            let last = last.or_else(|| tree.find(before.as_ref()?));
            if let Some(last) = last {
                tree.teach(last, node);
            }
            lease.is_some_and(|id| leases.add(tree, id, node))
        });
        if is_held {
            chunk.hint_strongly();
            self.held += 1;
        }
        true
    }

    /// Ends the lease.
    fn let_go(&mut self) {
        if let (Some(id), Some(namespace)) = (self.lease.take(), &self.namespace) {
            end_lease(namespace, id);
        }
    }

    /// Counts what was asked and found; returns the tokens of that.
    fn settle(&mut self) -> u64 {
        if self.held == 0 {
            self.let_go();
        }
        let (leading, asked) = (self.leading as u64, self.names.len() as u64);
        self.namespace.as_ref().map_or(0, |namespace| {
            namespace.with(|namespace| {
                namespace.stats.matches += 1;
                namespace.note_asked(asked, leading);
                leading * u64::from(namespace.settings().chunk_tokens)
            })
        })
    }
}

struct Matching {
    places: Vec<Place>,
    /// Which of them is looked into.
    at: usize,
    sieve: Sieve,
    is_sparse: bool,
    /// Whether the reply tells of each namespace.
    is_several: bool,
    /// Why the filter could not be answered.
    refused: Option<Error>,
}

impl Pieces for Matching {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        let refused = Cell::new(None);
        let sieve = &self.sieve;
        let accept = |header: &ChunkHeader| match sieve.passes(&header.meta) {
            Ok(passes) => passes,
            Err(error) => {
                refused.set(Some(error));
                false
            }
        };
        let Some(place) = self.places.get_mut(self.at) else { return false };
        if !place.next(ctx, self.is_sparse, accept) {
            self.at += 1;
        }
        self.refused = refused.take();
        self.refused.is_none() && self.at < self.places.len()
    }

    fn known(&self) -> usize {
        self.places.iter().map(|place| place.names.len()).sum()
    }

    fn tell(&mut self, _: Ctx<'_>) {
        self.places.iter_mut().for_each(|place| {
            place.run.pause();
            place.last = None;
        });
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        if let Some(error) = &self.refused {
            self.places.iter_mut().for_each(Place::let_go);
            return Reply::new(ctx).error(&error.to_string());
        }
        let told = self.places.iter_mut().map(|place| (place.leading, place.settle()));
        // What all have is what the one with the fewest has.
        let (least, tokens) = told.min_by_key(|told| told.0).unwrap_or_default();
        let reply = Reply::new(ctx).array(3 + usize::from(self.is_several));
        reply.count(least as u64).count(tokens);
        write_lease(reply, self.places[0].lease);
        if !self.is_several {
            return;
        }
        reply.array(self.places.len());
        for place in &self.places {
            reply.array(3).count(place.leading as u64);
            write_lease(reply, place.lease);
            match self.is_sparse {
                true => reply.bytes(&place.bits),
                false => reply.null(),
            };
        }
    }
}
