//! A deterministic simulation of what has time in it: leases and who waits for them, the breaker, deadlines, eviction,
//! invalidation, failover, links that break, and a hash slot that moves. One seed is one schedule.
//!
//! The state machines are the core's own: `Cache` and its index, `Flights`, epochs, who may write, what a node table says.
//! What is modelled is the adapter around them, in its order of steps, and the server: keys, replication, AOF, MIGRATE.
//! `make simulate SEEDS=n` runs as many schedules as asked and says how many an hour that is.

#![expect(clippy::print_stdout, reason = "the figures of the run")]

mod clients;
#[path = "../common/random.rs"]
mod common;
mod cures;
mod deadlines;
mod leases;
mod links;
mod loading;
mod model;
mod node;
mod own_work;
mod returns;
mod schedule;
mod world;

use cures::{CURES, Cure};
use schedule::{Step, schedule, shrink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::World;

/// Schedules of a run without a number asked for.
const SEEDS: u64 = 2_000;
/// Schedules within which a fault must be found whose cure was taken out.
const FOUND_WITHIN: u64 = 40_000;
/// Steps of a schedule that shows it, at most.
const TRACE_MAX: usize = 24;

/// What was wrong, if something was.
fn play(seed: u64, steps: &[Step], without: Option<Cure>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, without);
        steps.iter().for_each(|&step| world.run(step));
        world.settle();
    }))
    .map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "a panic".to_owned())
    })
}

/// A schedule that shows a fault, as short as it was found, and what is wrong in it.
fn shortest(seed: u64, without: Option<Cure>) -> (Vec<Step>, String) {
    let steps = shrink(schedule(seed), |steps| play(seed, steps, without).is_err());
    let why =
        play(seed, &steps, without).expect_err("it was bad before the last step was left out");
    (steps, why)
}

fn told(seed: u64, without: Option<Cure>) -> String {
    let (steps, why) = shortest(seed, without);
    let steps: String = steps.iter().map(|step| format!("    {step:?}\n")).collect();
    format!("seed {seed}: {why}\n{steps}")
}

/// The panics of schedules that are tried are none of the test's.
fn quietly<R>(work: impl FnOnce() -> R) -> R {
    std::panic::set_hook(Box::new(|_| {}));
    let result = work();
    drop(std::panic::take_hook());
    result
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Plays schedules one after the other until the time is over, where one is set; returns how many were good, and the first
/// that is not.
fn play_on(seeds: std::ops::Range<u64>, seconds: Option<u64>) -> (u64, Option<String>) {
    let started = Instant::now();
    let first = seeds.start;
    for seed in seeds.clone() {
        if play(seed, &schedule(seed), None).is_err() {
            return (seed - first, Some(told(seed, None)));
        }
        if seconds.is_some_and(|seconds| started.elapsed().as_secs() >= seconds) {
            return (seed + 1 - first, None);
        }
    }
    (seeds.end - first, None)
}

fn first_bad(seeds: std::ops::Range<u64>, without: Option<Cure>) -> Option<u64> {
    seeds.into_iter().find(|&seed| play(seed, &schedule(seed), without).is_err())
}

// One test: what panics is taken in for the whole process.
#[test]
fn no_schedule_breaks_a_promise_and_without_a_cure_some_do() {
    let (first, count) =
        (setting("LLMCACHE_SIMULATE_SEED").unwrap_or(1), setting("LLMCACHE_SIMULATE_SEEDS"));
    let seeds = first..first + count.unwrap_or(SEEDS);
    let started = Instant::now();
    let (tried, bad) = quietly(|| play_on(seeds, setting("LLMCACHE_SIMULATE_SECONDS")));
    let hours = started.elapsed().as_secs_f64() / 3_600.0;
    if let Some(bad) = bad {
        panic!("{bad}");
    }
    let last = first + tried - 1;
    println!(
        "simulate: seeds {first} to {last}: {tried} schedules, {:.0} an hour, no fault",
        tried as f64 / hours
    );
    if count.is_some() {
        return;
    }
    for &cure in CURES {
        let found = quietly(|| {
            let seed = first_bad(1..FOUND_WITHIN, Some(cure))?;
            Some((seed, shortest(seed, Some(cure))))
        });
        let Some((seed, (steps, why))) = found else {
            panic!("without {cure:?} no schedule fails")
        };
        println!("simulate: without {cure:?}: seed {seed}, {} steps: {why}", steps.len());
        assert!(steps.len() <= TRACE_MAX, "without {cure:?}: {steps:#?}");
    }
}
