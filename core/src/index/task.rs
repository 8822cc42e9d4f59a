//! A search that continues elsewhere: what it reads, taken along, so that it runs on any thread while rows come
//! and go.
//!
//! Owns: that picture. Made by the main thread in constant time beside the rows it lists; it stays as
//! it was in codes and records, and sees rows go, but none that came after it was made. What it finds are hints, as
//! those of any search: whoever opens the entries proves them.
//!
//! Nothing is locked and nothing retired by hand. Codes and records that a picture holds are copied before they are
//! written to; heads, deadlines and links are atomics, written in place; a block lives as long as its last holder.
//! `tests/loom.rs` runs this against insertion, removal and linking in every order that the memory model allows.

use super::hnsw::{Codes, Scratch};
use super::request::{SearchRequest, SearchResult};
use super::row_state::RowStates;
use super::scan::{Plan, Progress, Span, View};
use super::search::Remaining;
use super::tags::Tags;
use crate::filter::Filter;
use crate::ids::{PartitionKey, Seq, UnixMs};
use crate::vector::arena::CodeArena;
use crate::vector::links::SharedLinks;

/// A search, done or to be done elsewhere.
#[derive(Debug)]
pub enum Searched {
    /// What was found.
    Done(SearchResult),
    /// What is left to do.
    Task(Box<SearchTask>),
}

/// What a thread that searches keeps between two searches.
#[derive(Debug, Default)]
pub struct TaskScratch(Scratch);

/// A search that is to continue elsewhere.
#[derive(Debug)]
pub struct SearchTask {
    states: RowStates,
    arena: CodeArena,
    links: SharedLinks,
    end: u32,
    seq_end: Seq,
    code: Box<[i8]>,
    scale: f32,
    rest_of_code: Box<[i8]>,
    partition: PartitionKey,
    limit: usize,
    now: UnixMs,
    min_seq: Seq,
    filter: Option<Filter>,
    found: SearchResult,
    rest: Remaining,
    progress: Progress,
}

impl SearchTask {
    /// What is left of a search, with clones of what it reads, each of which costs a count.
    pub(super) fn new(
        request: &SearchRequest<'_>,
        (arena, view): (&CodeArena, View<'_>),
        found: SearchResult,
        rest: Remaining,
    ) -> Self {
        let ef = if let Remaining::Walk { ef, .. } = rest { Some(ef) } else { None };
        Self {
            states: view.states.clone(),
            arena: arena.clone(),
            links: view.links.clone(),
            end: view.end,
            seq_end: view.seq_end,
            code: request.code.into(),
            scale: request.scale,
            rest_of_code: request.rest.into(),
            partition: request.partition,
            limit: request.limit,
            now: request.now,
            min_seq: request.min_seq,
            filter: request.filter.cloned(),
            found,
            rest,
            progress: Progress::new(request, ef),
        }
    }

    /// Does what is left of the search.
    pub fn run(mut self, scratch: &mut TaskScratch) -> SearchResult {
        while !self.slice(scratch, u64::MAX) {}
        self.end()
    }

    /// Goes on for about `most` steps; returns whether it came to the end. What cannot be left off in the middle, a
    /// walk, takes as long as a walk takes.
    pub fn slice(&mut self, scratch: &mut TaskScratch, most: u64) -> bool {
        self.resume(&mut scratch.0, None, most)
    }

    /// What was found.
    pub fn end(self) -> SearchResult {
        let Self { progress, mut found, .. } = self;
        let (code, rest) = (&*self.code, &*self.rest_of_code);
        let (scale, limit) = (self.scale, self.limit);
        let request = SearchRequest {
            code,
            scale,
            rest,
            partition: self.partition,
            limit,
            ef: None,
            now: self.now,
            min_seq: self.min_seq,
            filter: self.filter.as_ref(),
            counts_refused: false,
        };
        progress.end(&request, Some(Codes::new(&self.arena)), &mut found);
        found
    }

    /// Goes on for about `most` steps; returns whether it came to the end.
    pub(super) fn resume(&mut self, scratch: &mut Scratch, tags: Option<&Tags>, most: u64) -> bool {
        let view = View {
            states: &self.states,
            codes: Codes::new(&self.arena),
            links: &self.links,
            end: self.end,
            seq_end: self.seq_end,
            tags,
        };
        let request = SearchRequest {
            code: &self.code,
            scale: self.scale,
            rest: &self.rest_of_code,
            partition: self.partition,
            limit: self.limit,
            ef: None,
            now: self.now,
            min_seq: self.min_seq,
            filter: self.filter.as_ref(),
            counts_refused: false,
        };
        let (progress, found) = (&mut self.progress, &mut self.found);
        let plan = match &self.rest {
            Remaining::Walk { ef, most, points, tail } => {
                scratch.start_from(points);
                let plan = Plan::Walk { ef: *ef, most: *most, tail };
                let ended = view.walk(&request, plan, scratch, progress, found);
                if !ended {
                    self.rest = Remaining::Judged;
                }
                return ended;
            }
            Remaining::Rows(rows) => Plan::Compare(Span::Listed(rows)),
            Remaining::Partition => Plan::Compare(Span::Partition),
            Remaining::Judged => Plan::Judge(Span::Partition),
        };
        view.go_through(&request, plan, scratch, progress, most, found)
    }
}
