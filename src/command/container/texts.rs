//! Embeds a text where a command takes a vector.
//!
//! Owns: the rule that a container's own model embeds, and what follows where a text has no vector. A vector that
//! is given is always used and never checked against the text. Main thread only.

use crate::config;
use crate::ffi::Ctx;
use crate::keyspace::{Again, Embedded, Meant, ModelId, Texts, default_model, embed, model_of};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Kind, Settings};
use llmcache_core::embed::{Refusal, Role};
use llmcache_core::error::{Error, Result};

/// What a text means.
#[derive(Debug)]
pub enum Meaning {
    /// Its vector.
    Vector(Meant),
    /// It is being embedded: the command is to end without a reply, and is run again.
    Later,
    /// It has no vector: nothing embeds for the container, or the text was refused.
    None(Option<Refusal>),
}

/// The model that embeds for a container.
pub fn model_for(cache: &SharedCache) -> Option<ModelId> {
    cache.with(|cache| ModelId::of(&cache.settings))
}

/// The model that would embed for a container that a store makes.
pub fn model_for_new() -> Option<ModelId> {
    if config::auto_create() { default_model() } else { None }
}

/// What a text means to a model.
pub fn meaning(
    ctx: Ctx<'_>,
    model: Option<&ModelId>,
    text: &[u8],
    role: Role,
    again: Again<'_>,
) -> Result<Meaning> {
    let Some(model) = model else { return Ok(Meaning::None(None)) };
    match embed(ctx, &Texts { model, role, texts: &[text], cut: &[] }, again)? {
        Embedded::Later => Ok(Meaning::Later),
        Embedded::Now(vectors) => Ok(match vectors.into_iter().next() {
            Some(Ok(meant)) => Meaning::Vector(meant),
            Some(Err(refusal)) => Meaning::None(Some(refusal)),
            None => Meaning::None(None),
        }),
    }
}

/// The error of a text that must have a vector and has none.
pub fn no_vector(refusal: Option<Refusal>) -> Error {
    match refusal {
        None => Error::err("syntax error: a vector is needed (no model embeds for this container)"),
        Some(refusal) => Error::err(format!("the text is not embedded: {}", refusal.why())),
    }
}

/// Has a model embed for a container that is to be made; what was said of it otherwise stays.
pub fn embed_with(settings: Settings, model: &ModelId, has_threshold: bool) -> Result<Settings> {
    let (dim, threshold) = model_of(model)?;
    if settings.dim.is_some_and(|other| other != dim) {
        return Err(Error::err(format!("DIM must be {dim}, as the model has it, or be left out")));
    }
    let own = threshold.filter(|_| !has_threshold && settings.kind == Kind::Answers);
    let threshold = own.unwrap_or(settings.threshold);
    Ok(Settings { dim: Some(dim), model: model.text(), threshold, ..settings })
}

/// Settings of a container that a store makes: texts are embedded for it by the default model, unless it is to hold
/// vectors of another dimension.
pub fn settings_for_new(kind: Kind, dim: Option<usize>) -> Settings {
    let settings = config::default_settings(kind);
    let Some(model) = default_model() else { return settings };
    match embed_with(settings.clone(), &model, false) {
        Ok(with) if dim.is_none_or(|dim| with.dim == Some(dim as u32)) => with,
        _ => settings,
    }
}
