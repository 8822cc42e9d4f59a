//! `RAG.SEARCH`: the documents nearest to a vector, filtered, diverse and within a budget of tokens.

use crate::command::container::create::ef;
use crate::command::container::hit_reply::{self, Field, tokens_of};
use crate::command::container::note::Note;
use crate::command::container::store::check_dim;
use crate::command::container::texts::{Meaning, meaning, model_for, no_vector};
use crate::command::parse::{ArgReader, is_vector_word, parse_filter, set_once, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{
    Again, CommandKeyspace, OpenedEntry, Presence, Searches, answer_room, answer_searching,
    need_index, open_container,
};
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::{
    Halt, Hit, Kind, Looked, LookupReport, LookupRequest, look_up, pick_diverse, within_budget,
};
use llmcache_core::distance::kernels;
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::filter::Filter;
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::vector::Query;
use llmcache_core::vector::normalise::normalise;

/// Results when nothing is said: as many as `FT.SEARCH` and `VSIM` give.
const COUNT_DEFAULT: usize = 10;
/// Candidates for each result that MMR chooses among.
const MMR_CANDIDATES: usize = 4;
/// Least number of candidates that MMR chooses among.
const MMR_POOL_MIN: usize = 20;

/// What RETURN knows; without it the first five are answered.
const FIELDS: [Field; 10] = [
    Field::Document,
    Field::Similarity,
    Field::Text,
    Field::Meta,
    Field::Tags,
    Field::Tokens,
    Field::Age,
    Field::Ttl,
    Field::Hits,
    Field::Vector,
];
const USUAL: usize = 5;

/// What is asked.
#[derive(Default)]
struct Search<'a> {
    query: Option<Query>,
    /// What is embedded where there is no vector.
    text: Option<&'a [u8]>,
    count: Option<usize>,
    offset: Option<usize>,
    filter: Option<Filter>,
    similarity: Option<f64>,
    lambda: Option<f64>,
    budget_tokens: Option<u64>,
    ef: Option<usize>,
    fields: Option<Vec<Field>>,
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_searching(ctx, args, answer)
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, searches: &Searches) -> Result<()> {
    let search = Search::parse(ArgReader::new(args.options()))?;
    if search.query.is_none() && search.text.is_none() {
        return Err(Error::err("syntax error: a vector or TEXT is needed"));
    }
    let reply = Reply::new(ctx);
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        reply.array(0);
        return Ok(());
    };
    let given = match (&search.query, search.text) {
        (None, Some(text)) => {
            let again = Again::Reads(answer);
            match meaning(ctx, model_for(&cache).as_ref(), text, Role::Query, again)? {
                Meaning::Vector(meant) => Some(meant.query),
                Meaning::Later => return Ok(()),
                Meaning::None(refusal) => return Err(no_vector(refusal)),
            }
        }
        _ => None,
    };
    let Some(query) = search.query.as_ref().or(given.as_ref()) else { return Ok(()) };
    check_dim(&cache, query.dim(), args.name())?;
    search.check_mmr(query.dim())?;
    Presence::of(ctx, args.name()).need_all()?;
    need_index(&cache)?;
    let now = UnixMs(ctx.now_ms());
    let keyspace = CommandKeyspace { ctx, cache: &cache, searches };
    let mut report = match search.look_up(&keyspace, query, now) {
        Ok(report) => report,
        Err(Halt::Elsewhere) => return Ok(()),
        Err(Halt::Refused(error)) => return Err(error),
    };
    search.choose(&mut report);
    let fields = search.fields.as_deref().unwrap_or(&FIELDS[..USUAL]);
    answer_room(ctx)?
        .all(report.hits.iter().map(|hit| hit_reply::bytes_of(&hit.entry.view(), fields)))?;
    let mut served = hit_reply::judge(&cache, &report, now);
    Note { ctx, cache: &cache, scope: b"", question: None, now }.lookup(&report, &mut served);
    reply.array(report.hits.len());
    for (hit, &served) in report.hits.iter().zip(&served) {
        hit_reply::write(reply, hit, fields, served, now);
    }
    Ok(())
}

impl<'a> Search<'a> {
    /// How many are picked: those answered and those passed over.
    fn count(&self) -> usize {
        self.count.unwrap_or(COUNT_DEFAULT) + self.offset.unwrap_or(0)
    }

    /// How many of the nearest are looked at.
    fn pool(&self) -> usize {
        let count = self.count();
        if self.lambda.is_none() {
            return count;
        }
        let pool = (MMR_CANDIDATES * count).max(MMR_POOL_MIN);
        pool.min(limits::MMR_POOL_MAX).max(count)
    }

    fn look_up<'c>(
        &self,
        keyspace: &CommandKeyspace<'c, '_>,
        query: &Query,
        now: UnixMs,
    ) -> Looked<LookupReport<OpenedEntry<'c>>> {
        let request = LookupRequest {
            scope: b"",
            context: b"",
            prompt: None,
            unseen: None,
            query: Some(query),
            threshold: Some(self.similarity.unwrap_or(-1.0)),
            count: self.pool(),
            ef: self.ef,
            guard: GuardLevel::Off,
            filter: self.filter.as_ref(),
            max_age_ms: None,
            counts_refused: false,
            explain: false,
            chooses: self.lambda.is_some() || self.budget_tokens.is_some() || self.offset.is_some(),
            now,
        };
        look_up(keyspace, &request)
    }

    /// Refuses to choose among so many long vectors that comparing each with each would hold up the server.
    fn check_mmr(&self, dim: usize) -> Result<()> {
        let products = self.count() * self.pool() * dim;
        if self.lambda.is_some() && products > limits::MMR_PRODUCTS_MAX {
            let what = "MMR: COUNT x candidates x dimensions";
            return Err(Error::too_big(what, products, limits::MMR_PRODUCTS_MAX, "products"));
        }
        Ok(())
    }

    /// Leaves of what was found what is to be answered, in its order.
    fn choose(&self, report: &mut LookupReport<OpenedEntry<'_>>) {
        if let Some(lambda) = self.lambda {
            diversify(&mut report.hits, lambda, self.count());
        }
        if let Some(offset) = self.offset {
            report.hits.drain(..offset.min(report.hits.len()));
        }
        if let Some(budget_tokens) = self.budget_tokens {
            let tokens = report.hits.iter().map(|hit| tokens_of(&hit.entry.view()));
            let fit = within_budget(tokens, budget_tokens);
            report.hits.truncate(fit);
        }
    }

    fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let mut search = Self::default();
        while let Some(word) = args.option() {
            let name = word.as_str();
            match name {
                _ if is_vector_word(&word) => {
                    set_once(&mut search.query, vector(&word, &mut args)?, "the vector")?;
                }
                "TEXT" => {
                    set_once(&mut search.text, args.text(name, limits::PROMPT_MAX_BYTES)?, name)?;
                }
                "COUNT" => {
                    let count = args.integer(name, 1, limits::COUNT_MAX.into())? as usize;
                    set_once(&mut search.count, count, name)?;
                }
                "OFFSET" => {
                    let offset = args.integer(name, 0, limits::COUNT_MAX.into())? as usize;
                    set_once(&mut search.offset, offset, name)?;
                }
                "FILTER" => set_once(&mut search.filter, parse_filter(&mut args)?, name)?,
                "SIMILARITY" => set_once(&mut search.similarity, args.similarity(name)?, name)?,
                "MMR" => set_once(&mut search.lambda, args.decimal(name, 0.0, 1.0)?, name)?,
                "TOKENS" => {
                    let budget = args.integer(name, 0, limits::BUDGET_TOKENS_MAX)?;
                    set_once(&mut search.budget_tokens, budget, name)?;
                }
                "EF" => set_once(&mut search.ef, ef(&mut args)? as usize, name)?,
                "RETURN" => {
                    let fields = args.list(name, FIELDS.len())?;
                    set_once(&mut search.fields, hit_reply::parse_fields(fields, &FIELDS)?, name)?;
                }
                _ => return Err(word.unknown()),
            }
        }
        if search.count() > limits::COUNT_MAX as usize {
            let most = limits::COUNT_MAX;
            return Err(Error::err(format!("COUNT and OFFSET together must be at most {most}")));
        }
        Ok(search)
    }
}

/// Leaves `count` hits, in the order of their marginal relevance.
fn diversify(hits: &mut Vec<Hit<OpenedEntry<'_>>>, lambda: f64, count: usize) {
    let relevance: Vec<f64> = hits.iter().map(|hit| hit.similarity).collect();
    let units: Vec<Vec<f32>> = hits.iter().map(|hit| unit(&hit.entry)).collect();
    let picks = pick_diverse(&relevance, lambda, count, |one, other| {
        let (one, other) = (&units[one], &units[other]);
        if one.len() != other.len() {
            return -1.0;
        }
        f64::from((kernels().dot_f32)(one, other))
    });
    let mut left: Vec<_> = hits.drain(..).map(Some).collect();
    hits.extend(picks.into_iter().filter_map(|place| left[place].take()));
}

/// The stored vector at unit length.
fn unit(entry: &OpenedEntry<'_>) -> Vec<f32> {
    let numbers = entry.view().vector().map(|vector| vector.to_f32());
    numbers.and_then(|numbers| normalise(&numbers).ok()).unwrap_or_default()
}
