//! Folders of models as hostile bytes: refused by name or working, never a panic, never more memory than said.

use crate::common::{Random, measure};
use crate::model::{Folder, SMALL, safetensors, tensors, tokenizer, with_header, write_model};
use llmcache_core::embed::{Model, Role, Scratch, engine};
use serde_json::{Value, json};
use std::io::Write;

fn refusal(folder: &Folder) -> String {
    match Model::load(folder.path(), engine()) {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn changed(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = Folder::new("changed");
    write_model(&folder, SMALL, 1);
    let mut value: Value = match std::fs::read(folder.path().join(file)) {
        Ok(bytes) => serde_json::from_slice(&bytes).expect("JSON"),
        Err(_) => json!({}),
    };
    change(&mut value);
    folder.write_json(file, &value);
    refusal(&folder)
}

#[test]
fn what_is_not_run_is_refused_by_name() {
    let config = |name: &str, value: Value| changed("config.json", |file| file[name] = value);
    for (refused, why) in [
        (config("model_type", json!("modernbert")), "\"modernbert\""),
        (config("model_type", json!("roberta")), "\"roberta\""),
        (config("model_type", Value::Null), "model_type is missing"),
        (config("hidden_act", json!("gelu_new")), "hidden_act \"gelu_new\""),
        (config("position_embedding_type", json!("relative_key")), "\"relative_key\""),
        (config("hidden_size", json!(100)), "hidden_size is 100"),
        (config("num_attention_heads", json!(3)), "a head's width"),
        (config("num_hidden_layers", json!(1_000_000)), "num_hidden_layers is 1000000"),
        (config("num_hidden_layers", json!(1)), "a layer more than"),
        (config("num_hidden_layers", json!(3)), "encoder.layer.2"),
        (config("intermediate_size", json!(160)), "another shape"),
        (config("vocab_size", json!(299_999)), "word_embeddings"),
        (config("vocab_size", json!(200)), "300 pieces, the model has 200"),
        (config("layer_norm_eps", json!(0)), "layer_norm_eps"),
    ] {
        assert!(refused.contains(why), "{refused:?} does not say {why:?}");
    }
    let tokens = |part: &str, value: Value| changed("tokenizer.json", |file| file[part] = value);
    for (refused, why) in [
        (tokens("model", json!({"type": "BPE", "vocab": []})), "\"BPE\""),
        (tokens("normalizer", json!({"type": "NFC"})), "\"NFC\""),
        (tokens("pre_tokenizer", json!({"type": "ByteLevel"})), "\"ByteLevel\""),
        (tokens("pre_tokenizer", Value::Null), "\"none\""),
        (tokens("post_processor", json!({"type": "RobertaProcessing"})), "\"RobertaProcessing\""),
        (tokens("added_tokens", json!([{"id": 1, "content": "x", "rstrip": true}])), "rstrip"),
        (
            tokens("added_tokens", json!([{"id": 999_999, "content": "x"}])),
            "not one of the vocabulary",
        ),
    ] {
        assert!(refused.contains(why), "{refused:?} does not say {why:?}");
    }
    let pooling = changed("1_Pooling/config.json", |file| {
        *file = json!({"pooling_mode_max_tokens": true});
    });
    assert!(pooling.contains("\"max_tokens\""), "{pooling}");
    let modules = changed("modules.json", |file| {
        *file = json!([{"type": "sentence_transformers.models.Dense"}]);
    });
    assert!(modules.contains("models.Dense"), "{modules}");
    let prompts = changed("config_sentence_transformers.json", |file| {
        *file = json!({"similarity_fn_name": "euclidean"});
    });
    assert!(prompts.contains("cosine"), "{prompts}");
}

#[test]
fn absent_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = Folder::new("absent");
        write_model(&folder, SMALL, 1);
        std::fs::remove_file(folder.path().join(file)).expect("a file");
        assert!(refusal(&folder).contains(file));
        // A folder where a file belongs.
        std::fs::create_dir(folder.path().join(file)).expect("a folder");
        assert!(refusal(&folder).contains(file));
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let folder = Folder::new("headers");
    write_model(&folder, SMALL, 1);
    let whole = folder.read("model.safetensors");
    let mut lies: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 7],
        u64::MAX.to_le_bytes().to_vec(),
        with_header("", &[]),
        with_header("[]", &[]),
        with_header(&"[".repeat(1 << 19), &[]),
        with_header(&format!("{{{}}}", "\"a\":0,".repeat(100_000)), &[]),
        whole[..whole.len() - 1].to_vec(),
        whole[..whole.len() / 2].to_vec(),
    ];
    let name = "embeddings.word_embeddings.weight";
    for about in [
        json!({"dtype": "F32", "shape": [300, 64], "data_offsets": [76_800, 0]}),
        json!({"dtype": "F32", "shape": [300, 64], "data_offsets": [0, u64::MAX]}),
        json!({"dtype": "F32", "shape": [u64::MAX, u64::MAX], "data_offsets": [0, 4]}),
        json!({"dtype": "F32", "shape": [300, 64], "data_offsets": [0, 4]}),
        json!({"dtype": "F64", "shape": [300, 64], "data_offsets": [0, 4]}),
        json!({"dtype": "I8", "shape": [300, 64], "data_offsets": [0, 19_200]}),
        json!({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}),
        json!({"shape": [1], "data_offsets": [0, 4]}),
        json!(7),
    ] {
        lies.push(with_header(&json!({ name: about }).to_string(), &[0; 76_800]));
    }
    for (place, lie) in lies.iter().enumerate() {
        folder.write("model.safetensors", lie);
        assert!(
            refusal(&folder).contains("model.safetensors"),
            "lie {place}: {}",
            refusal(&folder)
        );
    }
    for odd in [f32::NAN, f32::INFINITY, f32::MIN, 1e5] {
        let mut tensors = tensors(SMALL, 1);
        tensors[9].values[5] = odd;
        folder.write("model.safetensors", safetensors(&tensors));
        assert!(refusal(&folder).contains("weight of"), "{odd}: {}", refusal(&folder));
    }
}

#[test]
fn a_vocabulary_of_one_far_number_costs_nothing() {
    for number in [u64::from(u32::MAX), 300_000, u64::MAX] {
        let refused =
            changed("tokenizer.json", |file| file["model"]["vocab"]["zz"] = json!(number));
        assert!(refused.contains("tokenizer.json"), "{refused}");
    }
    let twice = r#""vocab":{"[UNK]":1,"[CLS]":2,"[SEP]":3,"[SEP]":4}"#;
    let folder = Folder::new("twice");
    write_model(&folder, SMALL, 1);
    let text = tokenizer(5).to_string();
    let start = text.find("\"vocab\"").expect("a vocabulary");
    let end = start + text[start..].find('}').expect("its end") + 1;
    folder.write("tokenizer.json", format!("{}{twice}{}", &text[..start], &text[end..]));
    assert!(refusal(&folder).contains("twice"), "{}", refusal(&folder));
}

/// Bytes changed, cut, doubled and exchanged in every file. `LLMCACHE_MUTATIONS` asks for more of them,
/// `LLMCACHE_MUTATIONS_SEED` for others.
#[test]
fn changed_bytes_are_refused_or_work() {
    const FILES: [&str; 5] = [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "llmcache.json",
    ];
    let asked = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let folder = Folder::new("mutations");
    write_model(&folder, SMALL, 1);
    folder.write("llmcache.json", r#"{"threshold": 0.9, "query_prompt": "q ", "script": "any"}"#);
    let originals = FILES.map(|file| folder.read(file));
    let (_, _, whole, _) = measure(|| Model::load(folder.path(), engine()).map(drop));
    let seed = asked("LLMCACHE_MUTATIONS_SEED").unwrap_or(7);
    let count = asked("LLMCACHE_MUTATIONS").unwrap_or(1_500) as usize;
    let (mut random, mut worked) = (Random(seed), 0);
    for round in 0..count {
        let place = random.below(FILES.len());
        folder.write(FILES[place], mutated(&originals[place], &mut random));
        let (loaded, _, used, _) = measure(|| Model::load(folder.path(), engine()));
        // The model, a file of it, and what its JSON is read with.
        let bound = whole + (2 << 20);
        assert!(used < bound, "seed {seed}, round {round}: {used} bytes");
        if let Ok(model) = loaded {
            worked += 1;
            for text in ["ab cd", "xyz", "é ж"] {
                if let Ok(tokens) = model.read(text, Role::Query, true) {
                    let vector = model.embed(&tokens, &mut Scratch::default());
                    assert!(vector.is_none_or(|vector| vector.len() == model.dim()));
                }
            }
        }
        folder.write(FILES[place], &originals[place]);
    }
    if asked("LLMCACHE_MUTATIONS").is_some() {
        let refused = count - worked;
        let said = format!("seed {seed}: {count} folders, {worked} worked, {refused} were refused");
        writeln!(std::io::stdout(), "{said}").expect("an output");
    }
    assert!(worked > count / 20 && worked < count, "{worked} of {count}");
}

fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Half of them where settings are, not in the many numbers behind.
    let head = bytes.len().min(6_000);
    for _ in 0..=random.below(4) {
        let range = if random.below(2) == 0 { head } else { bytes.len() };
        let at = random.below(range.min(bytes.len()));
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 if !bytes.is_empty() => {
                drop(bytes.drain(at..(at + random.below(40)).min(bytes.len())))
            }
            _ => {
                // A digit elsewhere: numbers that are still numbers.
                if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + random.below(10) as u8;
                }
            }
        }
    }
    bytes
}
