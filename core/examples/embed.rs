//! Embeds texts with a model's folder: vectors for comparisons, or times.
//!
//! `embed FOLDER vectors < texts > vectors.f32` writes a row of zeros for a text that is refused;
//! `embed FOLDER time [ENGINE]` prints times by engine and length; `embed FOLDER tokens < texts` the numbers of pieces.

use llmcache_core::embed::{Model, Role, Scratch, engine, engines};
use std::io::{BufRead, Write};
use std::path::Path;
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

/// Prints how long passes take, of every engine or of one: the least and the median by the clock, which differ on a busy
/// machine, and the mean of CPU time.
fn time(folder: &Path, only: Option<&str>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for engine in engines().into_iter().filter(|engine| only.is_none_or(|only| only == engine.name))
    {
        let begin = Instant::now();
        let model = Model::load(folder, engine).expect("a model");
        let (took, bytes) = (begin.elapsed(), model.allocated_bytes());
        writeln!(out, "{}: loaded in {took:.0?}, {} KB", engine.name, bytes >> 10)?;
        let mut scratch = Scratch::default();
        for words in [10, 62, 126, 254] {
            let text = vec!["money"; words].join(" ");
            let tokens = model.read(&text, Role::Query, false).expect("a text");
            let (begin, before, mut passes) = (Instant::now(), on_cpu(), Vec::new());
            while passes.len() < 5 || begin.elapsed() < Duration::from_millis(1_500) {
                let begin = Instant::now();
                std::hint::black_box(model.embed(&tokens, &mut scratch));
                passes.push(begin.elapsed());
            }
            let mean = (on_cpu() - before) / passes.len() as u32;
            passes.sort_unstable();
            let (least, median) = (passes[0], passes[passes.len() / 2]);
            let tokens = tokens.ids.len();
            writeln!(out, "  {tokens} tokens: {least:.2?} ({median:.2?}), {mean:.2?} of CPU time")?;
        }
        writeln!(out, "  scratch {} KB", scratch.allocated_bytes() >> 10)?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(&arguments[1]);
    if arguments[2] == "time" {
        return time(folder, arguments.get(3).map(String::as_str));
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
