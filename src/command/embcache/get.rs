//! `EMBCACHE.GET`: returns a stored embedding; the parts that `MGET` shares.

use super::set::as_kept;
use super::{Computed, Computing, Form, NumbersLeft, Subject, compute, find, look_for, model};
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Searches, now_min};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryView, MissReason, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::EmbeddingDigest;

/// Runs `EMBCACHE.GET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer(ctx, args, &Searches::inline())
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, _: &Searches) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut subject, mut form, mut named) = (None, None, None);
    while let Some(word) = reader.option() {
        match word.as_str() {
            _ if Subject::is_word(&word) => {
                let asked = Subject::read(&word, &mut reader)?;
                set_once(&mut subject, asked, "what is asked for")?;
            }
            "AS" => set_once(&mut form, Form::read(&mut reader)?, "AS")?,
            "MODEL" => set_once(&mut named, model(&mut reader)?, "MODEL")?,
            _ => return Err(word.unknown()),
        }
    }
    let subject = subject.ok_or_else(|| Error::err("syntax error: TEXT or DIGEST is needed"))?;
    match look_for(ctx, args, named)? {
        Some(cache) => {
            let model = cache.with(|cache| cache.settings.model.clone());
            let form = form.unwrap_or_default();
            let (asked, digest) = (Asked { ctx, cache: &cache, form }, subject.digest(&model));
            if asked.has(&digest) {
                asked.answer(&digest);
                return Ok(());
            }
            // Computed and not kept: what only reads stores nothing. The memo and FETCH remember.
            match compute(ctx, &cache, &subject, Again::Reads(answer, args.handles()))? {
                Computing::Numbers(numbers) => asked.answer_computed((digest, numbers))?,
                Computing::Later => {}
                Computing::None => asked.answer(&digest),
            }
        }
        None => {
            Reply::new(ctx).null();
        }
    }
    Ok(())
}

/// A container that is asked for embeddings.
pub(super) struct Asked<'c, 'r> {
    pub(super) ctx: Ctx<'c>,
    pub(super) cache: &'r SharedCache,
    pub(super) form: Form,
}

impl Asked<'_, '_> {
    pub(super) fn has(&self, digest: &EmbeddingDigest) -> bool {
        find(self.ctx, self.cache, digest, Access::Probe).is_some()
    }

    /// Answers one that was not there and was computed, to the bits that keeping it would have given.
    fn answer_computed(&self, computed: Computed) -> Result<()> {
        if let Some(mut left) = self.begin_computed(computed)? {
            while left.write(Reply::new(self.ctx)) {}
        }
        Ok(())
    }

    /// The same but for numbers as text, of which the rest is to be written.
    pub(super) fn begin_computed(&self, computed: Computed) -> Result<Option<NumbersLeft>> {
        let entry = as_kept(self.ctx, self.cache, computed)?;
        self.cache.with(|cache| cache.stats.note_miss(b"", MissReason::Empty, None));
        Ok(self.form.begin(Reply::new(self.ctx), Some(entry.view())))
    }

    /// Answers one, or null, and counts it.
    fn answer(&self, digest: &EmbeddingDigest) {
        if let Some(mut left) = self.begin_answer(digest) {
            while left.write(Reply::new(self.ctx)) {}
        }
    }

    /// The same but for numbers as text, of which the rest is to be written.
    pub(super) fn begin_answer(&self, digest: &EmbeddingDigest) -> Option<NumbersLeft> {
        self.look_up(digest, |view| self.form.begin(Reply::new(self.ctx), view))
    }

    /// Looks one up, and counts it.
    pub(super) fn look_up<R>(
        &self,
        digest: &EmbeddingDigest,
        take: impl FnOnce(Option<EntryView<'_>>) -> R,
    ) -> R {
        let entry = find(self.ctx, self.cache, digest, Access::Read);
        let view = entry.as_ref().map(|entry| entry.view());
        let now_min = now_min();
        self.cache.with(|cache| match &view {
            Some(view) => {
                cache.note_hit(view, now_min);
                cache.stats.note_hit(b"", Tier::Exact, view, None);
            }
            None => cache.stats.note_miss(b"", MissReason::Empty, None),
        });
        take(view)
    }
}
