//! A small model of random weights in a folder of its own, and its vectors in f64.

use crate::common::Random;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Sizes of a made model.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub hidden: usize,
    pub heads: usize,
    pub layers: usize,
    pub inner: usize,
    pub words: usize,
    pub positions: usize,
}

pub const SMALL: Sizes =
    Sizes { hidden: 64, heads: 2, layers: 2, inner: 128, words: 300, positions: 64 };

/// A tensor by name.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A folder that is removed with its owner.
pub struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llmcache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("1_Pooling")).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        // Some file systems flush a file that is cut and written again: a new one costs a tenth.
        drop(std::fs::remove_file(&path));
        std::fs::write(path, bytes).expect("a file");
    }

    pub fn write_json(&self, name: &str, value: &Value) {
        self.write(name, value.to_string());
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).expect("a file")
    }
}

/// Writes a whole model; the tensors are those of the file.
pub fn write_model(folder: &Folder, sizes: Sizes, seed: u64) -> Vec<Tensor> {
    folder.write_json("config.json", &config(sizes));
    folder.write_json("tokenizer.json", &tokenizer(sizes.words));
    let pooling =
        json!({"word_embedding_dimension": sizes.hidden, "pooling_mode_mean_tokens": true});
    folder.write_json("1_Pooling/config.json", &pooling);
    let tensors = tensors(sizes, seed);
    folder.write("model.safetensors", safetensors(&tensors));
    tensors
}

pub fn config(sizes: Sizes) -> Value {
    json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": sizes.hidden,
        "num_attention_heads": sizes.heads, "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.inner, "vocab_size": sizes.words,
        "max_position_embeddings": sizes.positions, "layer_norm_eps": 1e-12,
    })
}

/// Special tokens, letters, letters inside words, and made words `aa`, `ab`, …
pub fn tokenizer(words: usize) -> Value {
    let mut vocab = serde_json::Map::new();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(|letter| letter.to_string());
    let inside = ('a'..='z').map(|letter| format!("##{letter}"));
    let made = ('a'..='z').flat_map(|one| ('a'..='z').map(move |two| format!("{one}{two}")));
    for piece in special.into_iter().chain(letters).chain(inside).chain(made).take(words) {
        let number = vocab.len();
        vocab.insert(piece, number.into());
    }
    json!({
        "added_tokens": [{"id": 4, "content": "[MASK]", "special": true}],
        "normalizer": {"type": "BertNormalizer", "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab},
    })
}

/// Adds a tensor: its name, shape, middle and spread.
type Add<'a> = dyn FnMut(String, &[usize], f32, f32) + 'a;

pub fn tensors(sizes: Sizes, seed: u64) -> Vec<Tensor> {
    let Sizes { hidden, inner, .. } = sizes;
    let mut random = Random(seed);
    let mut found = Vec::new();
    let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
        let mut value = || {
            // A sum of four is nearly normal.
            let sum: f32 =
                (0..4).map(|_| random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).sum();
            middle + spread * sum
        };
        let values = (0..shape.iter().product()).map(|_| value()).collect();
        found.push(Tensor { name, shape: shape.to_vec(), values });
    };
    let norm = |add: &mut Add<'_>, name: &str| {
        add(format!("{name}.weight"), &[hidden], 1.0, 0.1);
        add(format!("{name}.bias"), &[hidden], 0.0, 0.1);
    };
    for (name, rows) in [("word", sizes.words), ("position", sizes.positions), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], 0.0, 0.3);
    }
    norm(&mut add, "embeddings.LayerNorm");
    for layer in 0..sizes.layers {
        let of = |part: &str| format!("encoder.layer.{layer}.{part}");
        let linear = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", hidden, inner),
            ("output.dense", inner, hidden),
        ];
        for (part, inputs, outputs) in linear {
            let spread = 1.0 / (inputs as f32).sqrt();
            add(of(&format!("{part}.weight")), &[outputs, inputs], 0.0, spread);
            add(of(&format!("{part}.bias")), &[outputs], 0.0, 0.1);
        }
        norm(&mut add, &of("attention.output.LayerNorm"));
        norm(&mut add, &of("output.LayerNorm"));
    }
    found
}

pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for Tensor { name, shape, values } in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let about = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), about);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

/// The mean vector of tokens in f64, straight from the paper.
pub fn reference(sizes: Sizes, tensors: &[Tensor], tokens: &[u32]) -> Vec<f64> {
    let get = |name: &str| -> &[f32] {
        &tensors.iter().find(|tensor| tensor.name == name).expect("a tensor").values
    };
    let linear = |name: &str, rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let output = |row: &Vec<f64>, out: usize| {
            let weights = &weight[out * row.len()..][..row.len()];
            let sum: f64 = weights.iter().zip(row).map(|(&w, x)| f64::from(w) * x).sum();
            sum + f64::from(bias[out])
        };
        rows.iter().map(|row| (0..bias.len()).map(|out| output(row, out)).collect()).collect()
    };
    let norm = |name: &str, rows: &mut [Vec<f64>]| {
        let (scale, shift) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        for row in rows {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            for (at, x) in row.iter_mut().enumerate() {
                *x = (*x - mean) / (variance + 1e-12).sqrt() * f64::from(scale[at])
                    + f64::from(shift[at]);
            }
        }
    };
    let add = |rows: &mut [Vec<f64>], others: &[Vec<f64>]| {
        for (row, other) in rows.iter_mut().zip(others) {
            row.iter_mut().zip(other).for_each(|(x, y)| *x += y);
        }
    };
    let mut states: Vec<Vec<f64>> = tokens
        .iter()
        .enumerate()
        .map(|(place, &token)| {
            let part = |name: &str, row: usize| {
                &get(&format!("embeddings.{name}_embeddings.weight"))[row * sizes.hidden..]
            };
            let (word, place, kind) =
                (part("word", token as usize), part("position", place), part("token_type", 0));
            (0..sizes.hidden)
                .map(|at| f64::from(word[at]) + f64::from(place[at]) + f64::from(kind[at]))
                .collect()
        })
        .collect();
    norm("embeddings.LayerNorm", &mut states);
    for layer in 0..sizes.layers {
        let of = |part: &str| format!("encoder.layer.{layer}.{part}");
        let [query, key, value] = ["query", "key", "value"]
            .map(|part| linear(&of(&format!("attention.self.{part}")), &states));
        let width = sizes.hidden / sizes.heads;
        let mut mixed = vec![vec![0.0; sizes.hidden]; tokens.len()];
        for head in 0..sizes.heads {
            let own = head * width..(head + 1) * width;
            for (token, mixed) in mixed.iter_mut().enumerate() {
                let score = |other: &Vec<f64>| {
                    let product: f64 = query[token][own.clone()]
                        .iter()
                        .zip(&other[own.clone()])
                        .map(|(x, y)| x * y)
                        .sum();
                    (product / (width as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = key.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for at in own.clone() {
                    mixed[at] = scores
                        .iter()
                        .zip(&value)
                        .map(|(score, value)| score / total * value[at])
                        .sum();
                }
            }
        }
        add(&mut states, &linear(&of("attention.output.dense"), &mixed));
        norm(&of("attention.output.LayerNorm"), &mut states);
        let mut inner = linear(&of("intermediate.dense"), &states);
        for x in inner.iter_mut().flatten() {
            *x = 0.5 * *x * (1.0 + erf(*x / std::f64::consts::SQRT_2));
        }
        add(&mut states, &linear(&of("output.dense"), &inner));
        norm(&of("output.LayerNorm"), &mut states);
    }
    (0..sizes.hidden)
        .map(|at| states.iter().map(|row| row[at]).sum::<f64>() / states.len() as f64)
        .collect()
}

/// By its series, which converges everywhere.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

pub fn cosine(one: &[f32], other: &[f64]) -> f64 {
    let product: f64 = one.iter().zip(other).map(|(&x, y)| f64::from(x) * y).sum();
    let norm = |squares: f64| squares.sqrt();
    product
        / norm(one.iter().map(|&x| f64::from(x).powi(2)).sum())
        / norm(other.iter().map(|y| y * y).sum())
}
