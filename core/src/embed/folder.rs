//! A model's folder, as Hugging Face lays it out: configuration, weights, tokenizer.
//!
//! Owns: reading it and refusing by name what the engine does not run. Everything in it is hostile: sizes are
//! checked before memory is taken for them, and beyond the finished model there is never more than a tensor's rows
//! and a file of settings or words in memory.

use super::bert::{Encoder, Layer, Pooling, Shape};
use super::fixed::Static;
use super::glue::Norm;
use super::json::{Object, each_value};
use super::quant::{Matrix, Table};
use super::safetensors::Tensors;
use crate::error::{Error, Result};
use crate::limits::{
    DIM_MAX, EMBED_CONFIG_MAX_BYTES, EMBED_INNER_MAX, EMBED_LAYERS_MAX, EMBED_PIECES_MAX,
    EMBED_PROMPT_MAX_BYTES, EMBED_STATIC_TOKENS_MAX, EMBED_TOKENIZER_MAX_BYTES, EMBED_TOKENS_MAX,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An encoder.
    Bert,
    /// The same encoder, whose first rows of positions stand for padding.
    XlmRoberta {
        /// The row of the first token.
        first_position: usize,
    },
    /// A vector for each piece.
    Static,
}

/// The weights of a model.
#[derive(Debug)]
pub(super) enum Body {
    Encoder(Box<Encoder>),
    Static(Static),
}

impl Body {
    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Self::Encoder(encoder) => encoder.allocated_bytes(),
            Self::Static(fixed) => fixed.allocated_bytes(),
        }
    }
}

/// What a folder says of its model, besides the weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) epsilon: f32,
    pub(super) pooling: Pooling,
    /// Most tokens of a text, its two ends included.
    pub(super) tokens_max: usize,
    /// What is put before a question, and before a document.
    pub(super) query_prompt: String,
    pub(super) document_prompt: String,
    /// The similarity from which texts mean the same, where the folder says so.
    pub(super) threshold: Option<f64>,
    /// Whether the folder says that the model knows every script.
    pub(super) any_script: bool,
}

/// A file of at most `most` bytes; `None` where there is none.
pub(super) fn read_file(folder: &Path, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
    let failed = |error: std::io::Error| Error::err(format!("{name}: {error}"));
    let path = folder.join(name);
    let about = match std::fs::metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // A pipe would never end.
    if !about.is_file() || about.len() > most as u64 {
        return Err(Error::err(format!("{name}: not a file of at most {most} bytes")));
    }
    let mut bytes = Vec::with_capacity(about.len() as usize);
    let file = File::open(&path).map_err(failed)?;
    // It may grow meanwhile.
    file.take(most as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// A file of settings; an empty one where there is none.
fn with_settings<R>(
    folder: &Path,
    name: &str,
    read: impl FnOnce(&Object<'_>) -> Result<R>,
) -> Result<R> {
    match read_file(folder, name, EMBED_CONFIG_MAX_BYTES)? {
        Some(bytes) => read(&Object::parse(name, &bytes)?),
        None => read(&Object::default()),
    }
}

fn refused(file: &str, what: impl std::fmt::Display) -> Error {
    Error::err(format!("{file}: {what}"))
}

impl Settings {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        const FILE: &str = "config.json";
        let bytes = read_file(folder, FILE, EMBED_CONFIG_MAX_BYTES)?
            .ok_or_else(|| refused(FILE, "there is none"))?;
        let config = Object::parse(FILE, &bytes)?;
        if config.text("model_type")?.as_deref() == Some("model2vec") {
            return Self::read_static(folder);
        }
        let (kind, shape, epsilon) = read_shape(&config)?;
        let longest = with_settings(folder, "sentence_bert_config.json", |file| {
            file.get::<usize>("max_seq_length")
        })?;
        let tokens_max = longest.unwrap_or(shape.positions).min(shape.positions);
        if tokens_max < 3 {
            return Err(refused(FILE, "a text of one word has no place"));
        }
        check_modules(folder)?;
        let pooling = read_pooling(folder)?;
        let tokens_max = tokens_max.min(EMBED_TOKENS_MAX);
        let shape = Shape { positions: tokens_max, ..shape };
        Self::with_texts_of(folder, kind, shape, epsilon, pooling, tokens_max)
    }

    /// A static model: all else follows from its table.
    fn read_static(folder: &Path) -> Result<Self> {
        check_modules(folder)?;
        let shape = Shape { hidden: 0, heads: 1, layers: 0, inner: 0, words: 0, positions: 0 };
        let most = EMBED_STATIC_TOKENS_MAX;
        Self::with_texts_of(folder, Kind::Static, shape, 0.0, Pooling::Mean, most)
    }

    /// The same with what the folder says of prompts, threshold and scripts.
    fn with_texts_of(
        folder: &Path,
        kind: Kind,
        shape: Shape,
        epsilon: f32,
        pooling: Pooling,
        tokens_max: usize,
    ) -> Result<Self> {
        let mut settings = Self {
            kind,
            shape,
            epsilon,
            pooling,
            tokens_max,
            query_prompt: String::new(),
            document_prompt: String::new(),
            threshold: None,
            any_script: false,
        };
        settings.read_prompts(folder)?;
        settings.read_own(folder)?;
        Ok(settings)
    }

    fn read_prompts(&mut self, folder: &Path) -> Result<()> {
        const FILE: &str = "config_sentence_transformers.json";
        with_settings(folder, FILE, |file| {
            let prompts = file.object("prompts")?;
            let default = file.text("default_prompt_name")?;
            let default = default.map_or(Ok(None), |name| prompts.text(&name))?;
            let named = |names: &[&str]| -> Result<String> {
                for name in names {
                    if let Some(prompt) = prompts.text(name)? {
                        return checked_prompt(FILE, &prompt);
                    }
                }
                checked_prompt(FILE, default.as_deref().unwrap_or_default())
            };
            self.query_prompt = named(&["query"])?;
            self.document_prompt = named(&["document", "passage"])?;
            let similarity = file.text("similarity_fn_name")?;
            if !matches!(similarity.as_deref(), None | Some("cosine" | "dot")) {
                return Err(refused(FILE, "vectors that are not compared by cosine"));
            }
            Ok(())
        })
    }

    /// `llmcache.json`: what is said to this module alone.
    fn read_own(&mut self, folder: &Path) -> Result<()> {
        const FILE: &str = "llmcache.json";
        with_settings(folder, FILE, |file| {
            self.threshold = file.get("threshold")?;
            if self.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
                return Err(refused(FILE, "threshold must be 0 to 1"));
            }
            if let Some(prompt) = file.text("query_prompt")? {
                self.query_prompt = checked_prompt(FILE, &prompt)?;
            }
            if let Some(prompt) = file.text("document_prompt")? {
                self.document_prompt = checked_prompt(FILE, &prompt)?;
            }
            self.any_script = match file.text("script")?.as_deref() {
                None => false,
                Some("any") => true,
                Some(other) => {
                    return Err(refused(FILE, format!("script {other:?} is not \"any\"")));
                }
            };
            Ok(())
        })
    }
}

fn checked_prompt(file: &str, prompt: &str) -> Result<String> {
    if prompt.len() > EMBED_PROMPT_MAX_BYTES {
        return Err(refused(file, "a prompt is too long"));
    }
    Ok(prompt.to_owned())
}

fn read_shape(config: &Object<'_>) -> Result<(Kind, Shape, f32)> {
    const FILE: &str = "config.json";
    let only = |name: &str, wanted: &str| match config.text(name)? {
        Some(other) if other != wanted => {
            Err(refused(FILE, format!("{name} {other:?} is not supported, {wanted:?} is")))
        }
        _ => Ok(()),
    };
    if config.raw("model_type").is_none() {
        return Err(refused(FILE, "model_type is missing"));
    }
    let kind = match config.text("model_type")?.as_deref() {
        Some("xlm-roberta") => {
            let padding = config.get::<usize>("pad_token_id")?.unwrap_or(1);
            if padding > 8 {
                return Err(refused(FILE, "pad_token_id is out of range"));
            }
            Kind::XlmRoberta { first_position: padding + 1 }
        }
        Some("bert") => Kind::Bert,
        other => {
            let other = other.unwrap_or_default();
            let supported = "\"bert\", \"xlm-roberta\" and \"model2vec\" are";
            return Err(refused(
                FILE,
                format!("model_type {other:?} is not supported, {supported}"),
            ));
        }
    };
    only("hidden_act", "gelu")?;
    only("position_embedding_type", "absolute")?;
    let size = |name: &str, least: usize, most: usize, step: usize| -> Result<usize> {
        let size: usize = config.need(name)?;
        if !(least..=most).contains(&size) || !size.is_multiple_of(step) {
            let what = format!("{name} is {size}; multiples of {step} in {least}..={most} are run");
            return Err(refused(FILE, what));
        }
        Ok(size)
    };
    let shape = Shape {
        hidden: size("hidden_size", 32, 2_048.min(DIM_MAX as usize), 32)?,
        heads: size("num_attention_heads", 1, 64, 1)?,
        layers: size("num_hidden_layers", 1, EMBED_LAYERS_MAX, 1)?,
        inner: size("intermediate_size", 32, EMBED_INNER_MAX, 32)?,
        words: size("vocab_size", 1, EMBED_PIECES_MAX, 1)?,
        positions: size("max_position_embeddings", 1, 1 << 20, 1)?,
    };
    let first = if let Kind::XlmRoberta { first_position } = kind { first_position } else { 0 };
    let Some(positions) = shape.positions.checked_sub(first) else {
        return Err(refused(FILE, "max_position_embeddings has no place for a text"));
    };
    let shape = Shape { positions, ..shape };
    if !shape.hidden.is_multiple_of(16 * shape.heads) {
        return Err(refused(FILE, "a head's width must be a multiple of 16"));
    }
    let epsilon = config.get::<f32>("layer_norm_eps")?.unwrap_or(1e-12);
    if !(1e-12..=1e-2).contains(&epsilon) {
        return Err(refused(FILE, "layer_norm_eps is out of range"));
    }
    Ok((kind, shape, epsilon))
}

/// The steps after the encoder that sentence-transformers would run.
fn check_modules(folder: &Path) -> Result<()> {
    const FILE: &str = "modules.json";
    let Some(bytes) = read_file(folder, FILE, EMBED_CONFIG_MAX_BYTES)? else { return Ok(()) };
    let text = std::str::from_utf8(&bytes).map_err(|error| refused(FILE, error))?;
    let mut odd = None;
    each_value(text, |module| {
        let module = Object::parse(FILE, module.get().as_bytes()).map_err(|_| "not an object")?;
        let kind = module.text("type").ok().flatten().unwrap_or_default();
        let name = kind.rsplit('.').next().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"].contains(&name) {
            odd = Some(kind.into_owned());
        }
        Ok(())
    })
    .map_err(|error| refused(FILE, error))?;
    odd.map_or(Ok(()), |kind| Err(refused(FILE, format!("module {kind:?} is not supported"))))
}

fn read_pooling(folder: &Path) -> Result<Pooling> {
    const FILE: &str = "1_Pooling/config.json";
    with_settings(folder, FILE, |file| {
        let mut chosen = Vec::new();
        for (name, value) in file.members() {
            if let Some(mode) = name.strip_prefix("pooling_mode_")
                && value.get() == "true"
            {
                chosen.push(mode);
            }
        }
        match chosen[..] {
            [] | ["mean_tokens"] => Ok(Pooling::Mean),
            ["cls_token"] => Ok(Pooling::Cls),
            [mode] => Err(refused(FILE, format!("pooling {mode:?} is not supported"))),
            _ => Err(refused(FILE, "several poolings at once are not supported")),
        }
    })
}

/// The tokenizer's file.
pub(super) fn read_tokenizer(folder: &Path) -> Result<Vec<u8>> {
    const FILE: &str = "tokenizer.json";
    read_file(folder, FILE, EMBED_TOKENIZER_MAX_BYTES)?
        .ok_or_else(|| refused(FILE, "there is none"))
}

/// The weights, and the digest of their file. Each is looked for before memory is taken for any.
pub(super) fn read_body(
    folder: &Path,
    settings: &Settings,
    unknown: u32,
) -> Result<(Body, [u8; 32])> {
    let mut file = Tensors::open(&folder.join(WEIGHTS))?;
    if settings.kind == Kind::Static {
        let fixed = read_table(&file, settings.shape, unknown)?;
        return Ok((Body::Static(fixed), file.digest()?));
    }
    file.choose_prefix(&["", "bert.", "roberta."], "embeddings.word_embeddings.weight");
    let Settings { shape, epsilon, kind, .. } = *settings;
    let first = if let Kind::XlmRoberta { first_position } = kind { first_position } else { 0 };
    check_presence(&file, shape, first)?;
    let mut words = Table::new(shape.words, shape.hidden);
    let size = (shape.words, shape.hidden);
    file.rows("embeddings.word_embeddings.weight", size, |row, values| words.set_row(row, values))?;
    let mut positions = vec![0.0; shape.positions * shape.hidden];
    let size = (first + shape.positions, shape.hidden);
    file.rows("embeddings.position_embeddings.weight", size, |row, values| {
        if let Some(row) = row.checked_sub(first) {
            positions[row * shape.hidden..][..shape.hidden].copy_from_slice(values);
        }
    })?;
    file.rows("embeddings.token_type_embeddings.weight", (1, shape.hidden), |_, values| {
        for place in positions.chunks_exact_mut(shape.hidden) {
            for (sum, value) in place.iter_mut().zip(values) {
                *sum += value;
            }
        }
    })?;
    let reader = Reader { file: &file, epsilon };
    let norm = reader.norm("embeddings.LayerNorm", shape.hidden)?;
    let layers = (0..shape.layers).map(|layer| reader.layer(layer, shape));
    let layers = layers.collect::<Result<_>>()?;
    let digest = file.digest()?;
    Ok((Body::Encoder(Box::new(Encoder { shape, words, positions, norm, layers })), digest))
}

/// The table of a static model.
fn read_table(file: &Tensors, shape: Shape, unknown: u32) -> Result<Static> {
    let Shape { words, hidden, .. } = shape;
    let mut weights = vec![1.0; words];
    if file.has("weights") {
        file.rows("weights", (1, words), |_, values| weights.copy_from_slice(values))?;
    }
    if file.has("mapping") {
        return Err(refused(WEIGHTS, "a table with a mapping is not supported"));
    }
    let (mut table, mut row_of) = (Table::new(words, hidden), vec![0.0; hidden]);
    file.rows("embeddings", (words, hidden), |row, values| {
        for (to, value) in row_of.iter_mut().zip(values) {
            *to = value * weights[row];
        }
        table.set_row(row, &row_of);
    })?;
    Ok(Static { table, width: hidden, unknown })
}

/// Sizes of a static model's table.
pub(super) fn read_size(folder: &Path, settings: &mut Settings) -> Result<()> {
    let file = Tensors::open(&folder.join(WEIGHTS))?;
    let (words, hidden) =
        file.row_count("embeddings").ok_or_else(|| refused(WEIGHTS, "there are no embeddings"))?;
    if !(1..=EMBED_PIECES_MAX).contains(&words) || !(1..=DIM_MAX as usize).contains(&hidden) {
        return Err(refused(WEIGHTS, format!("embeddings of {words} x {hidden} are not read")));
    }
    (settings.shape.words, settings.shape.hidden) = (words, hidden);
    Ok(())
}

const WEIGHTS: &str = "model.safetensors";

/// Whether the largest tensors are there in their sizes: a configuration alone must not cost memory.
fn check_presence(file: &Tensors, shape: Shape, first: usize) -> Result<()> {
    let wrong = |name: &str| {
        Error::err(format!("model.safetensors: {name} is missing or of another shape"))
    };
    let has = |name: &str, rows: usize, width: usize| match file.row_count(name) {
        Some((all, length)) if all >= rows && length == width => Ok(()),
        _ => Err(wrong(name)),
    };
    has("embeddings.word_embeddings.weight", shape.words, shape.hidden)?;
    has("embeddings.position_embeddings.weight", first + shape.positions, shape.hidden)?;
    for layer in 0..shape.layers {
        has(
            &format!("encoder.layer.{layer}.intermediate.dense.weight"),
            shape.inner,
            shape.hidden,
        )?;
        has(&format!("encoder.layer.{layer}.output.dense.weight"), shape.hidden, shape.inner)?;
    }
    let more = format!("encoder.layer.{}.output.dense.weight", shape.layers);
    if file.has(&more) {
        return Err(Error::err(format!(
            "model.safetensors: {more} is a layer more than the configuration has"
        )));
    }
    Ok(())
}

struct Reader<'a> {
    file: &'a Tensors,
    epsilon: f32,
}

impl Reader<'_> {
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        let mut vector = Vec::with_capacity(width);
        self.file.rows(name, (1, width), |_, values| vector.extend_from_slice(values))?;
        Ok(vector)
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let (mut scale, mut shift) = (format!("{name}.weight"), format!("{name}.bias"));
        if !self.file.has(&scale) {
            // As old checkpoints call them.
            (scale, shift) = (format!("{name}.gamma"), format!("{name}.beta"));
        }
        let (scale, shift) = (self.vector(&scale, width)?, self.vector(&shift, width)?);
        Ok(Norm { scale, shift, epsilon: self.epsilon })
    }

    /// Several layers of one input as one.
    fn matrix(&self, names: &[&str], inputs: usize, outputs: usize) -> Result<Matrix> {
        let mut matrix = Matrix::new(inputs, outputs * names.len());
        for (part, name) in names.iter().enumerate() {
            let first = part * outputs;
            let size = (outputs, inputs);
            self.file.rows(&format!("{name}.weight"), size, |row, values| {
                matrix.set_row(first + row, values);
            })?;
            matrix.set_bias(first, &self.vector(&format!("{name}.bias"), outputs)?);
        }
        Ok(matrix)
    }

    fn layer(&self, layer: usize, Shape { hidden, inner, .. }: Shape) -> Result<Layer> {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let own = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let own = own.each_ref().map(String::as_str);
        Ok(Layer {
            asked: self.matrix(&own, hidden, hidden)?,
            answered: self.matrix(&[&name("attention.output.dense")], hidden, hidden)?,
            first_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            up: self.matrix(&[&name("intermediate.dense")], hidden, inner)?,
            down: self.matrix(&[&name("output.dense")], inner, hidden)?,
            second_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }
}
