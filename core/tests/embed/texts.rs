//! Texts: the reference tokenizer's numbers, and which texts are not embedded.

use crate::model::{Folder, SMALL, Sizes, write_model};
use llmcache_core::embed::{Model, Refusal, Role, engine};

fn wordpiece(name: &str) -> (Folder, Model) {
    let folder = Folder::new(name);
    let sizes = Sizes { hidden: 32, heads: 1, layers: 1, inner: 32, words: 30_522, positions: 512 };
    write_model(&folder, sizes, 1);
    folder.write("tokenizer.json", include_str!("../data/wordpiece_tokenizer.json"));
    let model = Model::load(folder.path(), engine()).expect("a model");
    (folder, model)
}

#[test]
fn hard_strings_have_the_numbers_of_the_reference() {
    let (_folder, model) = wordpiece("strings");
    let mut compared = 0;
    for line in include_str!("../data/wordpiece_strings.jsonl").lines() {
        let (text, ids): (String, Vec<u32>) = serde_json::from_str(line).expect("a fixture");
        let got = model.read(&text, Role::Query, true);
        if ids.len() == 2 {
            assert_eq!(got, Err(Refusal::Empty), "{text:?}");
        } else {
            assert_eq!(got.map(|tokens| tokens.ids), Ok(ids), "{text:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, 300);
}

#[test]
fn texts_whose_vector_would_stand_for_others_are_refused() {
    let folder = Folder::new("refused");
    write_model(&folder, SMALL, 2);
    let model = Model::load(folder.path(), engine()).expect("a model");
    let read = |text: &str| model.read(text, Role::Query, false).map(|tokens| tokens.ids.len());
    // Two ends and 62 words are 64 tokens; one more is too many, and so is one piece more.
    assert_eq!(read(&"ab ".repeat(62)), Ok(64));
    assert_eq!(read(&"ab ".repeat(63)), Err(Refusal::TooLong));
    assert_eq!(read(&format!("{} abc", "ab ".repeat(61))), Err(Refusal::TooLong));
    assert_eq!(read(&"x".repeat(1 << 20)), Err(Refusal::TooLong));
    for text in ["", " ", "\t\n", "\u{200b}"] {
        assert_eq!(read(text), Err(Refusal::Empty), "{text:?}");
    }
    for text in [
        "ขอเงินคืนได้อย่างไร",
        "как вернуть деньги",
        "如何退款",
        "كيف أسترد أموالي",
        "😀 😀",
        "ab ขอเงินคืน",
    ] {
        assert_eq!(read(text), Err(Refusal::Script), "{text:?}");
    }
    // One word in five may be unknown.
    assert_eq!(read("ab ab ab ab €"), Ok(7));
    assert_eq!(read("ab ab ab €"), Err(Refusal::Script));
    assert!(model.read("как вернуть деньги", Role::Query, true).is_ok());
}

#[test]
fn a_folder_may_know_every_script() {
    let folder = Folder::new("any");
    write_model(&folder, SMALL, 2);
    folder.write("llmcache.json", r#"{"script": "any", "threshold": 0.97}"#);
    let model = Model::load(folder.path(), engine()).expect("a model");
    assert!(model.read("как вернуть деньги", Role::Query, false).is_ok());
    assert_eq!(model.threshold(), Some(0.97));
}
