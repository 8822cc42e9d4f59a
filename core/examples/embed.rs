//! Embeds texts with a model's folder: vectors for comparisons, or times.
//!
//! `embed FOLDER vectors < texts > vectors.f32` writes a row of zeros for a text that is refused;
//! `embed FOLDER time [ENGINE [THREADS]]` prints times by engine and length, of one thread or more that share each text;
//! `embed FOLDER least ENGINE TOKENS SECONDS` the shortest of many passes on one thread, in nanoseconds, which a busy
//! machine spoils least; `embed FOLDER passes ENGINE TOKENS COUNT` runs so many, to be counted by callgrind;
//! `embed FOLDER tokens < texts` the numbers of pieces.

use llmcache_core::embed::{
    Engine, Model, Role, Scratch, Shared, Tokens, Turn, engine, engines, rest,
};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Time that this thread was on a CPU, which other work on the machine does not change.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// One JSON string a line.
fn texts() -> Vec<String> {
    let lines = std::io::stdin().lock().lines();
    lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("a JSON string")).collect()
}

fn vectors(model: &Model) -> std::io::Result<()> {
    let (mut scratch, mut out) = (Scratch::default(), std::io::stdout().lock());
    for text in texts() {
        let tokens = model.read(&text, Role::Query, true);
        let vector = tokens.ok().and_then(|tokens| model.embed(&tokens, &mut scratch));
        for value in vector.unwrap_or_else(|| vec![0.0; model.dim()]) {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}

/// One pass on so many threads.
fn pass(model: &Model, tokens: &Tokens, threads: usize, scratch: &mut [Scratch]) -> Duration {
    let (first, others) = scratch.split_first_mut().expect("a thread");
    if threads == 1 {
        let begin = Instant::now();
        std::hint::black_box(model.embed(tokens, first));
        return begin.elapsed();
    }
    let shared = Shared::new(tokens.ids.len(), threads);
    let arrived = Barrier::new(threads);
    std::thread::scope(|scope| {
        for scratch in &mut others[..threads - 1] {
            let (shared, arrived) = (&shared, &arrived);
            scope.spawn(move || {
                let mut idle = 0;
                arrived.wait();
                loop {
                    match model.help(tokens, shared, scratch) {
                        Turn::Done => idle = 0,
                        Turn::Wait => rest(&mut idle),
                        Turn::Over => break,
                    }
                }
            });
        }
        arrived.wait();
        let begin = Instant::now();
        std::hint::black_box(model.embed_shared(tokens, &shared, first));
        begin.elapsed()
    })
}

/// Prints how long passes take, of every engine or of one: the least and the median by the clock, which differ on a busy
/// machine, and the mean of CPU time.
fn time(folder: &Path, only: Option<&str>, threads: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for engine in engines().into_iter().filter(|engine| only.is_none_or(|only| only == engine.name))
    {
        let begin = Instant::now();
        let model = Model::load(folder, engine).expect("a model");
        let (took, bytes) = (begin.elapsed(), model.allocated_bytes());
        writeln!(out, "{}: loaded in {took:.0?}, {} KB", engine.name, bytes >> 10)?;
        let mut scratch: Vec<_> = (0..threads).map(|_| Scratch::default()).collect();
        for words in [10, 62, 126, 254] {
            let text = vec!["money"; words].join(" ");
            let tokens = model.read(&text, Role::Query, false).expect("a text");
            let (begin, before, mut passes) = (Instant::now(), on_cpu(), Vec::new());
            while passes.len() < 5 || begin.elapsed() < Duration::from_millis(1_500) {
                passes.push(pass(&model, &tokens, threads, &mut scratch));
            }
            let mean = (on_cpu() - before) / passes.len() as u32;
            passes.sort_unstable();
            let (least, median) = (passes[0], passes[passes.len() / 2]);
            let tokens = tokens.ids.len();
            writeln!(out, "  {tokens} tokens: {least:.2?} ({median:.2?}), {mean:.2?} of CPU time")?;
        }
        writeln!(out, "  scratch {} KB", scratch[0].allocated_bytes() >> 10)?;
    }
    Ok(())
}

/// The shortest of passes of so many tokens, until the time is over or so many were done.
fn least(model: &Model, tokens: usize, time: Duration, most: usize) -> Duration {
    let text = vec!["money"; tokens.saturating_sub(2)].join(" ");
    let tokens = model.read(&text, Role::Query, false).expect("a text");
    let (mut scratch, begin) = ([Scratch::default()], Instant::now());
    let passes = (0..most).take_while(|done| *done == 0 || begin.elapsed() < time);
    passes.map(|_| pass(model, &tokens, 1, &mut scratch)).min().unwrap_or_default()
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(&arguments[1]);
    if arguments[2] == "time" {
        let threads = arguments.get(4).map_or(1, |threads| threads.parse().expect("threads"));
        return time(folder, arguments.get(3).map(String::as_str), threads);
    }
    if let [name, tokens, much] = &arguments[3.min(arguments.len())..] {
        let is_named = |engine: &Engine| engine.name == name.as_str();
        let engine = engines().into_iter().find(is_named).expect("an engine of this machine");
        let model = Model::load(folder, engine).expect("a model");
        let (tokens, much) = (tokens.parse().expect("tokens"), much.parse().expect("how much"));
        let took = match arguments[2].as_str() {
            "least" => least(&model, tokens, Duration::from_secs(much), usize::MAX),
            _ => least(&model, tokens, Duration::MAX, much as usize),
        };
        return writeln!(std::io::stdout(), "{}", took.as_nanos());
    }
    let model = Model::load(folder, engine()).expect("a model");
    match arguments[2].as_str() {
        "vectors" => vectors(&model),
        _ => {
            let mut out = std::io::stdout().lock();
            for text in texts() {
                let tokens = model.read(&text, Role::Query, true);
                writeln!(out, "{:?}", tokens.map(|tokens| tokens.ids))?;
            }
            Ok(())
        }
    }
}
