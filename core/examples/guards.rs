//! What guards refuse on labelled questions: pairs with a verdict, and utterances with an intent.
//!
//! `cargo run --release -p llmcache-core --example guards -- PAIRS_FOLDER UTTERANCES_FOLDER`
//!
//! The first folder holds `pairs.jsonl` with `pairs_a.f16.npy` and `pairs_b.f16.npy`, the second
//! `utterances.json` with `utterances.f16.npy`. Of the utterances each fourth is asked, and answered by the
//! nearest other one: rightly when both have the same intent, which is generous to the cache and hard on the
//! guards, since another day or amount is another answer too.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use half::f16;
use llmcache_core::cache::guard::{GuardLevel, NumberRule, Question, Rules};
use llmcache_core::distance::kernels;
use serde_json::Value;
use std::path::Path;

const THRESHOLDS: [f32; 3] = [0.80, 0.90, 0.95];
const EVERY: usize = 4;

/// A question, the question its nearest answer belongs to, their similarity, and whether that is right.
type Case = (String, String, f32, bool);

fn main() {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    let [pairs, utterances] = folders.as_slice() else {
        println!("usage: guards PAIRS_FOLDER UTTERANCES_FOLDER");
        return;
    };
    report("pairs", &labelled_pairs(Path::new(pairs)));
    report("utterances", &nearest_utterances(Path::new(utterances)));
}

fn report(name: &str, cases: &[Case]) {
    for threshold in THRESHOLDS {
        for right in [true, false] {
            let near: Vec<&Case> =
                cases.iter().filter(|case| case.2 >= threshold && case.3 == right).collect();
            let kept = |level| {
                let serves = |case: &&&Case| {
                    let question = Question::new(Some(case.0.as_bytes()));
                    let rules = Rules { level, numbers: NumberRule::Equal, exchange: false };
                    let headroom = f64::from(case.2 - threshold);
                    question.refuses(case.1.as_bytes(), rules, headroom).is_none()
                };
                near.iter().filter(serves).count() as f64 * 100.0
            };
            let all = match name {
                "pairs" => cases.iter().filter(|case| case.3 == right).count(),
                _ => cases.len(),
            } as f64;
            println!(
                "{name:10} at {threshold:.2}  {:5}  {:5.2} %  ON {:5.2} %  STRICT {:5.2} %",
                if right { "right" } else { "wrong" },
                near.len() as f64 * 100.0 / all,
                kept(GuardLevel::On) / all,
                kept(GuardLevel::Strict) / all,
            );
        }
    }
}

fn labelled_pairs(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("pairs.jsonl")).expect("pairs.jsonl");
    let (first, second) =
        (rows(&folder.join("pairs_a.f16.npy")), rows(&folder.join("pairs_b.f16.npy")));
    let field = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    text.lines()
        .zip(first.iter().zip(&second))
        .map(|(line, (a, b))| {
            let record: Value = serde_json::from_str(line).expect("a record");
            let right = record["same_answer"].as_bool().expect("a verdict");
            (field(&record, "b"), field(&record, "a"), (kernels().dot_f32)(a, b), right)
        })
        .collect()
}

fn nearest_utterances(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("utterances.json")).expect("utterances.json");
    let records: Vec<Value> = serde_json::from_str(&text).expect("records");
    let vectors = rows(&folder.join("utterances.f16.npy"));
    let field = |at: usize, name: &str| records[at][name].as_str().unwrap_or_default();
    let dot = kernels().dot_f32;
    (0..records.len())
        .step_by(EVERY)
        .map(|asked| {
            let others = (0..records.len()).filter(|&other| other != asked);
            let scored = others.map(|other| (dot(&vectors[asked], &vectors[other]), other));
            let (score, best) =
                scored.max_by(|a, b| a.0.total_cmp(&b.0)).expect("another utterance");
            let right = field(asked, "intent") == field(best, "intent");
            (field(asked, "text").to_owned(), field(best, "text").to_owned(), score, right)
        })
        .collect()
}

/// The rows of an array of f16, brought to unit length.
fn rows(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..head]);
    let shape = text.split('(').nth(1).and_then(|rest| rest.split(')').next()).expect("a shape");
    let dim: usize =
        shape.split(',').nth(1).and_then(|dim| dim.trim().parse().ok()).expect("a matrix");
    bytes[head..]
        .chunks_exact(2 * dim)
        .map(|row| {
            let row: Vec<f32> = row
                .chunks_exact(2)
                .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
                .collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / length).collect()
        })
        .collect()
}
