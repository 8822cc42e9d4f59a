//! Texts into vectors, with models that are made here.

#[path = "../common/mod.rs"]
mod common;

mod folders;
mod model;
mod texts;
mod vectors;
