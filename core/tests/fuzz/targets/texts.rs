//! What clients write: filters, questions, texts in any language, tokens, vectors; and the records beside slots.

use super::{PLAIN, Target, joined, pieces};
use llmcache_core::cache::guard::{GuardLevel, Question, Refusal, Rules};
use llmcache_core::cache::maxerror::{Ticket, TicketSecret};
use llmcache_core::cache::{LeaseToken, format_usd, parse_usd};
use llmcache_core::codec::{put_varint, take_varint};
use llmcache_core::filter::{Filter, FilterRecord, Verdict};
use llmcache_core::ids::{EmbeddingDigest, EntryId};
use llmcache_core::kvchunk::{ChunkDigest, Dtype, Durable};
use llmcache_core::session::Status;
use llmcache_core::vector::normalise::{decode_fp16, decode_fp32};
use llmcache_core::vector::{Quant, Query, StoredVector};
use llmcache_core::words::{
    Analyser, Language, PhraseReading, TextWords, WordIndex, WordQuery, WordSearch, snippet,
};
use llmcache_core::work::Steps;
use serde_json::{Value, json};

fn metas() -> [Value; 4] {
    [
        json!({"year": 2025, "lang": "en", "tags": ["x", 1], "deep": {"er": 2.5}}),
        json!({"year": "2025", "a": null, "b": true, "s": "it's"}),
        json!({}),
        json!([1]),
    ]
}

/// Document and record must say the same, unless the record says that it does not know.
fn judge(filter: &Filter, meta: &Value, record: Option<&FilterRecord>) {
    let (mut steps, mut more) = (Steps::default(), Steps::default());
    let by_meta = filter.judge(meta, &mut steps);
    assert_ne!(by_meta, Verdict::NeedsEntry);
    let by_record = filter.judge_record(record, &mut more);
    assert!(
        by_record == Verdict::NeedsEntry || by_record == by_meta,
        "{by_record:?} and {by_meta:?}"
    );
    assert!(filter.may_match(record, 1_000, &mut more) || by_meta != Verdict::Yes);
}

pub const FILTER: Target = Target {
    name: "filter",
    covers: &["filter/mod.rs::parse", "filter/parser.rs::parse"],
    seeds: || {
        [
            ".year >= 2025",
            ".lang == 'en' and .year < 2030 or not (.a in [1, 2, \"x\"])",
            "exists(.a)",
            ".tags contains 'x'",
            ".s == \"it's\"",
            ".deep.er > 1.5e3",
            ".deep[\"er\"] != -0.0",
            ".tags[0] == 'x' and 2 * .year + 1 >= 3 ** 2",
            "((((.a == 1))))",
            "true and null != .b",
        ]
        .iter()
        .filter(|text| Filter::parse(text.as_bytes()).is_ok())
        .map(|text| text.as_bytes().to_vec())
        .collect()
    },
    attack: |bytes| {
        let filter = match Filter::parse(bytes) {
            Ok(filter) => filter,
            Err(error) => {
                assert!(error.position <= bytes.len(), "{error}");
                return false;
            }
        };
        for meta in metas() {
            let members = meta.as_object();
            let narrow =
                members.and_then(|members| FilterRecord::from_meta(members, &Default::default()));
            let asked = filter.heads().collect();
            let wide = members.and_then(|members| FilterRecord::from_meta(members, &asked));
            if members.is_none_or(|members| members.is_empty() || narrow.is_some()) {
                judge(&filter, &meta, narrow.as_ref());
            }
            if let Some(wide) = &wide {
                judge(&filter, &meta, Some(wide));
            }
        }
        true
    },
    ..PLAIN
};

pub const RECORD: Target = Target {
    name: "record",
    covers: &["filter/record.rs::from_bytes", "filter/record.rs::from_first_form"],
    seeds: || {
        let records = metas()
            .into_iter()
            .filter_map(|meta| FilterRecord::from_meta(meta.as_object()?, &Default::default()));
        let mut seeds: Vec<_> = records.map(|record| record.as_bytes().to_vec()).collect();
        seeds.push(vec![0, 2, 1, b'a', 7]);
        seeds.retain(|bytes| FilterRecord::from_bytes(bytes).is_some());
        seeds
    },
    attack: |bytes| {
        let filters = [
            ".year >= 2025",
            ".deep.er > 1 or .tags contains 'x'",
            "exists(.a)",
            ".tags[0] == 'x'",
        ];
        let (new, old) = (FilterRecord::from_bytes(bytes), FilterRecord::from_first_form(bytes));
        for record in new.iter().chain(&old) {
            assert_eq!(FilterRecord::from_bytes(record.as_bytes()).as_ref(), Some(record));
            for text in filters {
                let filter = Filter::parse(text.as_bytes()).expect("a filter");
                filter.judge_record(Some(record), &mut Steps::default());
            }
            FilterRecord::widened(
                Some(record),
                metas()[0].as_object().expect("one"),
                [&b"year"[..]].into_iter(),
            );
        }
        new.is_some()
    },
    ..PLAIN
};

/// A language, then a question, then a text.
pub const QUESTION: Target = Target {
    name: "question",
    covers: &[
        "words/query.rs::parse",
        "words/query.rs::plain",
        "words/language.rs::parse",
        "words/phrase.rs::read",
        "words/reading.rs::read",
    ],
    seeds: || {
        [
            ("english", "money", "How do I get my money back?"),
            ("de", "+parcel 471* -\"my money\"", "parcel 4711"),
            ("off", "monye~", "money"),
        ]
        .map(|(language, question, text)| joined([language, question, text]))
        .to_vec()
    },
    attack: |bytes| {
        let pieces = pieces(bytes);
        let [language, question, text] = pieces[..] else { return false };
        let language = Language::parse(language).unwrap_or(Language::NONE);
        let mut index = WordIndex::new(language);
        index.add(0, text);
        index.add(1, question);
        index.check_invariants();
        let mut in_parts = WordIndex::new(language);
        for (row, text) in [text, question].into_iter().enumerate() {
            let mut words = TextWords::default();
            while !words.read(index.analyser(), text, 1) {}
            in_parts.add_read(row as u32, &words);
        }
        assert_eq!(in_parts.len(), index.len());
        let plain = WordQuery::plain(index.analyser(), question);
        let parsed = WordQuery::parse(index.analyser(), question);
        for query in parsed.iter().chain([&plain]) {
            let (mut search, mut steps) = (WordSearch::new(&index, query, 2), Steps::default());
            search.run(&index, 1 << 24, &mut steps, |_| true);
            for scored in search.best() {
                let alone = search.score_of(&index, scored.row, &mut steps);
                assert_eq!(alone, Some(scored.score));
            }
            let mut search_parts = WordSearch::new(&in_parts, query, 2);
            search_parts.run(&in_parts, 1 << 24, &mut steps, |_| true);
            assert_eq!(search_parts.best(), search.best());
            let mut reading = PhraseReading::default();
            while query.phrases.read(index.analyser(), text, &mut reading).is_none() {}
        }
        let words = String::from_utf8_lossy(text);
        snippet(index.analyser(), &words, &plain.clauses, 8, |_| 1.0);
        index.mark_removed(0);
        while index.work(100) {}
        index.check_invariants();
        parsed.is_ok()
    },
    slower: 4,
    ..PLAIN
};

/// Two texts through the tables of every language: stems, stop words, guards.
pub const LANGUAGES: Target = Target {
    name: "languages",
    covers: &["words/language.rs::parse", "words/analyser.rs::read"],
    seeds: || {
        [
            ("Is it safe with alcohol?", "Is it safe without alcohol?"),
            ("¿Dónde está mi año?", "Wo ist mein Päckchen Nr. 4711?"),
            ("日本語の質問です", "Где моя посылка? 12,5 %"),
            ("Can I fly from Rome to Oslo on 3 May?", "Can I fly from Oslo to Rome on 4 May?"),
        ]
        .map(|(one, other)| joined([one, other]))
        .to_vec()
    },
    attack: |bytes| {
        let pieces = pieces(bytes);
        let [one, other] = pieces[..] else { return false };
        for level in [GuardLevel::On, GuardLevel::Strict] {
            let rules = Rules { level, exchange: true, ..Rules::OFF };
            for headroom in [0.0, 0.05] {
                let by =
                    |asked, stored| Question::new(Some(asked)).refuses(stored, rules, headroom);
                let (there, back) = (by(one, other), by(other, one));
                assert_eq!(
                    there.is_some(),
                    back.is_some(),
                    "a refusal in one order only: {there:?} / {back:?}"
                );
                let own = by(one, one).map(|finding| finding.refusal);
                let is_unread = level == GuardLevel::Strict && own == Some(Refusal::Unjudged);
                assert!(own.is_none() || is_unread, "a question contradicts itself: {own:?}");
            }
        }
        let text = String::from_utf8_lossy(one);
        for number in 0..=u8::MAX {
            let Some(language) = Language::from_byte(number) else { break };
            assert_eq!(Language::parse(language.as_str().as_bytes()), Some(language));
            Analyser::new(language).words(&text, |token| assert!(!token.term.is_empty()));
        }
        std::str::from_utf8(one).is_ok()
    },
    slower: 10,
    ..PLAIN
};

/// Short words: names of leases, tickets, sums of money, digests, kinds; and numbers of few bytes.
pub const TOKENS: Target = Target {
    name: "tokens",
    covers: &[
        "cache/flight/ask.rs::parse",
        "cache/maxerror/ticket.rs::read",
        "cache/money.rs::parse_usd",
        "codec/varint.rs::take_varint",
        "ids.rs::from_hex",
        "kvchunk/digest.rs::from_bytes",
        "kvchunk/digest.rs::from_hex",
        "kvchunk/settings.rs::parse",
        "session/message.rs::parse",
        "vector/stored.rs::parse",
    ],
    seeds: || {
        let words = [
            "0123456789abcdef",
            "0.002",
            "00000000000000000000000000000000",
            "bf16",
            "full",
            "sha256",
            "q8",
            "1",
        ];
        words.map(|word| word.as_bytes().to_vec()).to_vec()
    },
    attack: |bytes| {
        let secret = TicketSecret([1, 2]);
        let lease = LeaseToken::parse(bytes).inspect(|token| {
            assert_eq!(LeaseToken::parse(token.to_string().as_bytes()), Some(*token));
        });
        let ticket = Ticket::read(bytes, secret).ok().inspect(|ticket| {
            assert!(ticket.write(secret).as_bytes().eq_ignore_ascii_case(bytes));
        });
        let usd = parse_usd(bytes).inspect(|&nano| {
            assert_eq!(parse_usd(format_usd(u128::from(nano)).as_bytes()), Some(nano));
        });
        let mut rest = bytes;
        let varint = take_varint(&mut rest).inspect(|&number| {
            let mut again = Vec::new();
            put_varint(number, &mut again);
            assert_eq!(take_varint(&mut &again[..]), Some(number));
        });
        let id =
            EntryId::from_hex(bytes).inspect(|id| assert!(id.hex().eq_ignore_ascii_case(bytes)));
        let embedding = EmbeddingDigest::from_hex(bytes);
        let digest = ChunkDigest::from_hex(bytes).inspect(|digest| {
            assert_eq!(ChunkDigest::from_hex(digest.hex().as_bytes()).as_ref(), Some(digest));
            assert_eq!(ChunkDigest::from_bytes(digest.as_bytes()).as_ref(), Some(digest));
        });
        lease.is_some()
            || ticket.is_some()
            || usd.is_some()
            || varint.is_some()
            || id.is_some()
            || embedding.is_some()
            || digest.is_some()
            || ChunkDigest::from_bytes(bytes).is_some()
            || Durable::parse(bytes).is_some()
            || Dtype::parse(bytes).is_some()
            || Quant::parse(bytes).is_some()
            || Status::parse(bytes).is_some()
    },
    ..PLAIN
};

/// A byte for the form, one for the dimension, then the vector.
pub const VECTORS: Target = Target {
    name: "vectors",
    covers: &[
        "vector/normalise.rs::decode_fp32",
        "vector/normalise.rs::decode_fp16",
        "vector/stored.rs::parse",
    ],
    seeds: || {
        let query = Query::new(&[0.5, -0.25, 1.0]).expect("a vector");
        [Quant::None, Quant::F16, Quant::Q8]
            .map(|quant| {
                let mut out = vec![quant.as_byte(), 3];
                quant.encode(query.normalised(), &mut out);
                out
            })
            .to_vec()
    },
    attack: |bytes| {
        let Some((&[form, dim], rest)) = bytes.split_first_chunk() else { return false };
        for numbers in [decode_fp32(rest), decode_fp16(rest)].into_iter().flatten() {
            let Ok(query) = Query::new(&numbers) else { continue };
            let norm: f32 = query.normalised().iter().map(|number| number * number).sum();
            assert!((norm - 1.0).abs() < 1e-3, "norm {norm}");
            for quant in [Quant::None, Quant::F16, Quant::Q8] {
                let mut out = Vec::new();
                quant.encode(query.normalised(), &mut out);
                StoredVector::parse(quant, numbers.len() as u32, &out)
                    .expect("a vector that was just encoded");
            }
        }
        let Some(quant) = Quant::from_byte(form) else { return false };
        let Ok(stored) = StoredVector::parse(quant, u32::from(dim), rest) else { return false };
        let query = Query::new(&stored.to_f32()).expect("a vector of unit length");
        let similarity = stored.similarity(&query);
        assert!((0.9999..=1.0).contains(&similarity), "{similarity} with itself");
        true
    },
    ..PLAIN
};
