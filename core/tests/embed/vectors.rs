//! Vectors of a made model: near to those of f64, equal to the bit on every instruction set, and the same for ever.

use crate::common::Random;
use crate::model::{Folder, SMALL, Sizes, cosine, reference, write_model};
use llmcache_core::embed::{Model, Role, Scratch, Shared, Tokens, Turn, engines, rest};
use proptest::prelude::*;
use std::sync::Barrier;

fn tokens(ids: Vec<u32>) -> Tokens {
    Tokens { words: ids.len(), ids, ..Tokens::default() }
}

fn random_tokens(random: &mut Random, sizes: Sizes, length: usize) -> Tokens {
    tokens((0..length).map(|_| random.below(sizes.words) as u32).collect())
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn vectors_are_near_to_those_of_f64() {
    let folder = Folder::new("near");
    let tensors = write_model(&folder, SMALL, 1);
    let mut random = Random(2);
    for engine in engines() {
        let model = Model::load(folder.path(), engine).expect("a model");
        let mut scratch = Scratch::default();
        for length in [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64] {
            let tokens = random_tokens(&mut random, SMALL, length);
            let vector = model.embed(&tokens, &mut scratch).expect("a vector");
            let near = cosine(&vector, &reference(SMALL, &tensors, &tokens.ids));
            assert!(near > 0.995, "{} at {length}: {near}", engine.name);
        }
    }
}

#[test]
fn a_pass_reads_nothing_of_the_one_before() {
    let folder = Folder::new("scratch");
    write_model(&folder, SMALL, 3);
    let (mut random, mut used) = (Random(4), Scratch::default());
    for engine in engines() {
        let model = Model::load(folder.path(), engine).expect("a model");
        for length in [64, 3, 40, 1, 17] {
            let tokens = random_tokens(&mut random, SMALL, length);
            let alone = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
            assert_eq!(bits(&alone), bits(&model.embed(&tokens, &mut used).expect("a vector")));
        }
    }
}

/// Pairs of weights as large as they get, whose products with bytes no sum of 16 bits holds: none of them, some, many.
#[test]
fn large_weights_beside_each_other_give_equal_bits() {
    for (percent, seed) in [(0, 40), (5, 41), (20, 42), (40, 43), (100, 44)] {
        let (folder, mut random) = (Folder::new("large"), Random(seed));
        let mut tensors = write_model(&folder, SMALL, seed);
        for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
            let largest = tensor.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for pair in tensor.values.as_chunks_mut::<2>().0 {
                if random.below(100) < percent {
                    *pair = [if random.below(2) == 0 { largest } else { -largest }; 2];
                }
            }
        }
        folder.write("model.safetensors", crate::model::safetensors(&tensors));
        for length in [1, 5, 12, 16, 17, 33, 64] {
            let tokens = random_tokens(&mut random, SMALL, length);
            let all = engines().into_iter().map(|engine| {
                let model = Model::load(folder.path(), engine).expect("a model");
                let vector = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
                (engine.name, bits(&vector))
            });
            let all: Vec<_> = all.collect();
            for (name, vector) in &all {
                assert_eq!(vector, &all[0].1, "{name}, {percent} %, {length} tokens");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Shapes of every kind, weights of every size.
    #[test]
    fn all_engines_give_equal_bits(
        heads in 1_usize..5,
        head_steps in 1_usize..5,
        inner_steps in 1_usize..9,
        layers in 1_usize..3,
        length in 1_usize..70,
        times in prop::sample::select(vec![1e-6_f32, 0.1, 1.0, 30.0, 1e3]),
        cls in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let hidden = (heads * head_steps * 16).next_multiple_of(32);
        prop_assume!(hidden.is_multiple_of(16 * heads));
        let sizes = Sizes { hidden, heads, layers, inner: inner_steps * 32, words: 120, positions: 70 };
        let folder = Folder::new("bits");
        let mut tensors = write_model(&folder, sizes, seed);
        for tensor in &mut tensors {
            tensor.values.iter_mut().for_each(|value| *value = (*value * times).clamp(-1e4, 1e4));
        }
        folder.write("model.safetensors", crate::model::safetensors(&tensors));
        if cls {
            folder.write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
        }
        let tokens = random_tokens(&mut Random(seed), sizes, length);
        let all: Vec<_> = engines()
            .into_iter()
            .map(|engine| {
                let model = Model::load(folder.path(), engine).expect("a model");
                let vector = model.embed(&tokens, &mut Scratch::default());
                (engine.name, vector.as_deref().map(bits))
            })
            .collect();
        for (name, vector) in &all {
            prop_assert_eq!(vector, &all[0].1, "{}", name);
        }
    }
}

/// The vector that so many threads make of a text together. All arrive before the first begins.
fn by_threads(
    model: &Model,
    tokens: &Tokens,
    threads: usize,
    scratch: &mut Scratch,
) -> Option<Vec<f32>> {
    let (shared, arrived) = (Shared::new(tokens.ids.len(), threads), Barrier::new(threads));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                let (mut scratch, mut idle) = (Scratch::default(), 0);
                arrived.wait();
                loop {
                    match model.help(tokens, &shared, &mut scratch) {
                        Turn::Done => idle = 0,
                        Turn::Wait => rest(&mut idle),
                        Turn::Over => break,
                    }
                }
            });
        }
        arrived.wait();
        model.embed_shared(tokens, &shared, scratch)
    })
}

/// Few rows are divided by columns: those of heads of any width, of which there may be fewer than threads.
#[test]
fn threads_that_share_a_short_text_give_the_bits_of_one() {
    for (hidden, heads, inner) in
        [(64, 1, 128), (96, 6, 32), (96, 2, 96), (192, 4, 160), (128, 2, 64)]
    {
        let sizes = Sizes { hidden, heads, inner, layers: 3, ..SMALL };
        let folder = Folder::new("short");
        write_model(&folder, sizes, 25);
        for engine in engines() {
            let model = Model::load(folder.path(), engine).expect("a model");
            let (mut random, mut used) = (Random(26), Scratch::default());
            for length in [1, 2, 12, 17, 31] {
                let tokens = random_tokens(&mut random, sizes, length);
                let alone = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
                for threads in [2, 3, 7] {
                    let shared = by_threads(&model, &tokens, threads, &mut used).expect("a vector");
                    let name = engine.name;
                    assert_eq!(
                        bits(&alone),
                        bits(&shared),
                        "{name} {hidden}/{heads} at {length}: {threads}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_that_share_a_text_give_the_bits_of_one() {
    let sizes = Sizes { positions: 300, layers: 3, ..SMALL };
    let folder = Folder::new("shared");
    write_model(&folder, sizes, 21);
    for engine in engines() {
        let model = Model::load(folder.path(), engine).expect("a model");
        let (mut random, mut used) = (Random(22), Scratch::default());
        for length in [1, 15, 16, 17, 31, 32, 33, 64, 65, 100, 129, 256, 300] {
            let tokens = random_tokens(&mut random, sizes, length);
            let alone = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
            for threads in [1, 2, 3, 5] {
                let shared = by_threads(&model, &tokens, threads, &mut used).expect("a vector");
                assert_eq!(bits(&alone), bits(&shared), "{} at {length}: {threads}", engine.name);
            }
        }
    }
}

/// Who helps may come late, leave in the middle and come back, or find that nobody embeds the text.
#[test]
fn helpers_come_and_leave_as_they_like() {
    let folder = Folder::new("helpers");
    write_model(&folder, SMALL, 23);
    let model = Model::load(folder.path(), engines()[0]).expect("a model");
    let mut scratch = Scratch::default();
    // Parts that are rows, and parts that are columns.
    for (length, steps) in
        [64, 12].into_iter().flat_map(|length| (0..12).map(move |steps| (length, steps)))
    {
        let tokens = random_tokens(&mut Random(24), SMALL, length);
        let given_up = Shared::new(length, 2);
        assert_eq!(model.help(&tokens, &given_up, &mut scratch), Turn::Wait);
        given_up.give_up();
        assert_eq!(model.help(&tokens, &given_up, &mut scratch), Turn::Over);
        let alone = model.embed(&tokens, &mut scratch).expect("a vector");
        let shared = Shared::new(length, 2);
        std::thread::scope(|scope| {
            let helper = scope.spawn(|| {
                let (mut scratch, mut done) = (Scratch::default(), 0);
                while done < steps {
                    match model.help(&tokens, &shared, &mut scratch) {
                        Turn::Done => done += 1,
                        Turn::Wait => std::thread::yield_now(),
                        Turn::Over => break,
                    }
                }
            });
            let vector = model.embed_shared(&tokens, &shared, &mut scratch).expect("a vector");
            assert_eq!(bits(&alone), bits(&vector), "{length}: {steps}");
            helper.join().expect("no panic");
        });
        assert_eq!(model.help(&tokens, &shared, &mut scratch), Turn::Over);
    }
}

/// The arithmetic is part of the format: whoever changes these numbers raises `embed::ENGINE`, so that vectors of
/// before are not compared with those of after.
#[test]
fn vectors_are_what_they_were() {
    const GOLDEN: [u32; 6] =
        [4220343084, 3828404317, 3169083290, 3431051509, 3433400734, 1470863813];
    let folder = Folder::new("golden");
    write_model(&folder, SMALL, 5);
    for engine in engines() {
        let model = Model::load(folder.path(), engine).expect("a model");
        let mut random = Random(6);
        let sums = [3, 9, 16, 33, 50, 64].map(|length| {
            let tokens = random_tokens(&mut random, SMALL, length);
            let vector = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
            crc32fast::hash(
                &bits(&vector).iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<_>>(),
            )
        });
        assert_eq!(sums, GOLDEN, "{}", engine.name);
    }
    assert_eq!(llmcache_core::embed::ENGINE, 1);
}

/// As XLM-R has it: the rows of positions before the first token's are of padding.
#[test]
fn positions_of_xlm_roberta_begin_behind_those_of_padding() {
    let sizes = Sizes { positions: 62, ..SMALL };
    let folder = Folder::new("roberta");
    let tensors = write_model(&folder, sizes, 11);
    let mut config = crate::model::config(SMALL);
    (config["model_type"], config["pad_token_id"]) = ("xlm-roberta".into(), 1.into());
    folder.write_json("config.json", &config);
    let shifted: Vec<_> = tensors
        .iter()
        .map(|tensor| {
            let (mut shape, mut values) = (tensor.shape.clone(), tensor.values.clone());
            if tensor.name.contains("position") {
                shape[0] += 2;
                values.splice(..0, vec![9.0; 2 * sizes.hidden]);
            }
            crate::model::Tensor { name: format!("roberta.{}", tensor.name), shape, values }
        })
        .collect();
    folder.write("model.safetensors", crate::model::safetensors(&shifted));
    let model = Model::load(folder.path(), engines()[0]).expect("a model");
    assert_eq!(model.tokens_max(), 62);
    let mut random = Random(12);
    for length in [1, 5, 62] {
        let tokens = random_tokens(&mut random, SMALL, length);
        let vector = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
        assert!(cosine(&vector, &reference(sizes, &tensors, &tokens.ids)) > 0.995);
    }
}

/// The mean of the vectors of pieces, each times its weight; what no piece has counts for nothing.
#[test]
fn a_static_model_is_the_mean_of_its_pieces() {
    let folder = Folder::new("static");
    folder.write_json(
        "config.json",
        &serde_json::json!({"model_type": "model2vec", "normalize": true}),
    );
    folder.write_json("tokenizer.json", &crate::model::tokenizer(300));
    let mut random = Random(13);
    let mut values = |count: usize| -> Vec<f32> {
        (0..count).map(|_| random.below(2_000) as f32 / 1_000.0 - 1.0).collect()
    };
    let tensor = |name: &str, shape: &[usize], values| crate::model::Tensor {
        name: name.into(),
        shape: shape.into(),
        values,
    };
    for weights in [None, Some(values(300))] {
        let table = values(300 * 48);
        let mut tensors = vec![tensor("embeddings", &[300, 48], table.clone())];
        tensors.extend(weights.clone().map(|weights| tensor("weights", &[300], weights)));
        folder.write("model.safetensors", crate::model::safetensors(&tensors));
        let model = Model::load(folder.path(), engines()[0]).expect("a model");
        assert!(model.is_static() && model.dim() == 48);
        let tokens = model.read("ab cd \u{20ac} abef", Role::Query, true).expect("tokens");
        // Two ends, ab, cd, the unknown, ab and its end in two pieces.
        let known: Vec<usize> = tokens.ids[1..tokens.ids.len() - 1]
            .iter()
            .filter(|id| **id != 1)
            .map(|id| *id as usize)
            .collect();
        assert_eq!((known.len(), tokens.ids.len()), (tokens.ids.len() - 3, known.len() + 3));
        let weight = |id: usize| weights.as_ref().map_or(1.0, |weights| f64::from(weights[id]));
        let wanted: Vec<f64> = (0..48)
            .map(|at| {
                let one = |id: &usize| f64::from(table[id * 48 + at]) * weight(*id);
                known.iter().map(one).sum::<f64>() / known.len() as f64
            })
            .collect();
        let vector = model.embed(&tokens, &mut Scratch::default()).expect("a vector");
        assert!(cosine(&vector, &wanted) > 0.9995, "{}", cosine(&vector, &wanted));
        let unknown = model.read("ab \u{20ac}", Role::Query, true).expect("tokens");
        let alone = model.read("ab", Role::Query, true).expect("tokens");
        let embed = |tokens| model.embed(tokens, &mut Scratch::default());
        assert_eq!(embed(&unknown), embed(&alone));
        assert!(model.read(&"ab ".repeat(5_000), Role::Query, true).is_ok());
    }
}

#[test]
fn equal_folders_are_one_model_and_others_are_not() {
    let digest = |seed: u64, change: fn(&Folder)| {
        let folder = Folder::new("identity");
        write_model(&folder, SMALL, seed);
        change(&folder);
        Model::load(folder.path(), engines()[0]).expect("a model").digest()
    };
    let one = digest(7, |_| ());
    assert_eq!(one, digest(7, |_| ()));
    assert_ne!(one, digest(8, |_| ()));
    let cls = |folder: &Folder| {
        folder.write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#)
    };
    assert_ne!(one, digest(7, cls));
    let prompt = |folder: &Folder| {
        folder.write("config_sentence_transformers.json", r#"{"prompts": {"query": "ask: "}}"#);
    };
    assert_ne!(one, digest(7, prompt));
    // What changes no vector changes no identity.
    let threshold = |folder: &Folder| folder.write("llmcache.json", r#"{"threshold": 0.5}"#);
    assert_eq!(one, digest(7, threshold));
}

#[test]
fn a_prompt_stands_before_the_text() {
    let folder = Folder::new("prompt");
    write_model(&folder, SMALL, 9);
    let plain = Model::load(folder.path(), engines()[0]).expect("a model");
    let prompts = r#"{"prompts": {"query": "qa ", "document": "da "}}"#;
    folder.write("config_sentence_transformers.json", prompts);
    let model = Model::load(folder.path(), engines()[0]).expect("a model");
    let ids = |model: &Model, text: &str, role| model.read(text, role, false).expect("tokens").ids;
    assert_eq!(ids(&model, "ab", Role::Query), ids(&plain, "qa ab", Role::Query));
    assert_eq!(ids(&model, "ab", Role::Document), ids(&plain, "da ab", Role::Document));
    assert!(model.read(" \t", Role::Query, false).is_err(), "the prompt alone is no text");
    assert!(plain.reads_alike() && !model.reads_alike());
}
