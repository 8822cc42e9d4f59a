//! Searches of an index, to their end or up to what is left to another thread.
//!
//! Owns: the room that searches of one index share, and the filters that are asked for again; `search` plans, `scan`
//! carries out. Main thread only.

use super::Index;
use super::request::{SearchRequest, SearchResult};
use super::search::{Searchable, Stage};
use super::task::{SearchTask, Searched};

impl Index {
    /// The entries whose codes are nearest to the query's, at most `limit`.
    pub fn search(&mut self, request: &SearchRequest<'_>) -> SearchResult {
        match self.search_within(request, u64::MAX) {
            Stage::Done(result) | Stage::Partial(result, _) => result,
        }
    }

    /// Searches as long as that is estimated to take no longer than `most_ns`; what would take longer is
    /// left to a task.
    pub fn search_or_task(&mut self, request: &SearchRequest<'_>, most_ns: u64) -> Searched {
        let (found, rest) = match self.search_within(request, most_ns) {
            Stage::Done(result) => return Searched::Done(result),
            Stage::Partial(found, rest) => (found, rest),
        };
        let view = self.searchable().view();
        let (Some(arena), Some(view)) = (&self.rows.arena, view) else {
            return Searched::Done(found);
        };
        Searched::Task(Box::new(SearchTask::new(request, (arena, view), found, rest)))
    }

    /// Does what a task was made for after all, here and now, in slices of `most` steps for as long as it is told to
    /// go on.
    ///
    /// # Errors
    ///
    /// The task, where it was told to stop.
    pub fn finish(
        &mut self,
        mut task: Box<SearchTask>,
        most: u64,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<SearchResult, Box<SearchTask>> {
        let tags = self.rows.bounded_tags();
        let scratch = &mut self.graphs.scratch;
        let mut ended = task.resume(scratch, tags, most);
        while !ended && goes_on() {
            ended = task.resume(scratch, tags, most);
        }
        if ended { Ok(task.end()) } else { Err(task) }
    }

    /// Bytes of the filter record of an entry, on average.
    pub fn record_bytes_mean(&self) -> u64 {
        self.rows.slots.record_bytes() as u64 / self.totals.entries.max(1)
    }

    fn searchable(&self) -> Searchable<'_> {
        Searchable { rows: &self.rows, graphs: &self.graphs }
    }

    fn search_within(&mut self, request: &SearchRequest<'_>, most_ns: u64) -> Stage {
        let mean = self.record_bytes_mean();
        let terms = request.filter.map_or(0, |filter| filter.cost().steps(mean));
        let asked = request.filter.filter(|_| !request.counts_refused);
        // Taken out so that it can change while the graphs are read; allocates nothing.
        let mut scratch = std::mem::take(&mut self.graphs.scratch);
        let passing = asked.and_then(|filter| self.filter_cache.rows_of(filter, &self.rows.slots));
        let searchable = Searchable { rows: &self.rows, graphs: &self.graphs };
        let stage = searchable.search(&mut scratch, request, (passing, terms), most_ns);
        self.graphs.scratch = scratch;
        stage
    }
}
