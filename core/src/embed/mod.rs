//! Texts into vectors: an encoder of the BERT family in 8 bits, with its tokenizer, from a folder.
//!
//! Owns: everything between a text and its vector, and the rules by which a text is not embedded because its
//! vector would stand for other texts too. Must not know: caches, clients, threads. A model is read once and never
//! written again; any number of threads use it, each with a scratch memory of its own.
//!
//! `kernel` has the arithmetic for each instruction set and `glue` what is built of it, once for all of them: equal
//! bits on every CPU. `bert` is the order of layers, `engine` compiles it for each instruction set and chooses, `quant` the weights, `folder` reads them through
//! `safetensors` and `json`, `tokenizer` cuts words: `wordpiece`, `unigram` with its `charsmap`. `fixed` is a model without an
//! encoder.

mod attention;
mod bert;
mod charsmap;
mod engine;
mod fixed;
mod folder;
mod glue;
mod json;
mod kernel;
mod marks;
mod memory;
mod passes;
mod pieces;
mod product;
mod quant;
mod ranges;
mod safetensors;
mod scripts;
mod tables;
mod tokenizer;
mod unigram;
mod vocabulary;
mod wordpiece;

pub use engine::{Engine, engine, engines};
pub use passes::{Scratch, Shared, Turn, rest};
pub use pieces::Tokens;

use crate::error::{Error, Result};
use crate::limits::EMBED_TEXT_MAX_BYTES;
use bert::Pooling;
use folder::{Body, Kind, Settings};
use sha2::{Digest, Sha256};
use std::path::Path;
use tokenizer::Tokenizer;

/// The version of the arithmetic. Part of a model's identity: vectors of two versions are not compared.
pub const ENGINE: u32 = 1;

/// What a text is embedded as; some models put something else before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A question, or an answer's prompt: what is compared with its like.
    Query,
    /// A document that questions are to find.
    Document,
}

/// Why a text is not embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has more tokens than the model reads: texts with one beginning would be one.
    TooLong,
    /// The model does not know what it is written in: unrelated texts would be one.
    Script,
    /// It has no word at all.
    Empty,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TooLong, Self::Script, Self::Empty];

    /// The word for replies and statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Script => "script",
            Self::Empty => "empty",
        }
    }

    /// The end of a sentence that says so.
    pub fn why(self) -> &'static str {
        match self {
            Self::TooLong => "it has more tokens than the model reads",
            Self::Script => "the model does not know what it is written in",
            Self::Empty => "it has no words",
        }
    }
}

/// Share of words or letters that a model may not know, in percent.
const UNKNOWN_MAX_PERCENT: usize = 20;

/// Similarities from which texts mean the same, by the digests of weights that were measured.
const MEASURED: [(&str, f64); 1] =
    [("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 0.90)];

/// A model.
#[derive(Debug)]
pub struct Model {
    settings: Settings,
    tokenizer: Tokenizer,
    body: Body,
    engine: Engine,
    digest: [u8; 16],
    threshold: Option<f64>,
    /// What stands before each text, by role, as tokens.
    prompts: [Tokens; 2],
}

impl Model {
    /// Reads a folder.
    pub fn load(folder: &Path, engine: Engine) -> Result<Self> {
        let mut settings = Settings::read(folder)?;
        if settings.kind == Kind::Static {
            folder::read_size(folder, &mut settings)?;
        }
        let json = folder::read_tokenizer(folder)?;
        let tokenizer = Tokenizer::parse(&json)?;
        if tokenizer.len() > settings.shape.words {
            let (pieces, words) = (tokenizer.len(), settings.shape.words);
            return Err(Error::err(format!(
                "tokenizer.json: {pieces} pieces, the model has {words}"
            )));
        }
        let vocabulary: [u8; 32] = Sha256::digest(&json).into();
        drop(json);
        let (mut body, weights) = folder::read_body(folder, &settings, tokenizer.unknown())?;
        if let Body::Encoder(encoder) = &mut body
            && engine.clips
        {
            encoder.clip();
        }
        let digest = identity(&settings, &vocabulary, &weights);
        let measured = MEASURED.iter().find(|(digest, _)| *digest == hex(&weights));
        let threshold = settings.threshold.or(measured.map(|measured| measured.1));
        let prompts = [&settings.query_prompt, &settings.document_prompt]
            .map(|prompt| tokenizer.tokens(prompt, settings.tokens_max, true).unwrap_or_default());
        Ok(Self { settings, tokenizer, body, engine, digest, threshold, prompts })
    }

    /// The tokens of a text, or why it has no vector of its own.
    pub fn read(
        &self,
        text: &str,
        role: Role,
        any_script: bool,
    ) -> std::result::Result<Tokens, Refusal> {
        if text.len() > EMBED_TEXT_MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        self.tokens(text, role, any_script, false)
    }

    /// The same of the beginning of a text, as much of it as the model reads.
    pub fn read_beginning(
        &self,
        text: &str,
        role: Role,
        any_script: bool,
    ) -> std::result::Result<Tokens, Refusal> {
        let mut end = text.len().min(EMBED_TEXT_MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.tokens(&text[..end], role, any_script, true)
    }

    fn tokens(
        &self,
        text: &str,
        role: Role,
        any_script: bool,
        cuts: bool,
    ) -> std::result::Result<Tokens, Refusal> {
        let prompt = self.prompt(role);
        let whole;
        let text = match prompt {
            "" => text,
            prompt => {
                whole = format!("{prompt}{text}");
                &whole
            }
        };
        let tokens =
            self.tokenizer.tokens(text, self.settings.tokens_max, cuts).ok_or(Refusal::TooLong)?;
        let before = &self.prompts[role as usize];
        // What the prompt has of each is not the text's; the two may meet in one word.
        let own = |all: usize, before: usize| all.saturating_sub(before);
        let words = own(tokens.words, before.words);
        if words == 0 {
            return Err(Refusal::Empty);
        }
        let many = |some: usize, all: usize| some * 100 > all * UNKNOWN_MAX_PERCENT;
        let unknown = many(own(tokens.unknown_words, before.unknown_words), words);
        let letters = own(tokens.letters, before.letters);
        let foreign = many(own(tokens.foreign_letters, before.foreign_letters), letters);
        if !any_script && !self.settings.any_script && (unknown || foreign) {
            return Err(Refusal::Script);
        }
        Ok(tokens)
    }

    /// A digest of the words of a text that the model does not know, in their order: their vectors do not tell them apart.
    /// `None` where it knows all, or does not read the text.
    pub fn unseen(&self, text: &str, role: Role) -> Option<[u8; 16]> {
        self.read(text, role, true).ok()?.unknown
    }

    /// The vector of tokens that `read` gave, not normalised. `None` of one that is no vector.
    pub fn embed(&self, tokens: &Tokens, scratch: &mut Scratch) -> Option<Vec<f32>> {
        let pooling = self.settings.pooling;
        is_vector(match &self.body {
            Body::Encoder(encoder) => {
                passes::embed(self.engine, encoder, &tokens.ids, pooling, scratch)
            }
            // The two ends are not the text's.
            Body::Static(fixed) => {
                fixed.embed(tokens.ids.get(1..tokens.ids.len() - 1).unwrap_or_default())
            }
        })
    }

    /// The same with whoever helps meanwhile: equal bits, in less time. `None` too where a helper panicked.
    pub fn embed_shared(
        &self,
        tokens: &Tokens,
        shared: &Shared,
        scratch: &mut Scratch,
    ) -> Option<Vec<f32>> {
        let Body::Encoder(encoder) = &self.body else { return self.embed(tokens, scratch) };
        let pooling = self.settings.pooling;
        is_vector(shared.embed(self.engine, encoder, &tokens.ids, pooling, scratch)?)
    }

    /// Does a part of the work of whoever runs `embed_shared` with these tokens, of some hundred microseconds.
    pub fn help(&self, tokens: &Tokens, shared: &Shared, scratch: &mut Scratch) -> Turn {
        match &self.body {
            Body::Encoder(encoder) => shared.help(self.engine, encoder, &tokens.ids, scratch),
            Body::Static(_) => Turn::Over,
        }
    }

    /// Whether two texts have a word whose letters differ by what is stripped before the model sees it: accents. Their
    /// vectors do not tell them apart.
    pub fn strips_difference(&self, one: &str, other: &str) -> bool {
        self.tokenizer.strips_difference(one, other)
    }

    /// Whether a text takes it microseconds: there is nothing to wait for.
    pub fn is_static(&self) -> bool {
        matches!(self.body, Body::Static(_))
    }

    fn prompt(&self, role: Role) -> &str {
        match role {
            Role::Query => &self.settings.query_prompt,
            Role::Document => &self.settings.document_prompt,
        }
    }

    /// Whether questions and documents are read alike.
    pub fn reads_alike(&self) -> bool {
        self.settings.query_prompt == self.settings.document_prompt
    }

    /// Dimensions of its vectors.
    pub fn dim(&self) -> usize {
        self.settings.shape.hidden
    }

    /// Most tokens of a text.
    pub fn tokens_max(&self) -> usize {
        self.settings.tokens_max
    }

    /// The similarity from which texts mean the same, where it is known.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold
    }

    /// What tells it from every other: settings, words, weights and the version of the arithmetic.
    pub fn digest(&self) -> [u8; 16] {
        self.digest
    }

    /// Its bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.body.allocated_bytes() + self.tokenizer.allocated_bytes()
    }
}

fn is_vector(vector: Vec<f32>) -> Option<Vec<f32>> {
    let is_some = vector.iter().any(|value| *value != 0.0);
    (is_some && vector.iter().all(|value| value.is_finite())).then_some(vector)
}

fn identity(settings: &Settings, vocabulary: &[u8; 32], weights: &[u8; 32]) -> [u8; 16] {
    let Settings { kind, shape, epsilon, pooling, query_prompt, document_prompt, .. } = settings;
    let mut hash = Sha256::new();
    hash.update(ENGINE.to_le_bytes());
    for size in [shape.hidden, shape.heads, shape.layers, shape.inner, shape.words] {
        hash.update((size as u64).to_le_bytes());
    }
    hash.update(epsilon.to_bits().to_le_bytes());
    hash.update([u8::from(*pooling == Pooling::Cls)]);
    for prompt in [query_prompt, document_prompt] {
        hash.update((prompt.len() as u64).to_le_bytes());
        hash.update(prompt);
    }
    // Those of BERT are as they were before there were others.
    match kind {
        Kind::Bert => {}
        Kind::XlmRoberta { first_position } => {
            hash.update(b"xlm-roberta");
            hash.update((*first_position as u64).to_le_bytes());
        }
        Kind::Static => hash.update(b"static"),
    }
    hash.update(vocabulary);
    hash.update(weights);
    let whole: [u8; 32] = hash.finalize().into();
    let mut digest = [0; 16];
    digest.copy_from_slice(&whole[..16]);
    digest
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
