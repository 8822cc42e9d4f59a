//! Every decoder and parser of the core under mutated bytes: a short seeded run of each target, and the table of
//! targets held against the decoders that there are. `make fuzz` runs the same targets for as long as asked, guided
//! by coverage. `LLMCACHE_FUZZ_RUNS` asks for more runs here, `LLMCACHE_FUZZ_TARGET` for one target, `LLMCACHE_FUZZ_SEED`
//! for other mutations (`make fuzz RUNS=…`).

#[path = "../common/chunks.rs"]
mod chunks;
#[path = "../common/mod.rs"]
mod common;
mod decoders;
#[path = "../common/entries.rs"]
mod entries;
#[path = "../embed/model.rs"]
#[expect(dead_code, reason = "the tests of embedding need more of it")]
mod model;
mod mutate;
#[path = "../common/sections.rs"]
mod sections;
#[path = "../common/sessions.rs"]
mod sessions;
mod targets;

use common::{Random, measure};
use std::panic::{AssertUnwindSafe, catch_unwind};
use targets::{TARGETS, Target};

const RUNS: usize = 2_000;

/// One attack, with what it may hold.
fn attack(target: &Target, input: &[u8]) -> bool {
    let (accepted, _, peak, _) = measure(|| (target.attack)(input));
    let most = target.held_bytes + 64 * input.len() as isize;
    assert!(peak <= most, "{peak} bytes are held for {} bytes of input", input.len());
    accepted
}

/// The same; says which input it was that broke something.
fn told(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| attack(target, input))).unwrap_or_else(|cause| {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        let why = cause.downcast_ref::<String>().map_or("a panic, see above", String::as_str);
        panic!(
            "target {}: {why}\ninput, for tests/fuzz/corpus/{}.hex: {hex}",
            target.name, target.name
        )
    })
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
#[expect(clippy::print_stdout, reason = "with --nocapture the figures are printed")]
fn seeds_are_accepted_and_mutations_refused_or_harmless() {
    let runs = setting("LLMCACHE_FUZZ_RUNS").map_or(RUNS, |text| text.parse().expect("a number"));
    let seed = setting("LLMCACHE_FUZZ_SEED").map_or(0, |text| text.parse().expect("a number"));
    let only = setting("LLMCACHE_FUZZ_TARGET");
    let mut tried = 0;
    for target in
        TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name))
    {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty());
        for seed in &seeds {
            assert!(told(target, seed), "{}: a seed is refused", target.name);
        }
        let inputs: Vec<_> = seeds.into_iter().chain(targets::corpus(target.name)).collect();
        let mut accepted = inputs.iter().filter(|input| told(target, input)).count();
        let mut random = Random(target.name.bytes().map(u64::from).sum::<u64>() ^ seed << 32);
        let runs = runs / target.slower;
        for _ in 0..runs {
            let mut input = inputs[random.below(inputs.len())].clone();
            mutate::mutate(&mut input, &inputs, &mut random);
            accepted += usize::from(told(target, &input));
        }
        assert!(accepted > 0);
        println!("{} seed {seed}: {runs} mutations, {accepted} accepted", target.name);
        tried += runs;
    }
    assert!(tried > 0, "no target of this name");
}

#[test]
fn every_decoder_is_reached_by_a_target() {
    let mut there = decoders::found();
    let mut covered: Vec<String> =
        TARGETS.iter().flat_map(|target| target.covers).map(|&name| name.to_owned()).collect();
    covered.sort();
    covered.dedup();
    there.sort();
    there.dedup();
    let missing: Vec<_> = there.iter().filter(|name| !covered.contains(name)).collect();
    let gone: Vec<_> = covered.iter().filter(|name| !there.contains(name)).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "without a target: {missing:?}; no longer there: {gone:?}. The table is TARGETS in core/tests/fuzz/targets"
    );
}
