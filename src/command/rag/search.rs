//! `RAG.SEARCH`: the documents nearest to a vector, or best by words, or both fused; filtered, diverse, within a
//! token budget.

use crate::command::container::create::ef;
use crate::command::container::hit_reply::{self, Field, Served, tokens_of};
use crate::command::container::note::Note;
use crate::command::container::store::check_vector;
use crate::command::container::texts::{Meaning, meaning, model_for, no_vector};
use crate::command::container::told::{self, Beside};
use crate::command::parse::{ArgReader, is_vector_word, parse_filter, set_once, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{
    Again, Choice, CommandKeyspace, OpenedEntry, Place, Presence, Searches, answer_room,
    answer_searching, key_of_found, likeness, need_index, open_container, place_of, unit,
};
use crate::keytype::cache_registry::SharedCache;
use hashbrown::HashMap;
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::{
    Fused, Halt, Hit, Kind, Looked, LookupReport, LookupRequest, WordsRequest, look_up,
    look_up_words, no_words, pick_diverse, within_budget,
};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::filter::Filter;
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::vector::Query;
use llmcache_core::words::{Analyser, Fusion, Language, Snippet, WordIndex, WordQuery, snippet};

/// Results when nothing is said: as many as `FT.SEARCH` and `VSIM` give.
const COUNT_DEFAULT: usize = 10;
/// Candidates for each result that MMR chooses among.
const MMR_CANDIDATES: usize = 4;
/// Least number of candidates that MMR chooses among.
const MMR_POOL_MIN: usize = 20;

/// What RRF adds to each rank when nothing is said, as its authors have it.
const RRF_K: f64 = 60.0;
/// Words of a snippet when nothing is said.
const SNIPPET_WORDS_DEFAULT: usize = 40;
/// What stands for text that a snippet leaves out.
const ELLIPSIS: &str = "\u{2026}";

/// What RETURN knows; without it the first five are answered.
const FIELDS: [Field; 13] = [
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
    Field::Score,
    Field::Words,
    Field::Snippet,
];
/// What is answered to a question of words.
const USUAL_OF_WORDS: [Field; 5] =
    [Field::Document, Field::Score, Field::Text, Field::Meta, Field::Tags];
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
    words: Option<&'a [u8]>,
    fusion: Option<Fusion>,
    snippet_words: Option<usize>,
    marks: Option<(&'a [u8], &'a [u8])>,
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_searching(ctx, args, answer)
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, searches: &Searches) -> Result<()> {
    let search = Search::parse(ArgReader::new(args.options()))?;
    search.check()?;
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        Reply::new(ctx).array(0);
        return Ok(());
    };
    let words = search.word_query(&cache, searches)?;
    let given = match (&search.query, search.text) {
        // A text is found by its words where nothing can embed it.
        (None, Some(_)) if words.is_some() && model_for(&cache).is_none() => None,
        (None, Some(text)) => {
            let again = Again::Reads(answer, args.handles());
            match meaning(ctx, model_for(&cache).as_ref(), text, Role::Query, again)? {
                Meaning::Vector(meant) => Some(meant.query),
                Meaning::Later => return Ok(()),
                Meaning::None(refusal) => return Err(no_vector(refusal)),
            }
        }
        _ => None,
    };
    let query = search.query.as_ref().or(given.as_ref());
    if let Some(query) = query {
        check_vector(&cache, query, args.name())?;
    }
    search.check_mmr(cache.with(|cache| cache.settings.dim.unwrap_or(0)) as usize)?;
    Presence::of(ctx, args.name()).need_all()?;
    need_index(&cache)?;
    let now = UnixMs(ctx.now_ms());
    let keyspace = CommandKeyspace { ctx, cache: &cache, searches };
    let (mut report, mut fused) = match search.look_up(&keyspace, query, words.as_ref(), now) {
        Ok(found) => found,
        Err(Halt::Elsewhere) => return Ok(()),
        Err(Halt::Refused(error)) => return Err(error),
    };
    match search.choose(&keyspace, &mut report, &mut fused) {
        Ok(()) => {}
        Err(Halt::Elsewhere) => return Ok(()),
        Err(Halt::Refused(error)) => return Err(error),
    }
    let usual = if words.is_some() { &USUAL_OF_WORDS[..] } else { &FIELDS[..USUAL] };
    let fields = search.fields.as_deref().unwrap_or(usual);
    answer_room(ctx)?
        .all(report.hits.iter().map(|hit| hit_reply::bytes_of(&hit.entry.view(), fields)))?;
    let snippets = if fields.contains(&Field::Snippet) {
        match search.snippets(&keyspace, words.as_ref(), &report) {
            Ok(snippets) => snippets,
            Err(Halt::Elsewhere) => return Ok(()),
            Err(Halt::Refused(error)) => return Err(error),
        }
    } else {
        Vec::new()
    };
    let mut served = hit_reply::judge(&cache, &report, now);
    Note { ctx, cache: &cache, scope: b"", question: None, now }.lookup(&report, &mut served);
    let mut snippets = snippets.into_iter();
    let beside =
        |place: usize| Beside { fused: fused.get(place).copied(), snippet: snippets.next() };
    let beside: Vec<Beside> = (0..report.hits.len()).map(beside).collect();
    let (name, needs_all) = (args.name(), true);
    let (cache, report, served) = (&cache, &report, &served[..]);
    let answer = told::Answer { name, cache, report, served, fields, now, needs_all, write };
    answer.give(ctx, searches, beside);
    Ok(())
}

/// Writes a document that was found.
fn write(
    reply: Reply<'_>,
    hit: &Hit<OpenedEntry<'_>>,
    fields: &[Field],
    beside: &Beside,
    served: Served,
    now: UnixMs,
) {
    reply.map(fields.len());
    for &field in fields {
        reply.text(field.name());
        match (field, beside.fused) {
            (Field::Score, Some(fused)) => reply.double(fused.score),
            (Field::Score, None) => reply.double(hit.similarity),
            (Field::Words, Some(fused)) => reply.double(fused.words),
            (Field::Similarity, Some(Fused { similarity: None, .. })) => reply.null(),
            (Field::Snippet, _) if beside.snippet.is_some() => {
                reply.bytes(beside.snippet.as_deref().unwrap_or_default())
            }
            _ => {
                hit_reply::write_field(reply, hit, field, served, now);
                reply
            }
        };
    }
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

    /// The best documents, and what words and fusion say of each where words were asked for.
    fn look_up<'c>(
        &self,
        keyspace: &CommandKeyspace<'c, '_>,
        query: Option<&Query>,
        words: Option<&WordQuery>,
        now: UnixMs,
    ) -> Looked<(LookupReport<OpenedEntry<'c>>, Vec<Fused>)> {
        let lookup = LookupRequest {
            scope: b"",
            context: b"",
            prompt: None,
            unseen: None,
            query,
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
        let Some(words) = words else { return Ok((look_up(keyspace, &lookup)?, Vec::new())) };
        let fusion = self.fusion.unwrap_or(Fusion::Rrf { k: RRF_K });
        look_up_words(keyspace, &WordsRequest { lookup, words, fusion })
    }

    /// Refuses what says too little, or what belongs to words without them.
    fn check(&self) -> Result<()> {
        if self.query.is_none() && self.text.is_none() && self.words.is_none() {
            return Err(Error::err("syntax error: a vector, TEXT or WORDS is needed"));
        }
        let has_both = self.query.is_some() || self.text.is_some();
        let is_worded = self.words.is_some() || self.text.is_some();
        if self.fusion.is_some() && !(has_both && is_worded) {
            return Err(Error::err("syntax error: FUSE needs words, and a vector or TEXT"));
        }
        let has_snippet =
            self.fields.as_ref().is_some_and(|fields| fields.contains(&Field::Snippet));
        if (self.snippet_words.is_some() || self.marks.is_some()) && !has_snippet {
            return Err(Error::err("syntax error: SNIPPET and MARKS need RETURN with snippet"));
        }
        Ok(())
    }

    /// What is asked of words: what WORDS says, or where FUSE or the index wants it the text as it is.
    fn word_query(&self, cache: &SharedCache, searches: &Searches) -> Result<Option<WordQuery>> {
        let embeds = model_for(cache).is_some();
        cache.with(|cache| {
            let analyser = cache.index.words().map(WordIndex::analyser);
            let (words, is_given) = (self.words, self.words.is_some() || self.fusion.is_some());
            let by_text_alone = self.query.is_none() && self.text.is_some() && !embeds;
            let asks_words = is_given || by_text_alone && analyser.is_some();
            if !asks_words {
                return Ok(None);
            }
            let analyser = analyser.ok_or_else(no_words)?;
            if cache.index.has_unread_texts() {
                let message = "the words of this index are being read; try again soon";
                return Err(Error::new(ErrorWord::TryAgain, message));
            }
            let text = self.text.unwrap_or_default();
            let read = || match words {
                Some(words) => WordQuery::parse(analyser, words),
                None => Ok(WordQuery::plain(analyser, text)),
            };
            searches.question(cache.uid(), read).map(Some)
        })
    }

    /// Of each hit the place with most of the words asked for.
    fn snippets(
        &self,
        keyspace: &CommandKeyspace<'_, '_>,
        words: Option<&WordQuery>,
        report: &LookupReport<OpenedEntry<'_>>,
    ) -> Looked<Vec<Vec<u8>>> {
        let width = self.snippet_words.unwrap_or(SNIPPET_WORDS_DEFAULT);
        let (open, close) = self.marks.unwrap_or((b"<b>", b"</b>"));
        let clauses = words.map_or(&[][..], |words| &words.clauses);
        let analyser = keyspace.cache.with(|cache| {
            let words = cache.index.words();
            Analyser::new(words.map_or(Language::NONE, |words| words.analyser().language()))
        });
        let weights = keyspace.cache.with(|cache| {
            let words = cache.index.words();
            clauses
                .iter()
                .map(|c| words.map_or(1.0, |words| words.weight_of(c)))
                .collect::<Vec<_>>()
        });
        let of_hit = |hit: &Hit<OpenedEntry<'_>>| {
            let view = hit.entry.view();
            keyspace.searches.snippet(keyspace.ctx, place_of(&view), || {
                // Unpacked only where it is looked into.
                let text = view.response();
                let text = &text[..text.len().min(limits::SNIPPET_TEXT_MAX_BYTES)];
                let text = String::from_utf8_lossy(text);
                let found = snippet(&analyser, &text, clauses, width, |clause| weights[clause]);
                marked(&text, &found, open, close)
            })
        };
        report.hits.iter().map(of_hit).collect()
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
    fn choose(
        &self,
        keyspace: &CommandKeyspace<'_, '_>,
        report: &mut LookupReport<OpenedEntry<'_>>,
        fused: &mut Vec<Fused>,
    ) -> Looked<()> {
        if let Some(lambda) = self.lambda {
            diversify(keyspace, &mut report.hits, fused, lambda, self.count())?;
        }
        if let Some(offset) = self.offset {
            report.hits.drain(..offset.min(report.hits.len()));
            fused.drain(..offset.min(fused.len()));
        }
        if let Some(budget_tokens) = self.budget_tokens {
            let tokens = report.hits.iter().map(|hit| tokens_of(&hit.entry.view()));
            let fit = within_budget(tokens, budget_tokens);
            report.hits.truncate(fit);
        }
        Ok(())
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
                "WORDS" => {
                    let words = args.text(name, limits::WORDS_QUERY_MAX_BYTES)?;
                    set_once(&mut search.words, words, name)?;
                }
                "FUSE" => set_once(&mut search.fusion, fusion(&mut args)?, name)?,
                "SNIPPET" => {
                    let words = args.integer(name, 1, limits::SNIPPET_WORDS_MAX)? as usize;
                    set_once(&mut search.snippet_words, words, name)?;
                }
                "MARKS" => {
                    let most = limits::SNIPPET_MARK_MAX_BYTES;
                    let marks = (args.text(name, most)?, args.text(name, most)?);
                    set_once(&mut search.marks, marks, name)?;
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

/// Reads the value of FUSE.
fn fusion(args: &mut ArgReader<'_>) -> Result<Fusion> {
    let word = args.next("FUSE")?;
    if word.eq_ignore_ascii_case(b"rrf") {
        return Ok(Fusion::Rrf { k: args.decimal("RRF", 0.0, limits::RRF_K_MAX)? });
    }
    if word.eq_ignore_ascii_case(b"linear") {
        return Ok(Fusion::Linear { weight: args.decimal("LINEAR", 0.0, 1.0)? });
    }
    Err(Error::err("FUSE must be RRF and a number, or LINEAR and a weight"))
}

/// Products of comparisons that MMR makes in one go, and how many of them reading a number of a vector is as good as.
const PRODUCTS_AT_ONCE: usize = 1 << 20;
const READING: usize = 16;

/// Leaves `count` hits, in the order of their marginal relevance; halts where they are chosen between other commands.
fn diversify(
    keyspace: &CommandKeyspace<'_, '_>,
    hits: &mut Vec<Hit<OpenedEntry<'_>>>,
    fused: &mut Vec<Fused>,
    lambda: f64,
    count: usize,
) -> Looked<()> {
    // Scores of words have no bound: the best is as relevant as can be.
    let most = fused.iter().map(|fused| fused.score).fold(f64::MIN_POSITIVE, f64::max);
    let relevance: Vec<f64> = match fused.is_empty() {
        true => hits.iter().map(|hit| hit.similarity).collect(),
        false => fused.iter().map(|fused| fused.score / most).collect(),
    };
    let CommandKeyspace { ctx, cache, searches } = *keyspace;
    let picks: Vec<usize> = match searches.picks() {
        Some(picks) => {
            let places: HashMap<Place, usize> = hits
                .iter()
                .enumerate()
                .map(|(at, hit)| (place_of(&hit.entry.view()), at))
                .collect();
            // Of those picked some may have gone since.
            picks.iter().filter_map(|place| places.get(place).copied()).collect()
        }
        None => {
            let dim = hits.first().map_or(0, |hit| usize::from(hit.entry.view().dim()));
            let is_much = hits.len() * (count + READING) * dim > PRODUCTS_AT_ONCE;
            if is_much && searches.may_go_on(ctx) {
                // The vectors are read later: a key must not be opened while it is open.
                let found = hits.iter().map(|hit| key_of_found(cache, &hit.entry.view()));
                searches.leave_choice(Choice::new(found.collect(), relevance, lambda, count));
                return Err(Halt::Elsewhere);
            }
            let units: Vec<Vec<f32>> = hits.iter().map(|hit| unit(&hit.entry.view())).collect();
            pick_diverse(&relevance, lambda, count, |one, other| {
                likeness(&units[one], &units[other])
            })
        }
    };
    *fused = picks.iter().filter_map(|&place| fused.get(place).copied()).collect();
    let mut left: Vec<_> = hits.drain(..).map(Some).collect();
    hits.extend(picks.into_iter().filter_map(|place| left[place].take()));
    Ok(())
}

/// A snippet with its words marked.
fn marked(text: &str, found: &Snippet, open: &[u8], close: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), found.start);
    if found.start > 0 {
        out.extend_from_slice(ELLIPSIS.as_bytes());
    }
    for &(start, end) in &found.marks {
        out.extend_from_slice(&text.as_bytes()[at..start]);
        out.extend_from_slice(open);
        out.extend_from_slice(&text.as_bytes()[start..end]);
        out.extend_from_slice(close);
        at = end;
    }
    out.extend_from_slice(&text.as_bytes()[at..found.end]);
    if found.end < text.len() {
        out.extend_from_slice(ELLIPSIS.as_bytes());
    }
    out
}
