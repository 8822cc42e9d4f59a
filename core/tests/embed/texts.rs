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

fn unigram(name: &str, change: impl Fn(&mut serde_json::Value)) -> (Folder, Model) {
    let folder = Folder::new(name);
    let sizes = Sizes { hidden: 32, heads: 1, layers: 1, inner: 32, words: 500, positions: 512 };
    write_model(&folder, sizes, 1);
    let text = include_str!("../data/unigram_tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_str(text).expect("a fixture");
    change(&mut tokenizer);
    folder.write_json("tokenizer.json", &tokenizer);
    let model = Model::load(folder.path(), engine()).expect("a model");
    (folder, model)
}

/// Spaces as newer files write them.
fn with_metaspace_alone(tokenizer: &mut serde_json::Value) {
    let charsmap = tokenizer["normalizer"].take();
    tokenizer["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [
        charsmap,
        {"type": "Strip", "strip_left": false, "strip_right": true},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"},
    ]});
    tokenizer["pre_tokenizer"] = serde_json::json!(
        {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true}
    );
}

#[test]
fn hard_strings_have_the_numbers_of_the_reference_in_unigram() {
    let (_older, older) = unigram("unigram", |_| ());
    let (_newer, newer) = unigram("metaspace", with_metaspace_alone);
    let (mut compared, mut differ) = (0, Vec::new());
    for line in include_str!("../data/unigram_strings.jsonl").lines() {
        let (text, old, new): (String, Vec<u32>, Vec<u32>) =
            serde_json::from_str(line).expect("a fixture");
        for (model, ids) in [(&older, old), (&newer, new)] {
            let got = model.read(&text, Role::Query, true);
            let wanted = if ids.len() == 2 { Err(Refusal::Empty) } else { Ok(ids) };
            if got.clone().map(|tokens| tokens.ids) != wanted {
                differ.push(format!("{text:?}: {got:?}, not {wanted:?}"));
            }
        }
        compared += 1;
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert_eq!(compared, 300);
}

#[test]
fn what_unigram_does_not_do_is_refused_by_name() {
    let folder = Folder::new("unigram-odd");
    write_model(&folder, SMALL, 1);
    let text = include_str!("../data/unigram_tokenizer.json");
    for (path, value, error) in [
        ("/model/byte_fallback", serde_json::json!(true), "byte_fallback"),
        ("/model/unk_id", serde_json::json!(9_999), "unk_id"),
        ("/model/vocab/5/1", serde_json::json!(1e300), "out of range"),
        ("/model/vocab/5/0", serde_json::json!("<s>"), "there twice"),
        ("/model/type", serde_json::json!("BPE"), "\"BPE\" is not supported"),
        ("/normalizer/type", serde_json::json!("Lowercase"), "\"Lowercase\""),
        ("/normalizer/precompiled_charsmap", serde_json::json!("AAAA"), "no table"),
        ("/normalizer/precompiled_charsmap", serde_json::json!("?"), "no table"),
        ("/pre_tokenizer/pretokenizers/0/type", serde_json::json!("Digits"), "\"Digits\""),
        ("/pre_tokenizer/pretokenizers/1/prepend_scheme", serde_json::json!("first"), "Metaspace"),
        ("/added_tokens/0/normalized", serde_json::json!(true), "added token"),
    ] {
        let mut tokenizer: serde_json::Value = serde_json::from_str(text).expect("a fixture");
        *tokenizer.pointer_mut(path).expect("a member") = value;
        folder.write_json("tokenizer.json", &tokenizer);
        let refused = Model::load(folder.path(), engine()).expect_err("refused").to_string();
        assert!(refused.contains(error), "{path}: {refused}");
    }
}

#[test]
fn accents_that_the_tokenizer_strips_are_told_apart_beside_the_vector() {
    let (_folder, model) = wordpiece("accents");
    let read = |text: &str| model.read(text, Role::Query, true).expect("tokens").ids;
    for (one, other) in [("How many años?", "How many anos?"), ("das ist schön", "das ist schon")]
    {
        assert_eq!(read(one), read(other), "to the encoder they are one");
        assert!(model.strips_difference(one, other));
    }
    assert!(!model.strips_difference("How many años?", "how many an\u{303}os"));
    // Unigram keeps them.
    let (_other, keeps) = unigram("keeps", |_| ());
    assert!(!keeps.strips_difference("How many años?", "How many anos?"));
    let ids = |text: &str| keeps.read(text, Role::Query, true).expect("tokens").ids;
    assert_ne!(ids("mañana"), ids("manana"));
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

#[test]
fn words_that_the_model_does_not_know_are_told_apart_beside_the_vector() {
    let folder = Folder::new("unseen");
    write_model(&folder, SMALL, 2);
    let model = Model::load(folder.path(), engine()).expect("a model");
    let read = |text: &str| model.read(text, Role::Query, true).expect("tokens");
    let long = |end: &str| format!("ab {}{end}", "x".repeat(150));
    for (one, other, same) in [
        ("ab cd ef gh \u{1f600}", "ab cd ef gh \u{1f621}", false),
        ("ab cd ef gh \u{1f600}", "ab cd \u{1f600} ef gh", true),
        ("ab cd ef gh", "gh cd", true),
        ("ab cd ef gh \u{1f600}", "ab cd ef gh", false),
        ("\u{1f600} ab \u{1f621}", "\u{1f621} ab \u{1f600}", false),
        ("ab a\u{1f600}b", "ab a\u{1f600}c", false),
        ("ab \u{1f600}\u{1f600}", "ab \u{1f600} \u{1f600}", false),
        // A word is unknown too where it is too long for pieces.
        (&long("y"), &long("z"), false),
        (&long("y"), &long("Y"), true),
    ] {
        let (first, second) = (read(one), read(other));
        assert_eq!(first.unknown == second.unknown, same, "{one:?} {other:?}");
        assert_eq!(model.unseen(one, Role::Query), first.unknown);
    }
    assert_eq!(read("ab").unknown, None);
    // To the encoder they are one.
    assert_eq!(read("ab \u{1f600}").ids, read("ab \u{1f621}").ids);
}
