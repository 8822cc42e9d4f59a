//! Folders of models: settings, tokenizer and weights, one of them changed at a time.

use super::{MIB, Target};
use crate::model::{Folder, SMALL, Sizes, write_model};
use llmcache_core::embed::{Model, Role, Scratch, engine};
use serde_json::Value;
use std::cell::RefCell;

const SIZES: Sizes = Sizes { hidden: 32, inner: 32, layers: 1, words: 120, positions: 32, ..SMALL };
const WORDS_OF_UNIGRAM: usize = 100;
const FILES: [&str; 4] = ["config.json", "1_Pooling/config.json", "llmcache.json", "modules.json"];
const OWN: &str = r#"{"threshold": 0.9, "query_prompt": "q ", "script": "any"}"#;

thread_local! {
    static KEPT: RefCell<Option<Folder>> = const { RefCell::new(None) };
}

/// Loads the good folder with this one file changed, and embeds with what was accepted.
fn load_with(file: &str, bytes: &[u8]) -> bool {
    KEPT.with_borrow_mut(|kept| {
        let folder = kept.get_or_insert_with(|| {
            let folder = Folder::new(&format!("fuzz-{:?}", std::thread::current().id()));
            write_model(&folder, SIZES, 1);
            folder.write("llmcache.json", OWN);
            folder
        });
        let before = std::fs::read(folder.path().join(file)).ok();
        folder.write(file, bytes);
        let model = Model::load(folder.path(), engine());
        match before {
            Some(before) => folder.write(file, before),
            None => std::fs::remove_file(folder.path().join(file)).expect("a file"),
        }
        let Ok(model) = model else { return false };
        for text in ["ab cd", "xyz", "é ж", "日本 [MASK] a"] {
            for role in [Role::Query, Role::Document] {
                if let Ok(tokens) = model.read(text, role, true) {
                    let vector = model.embed(&tokens, &mut Scratch::default());
                    assert!(vector.is_none_or(|vector| vector.len() == model.dim()));
                }
                drop(model.read_beginning(text, role, false));
            }
        }
        true
    })
}

fn original(file: &str) -> Vec<u8> {
    let folder = Folder::new(&format!("fuzz-seed-{:?}", std::thread::current().id()));
    write_model(&folder, SIZES, 1);
    folder.write("llmcache.json", OWN);
    std::fs::read(folder.path().join(file)).unwrap_or_else(|_| b"[]".to_vec())
}

/// The fixture of SentencePiece with fewer words, and a table of one text, so that mutations hit what matters.
fn unigram() -> Vec<u8> {
    let fixture = include_str!("../../data/unigram_tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(fixture).expect("a fixture");
    tokenizer["model"]["vocab"].as_array_mut().expect("words").truncate(WORDS_OF_UNIGRAM);
    let is_there =
        |token: &Value| token["id"].as_u64().is_some_and(|id| id < WORDS_OF_UNIGRAM as u64);
    tokenizer["added_tokens"].as_array_mut().expect("tokens").retain(is_there);
    let mut units = [0_u32; 256];
    // From the root to `x`, behind which the first text stands.
    units[usize::from(b'x')] = 0x80 << 10 | 1 << 8 | u32::from(b'x');
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let table = [&(trie.len() as u32).to_le_bytes(), &trie[..], b"y\0"].concat();
    tokenizer["normalizer"]["precompiled_charsmap"] = base64(&table).into();
    tokenizer.to_string().into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits_of = |three: &[u8]| {
        let held = three.iter().fold(0_u32, |held, &byte| held << 8 | u32::from(byte))
            << (8 * (3 - three.len()));
        (0..=three.len())
            .map(move |place| char::from(DIGITS[(held >> (18 - 6 * place) & 63) as usize]))
            .collect::<String>()
    };
    bytes.chunks(3).map(digits_of).collect()
}

/// The first byte says which of the small files.
pub const FOLDER: Target = Target {
    name: "folder",
    covers: &["embed/mod.rs::load", "embed/folder.rs::read", "embed/folder.rs::read_file"],
    seeds: || {
        let with_number = |number: usize| [vec![number as u8], original(FILES[number])].concat();
        (0..FILES.len()).map(with_number).collect()
    },
    attack: |bytes| {
        let Some((&number, rest)) = bytes.split_first() else { return false };
        load_with(FILES[usize::from(number) % FILES.len()], rest)
    },
    held_bytes: 8 * MIB,
    slower: 20,
};

pub const TOKENIZER: Target = Target {
    name: "tokenizer",
    covers: &[
        "embed/tokenizer.rs::parse",
        "embed/json.rs::parse",
        "embed/charsmap.rs::parse",
        "embed/charsmap.rs::decode_base64",
        "embed/folder.rs::read_tokenizer",
        "embed/mod.rs::read",
        "embed/mod.rs::read_beginning",
    ],
    seeds: || vec![original("tokenizer.json"), unigram()],
    attack: |bytes| load_with("tokenizer.json", bytes),
    held_bytes: 8 * MIB,
    slower: 20,
};

pub const WEIGHTS: Target = Target {
    name: "weights",
    covers: &["embed/folder.rs::read_size", "embed/folder.rs::read_body"],
    seeds: || vec![original("model.safetensors")],
    attack: |bytes| load_with("model.safetensors", bytes),
    held_bytes: 8 * MIB,
    slower: 40,
};
