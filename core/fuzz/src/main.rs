//! libFuzzer on one of the core's targets, which the environment names: `LLMCACHE_FUZZ_TARGET=entry`. Built and run by
//! `tests/torture/fuzz.py`, with `LLMCACHE_FUZZ_SEEDS=folder` once to write the first inputs of all targets.
#![no_main]

#[path = "../../tests/common/chunks.rs"]
mod chunks;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/entries.rs"]
mod entries;
#[path = "../../tests/embed/model.rs"]
#[expect(dead_code, reason = "the tests of embedding need more of it")]
mod model;
#[path = "../../tests/common/sections.rs"]
mod sections;
#[path = "../../tests/common/sessions.rs"]
mod sessions;
#[path = "../../tests/fuzz/targets/mod.rs"]
#[expect(dead_code, reason = "what targets cover is checked by the core's own tests")]
mod targets;

use std::path::Path;
use std::sync::OnceLock;
use targets::{TARGETS, Target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("LLMCACHE_FUZZ_TARGET").expect("LLMCACHE_FUZZ_TARGET names a target");
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

fn prepare() {
    if let Ok(folder) = std::env::var("LLMCACHE_FUZZ_SEEDS") {
        TARGETS.iter().for_each(|target| write_seeds(Path::new(&folder), target));
    }
}

fn write_seeds(folder: &Path, target: &Target) {
    let folder = folder.join(target.name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let inputs = (target.seeds)().into_iter().chain(targets::corpus(target.name));
    for (number, input) in inputs.enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), input).expect("a seed");
    }
}

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| {
    let target = CHOSEN.get_or_init(chosen);
    let (_, _, peak, _) = common::measure(|| (target.attack)(data));
    let most = target.held_bytes + 64 * data.len() as isize;
    assert!(peak <= most, "{peak} bytes are held for {} bytes of input", data.len());
});
