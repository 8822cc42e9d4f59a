//! FILTER against a naive evaluator over serde_json values, and against the table of its page. Random expressions
//! and documents; runs on the test runner's threads.

use hashbrown::HashSet;
use llmcache_core::filter::{Filter, FilterRecord, Verdict};
use llmcache_core::work::Steps;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;

/// An expression as it is generated: what it says is known without parsing its text.
#[derive(Debug, Clone)]
enum Tree {
    Number(i64),
    Big(u64),
    Float(f64),
    Text(String),
    Null,
    List(Vec<Tree>),
    Field(Vec<Key>),
    Exists(Vec<Key>),
    Not(Box<Tree>),
    Binary(Box<Tree>, &'static str, Box<Tree>),
}

#[derive(Debug, Clone)]
enum Key {
    Name(String),
    At(usize),
}

/// A value as the page defines it.
#[derive(Debug, Clone)]
enum Known {
    Whole(i128),
    Float(f64),
    Text(String),
    Null,
    Array(Vec<Known>),
    Object,
}

use Known::{Array, Float, Null, Object, Text, Whole};

fn known(value: &Value) -> Known {
    match value {
        Value::Null => Null,
        Value::Bool(truth) => Whole(i128::from(*truth)),
        Value::Number(number) if number.is_f64() => Float(number.as_f64().expect("a float")),
        Value::Number(number) => Whole(number.to_string().parse().expect("a whole number")),
        Value::String(text) => Text(text.clone()),
        Value::Array(items) => Array(items.iter().map(known).collect()),
        Value::Object(_) => Object,
    }
}

fn member<'a>(meta: &'a Value, path: &[Key]) -> Option<&'a Value> {
    path.iter().try_fold(meta, |at, key| match (at, key) {
        (Value::Object(members), Key::Name(name)) => members.get(name),
        (Value::Array(items), Key::At(place)) => items.get(*place),
        _ => None,
    })
}

fn is_true(value: &Known) -> bool {
    match value {
        Whole(number) => *number != 0,
        Float(number) => *number != 0.0,
        Text(text) => !text.is_empty(),
        Null => false,
        Array(_) | Object => true,
    }
}

fn truth(is: bool) -> Known {
    Whole(i128::from(is))
}

fn order(one: &Known, other: &Known) -> Option<Ordering> {
    match (one, other) {
        (Whole(a), Whole(b)) => Some(a.cmp(b)),
        (Float(a), Float(b)) => a.partial_cmp(b),
        (Text(a), Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Float(_), Whole(_)) => order(other, one).map(Ordering::reverse),
        (Whole(_), Float(float)) if float.is_nan() => None,
        (Whole(_), Float(float)) if *float > 1e25 => Some(Ordering::Less),
        (Whole(_), Float(float)) if *float < -1e25 => Some(Ordering::Greater),
        // Twice the whole part and one more stands for any fraction.
        (Whole(a), Float(float)) => {
            let floor = float.floor();
            Some((2 * a).cmp(&(2 * floor as i128 + i128::from(*float > floor))))
        }
        _ => None,
    }
}

fn equal(one: &Known, other: &Known) -> bool {
    match (one, other) {
        (Null, Null) => true,
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        _ => order(one, other) == Some(Ordering::Equal),
    }
}

fn is_in(part: &Known, whole: &Known) -> bool {
    match (part, whole) {
        (_, Array(items)) => items.iter().any(|item| equal(part, item)),
        (Text(part), Text(whole)) => whole.contains(part.as_str()),
        _ => false,
    }
}

fn as_number(value: &Known) -> Option<Known> {
    match value {
        Whole(_) | Float(_) => Some(value.clone()),
        // The texts that are generated and spell a number.
        Text(text) => match text.as_str() {
            "12" => Some(Whole(12)),
            "0x1F" => Some(Float(31.0)),
            " 7" => Some(Whole(7)),
            ".5" => Some(Float(0.5)),
            "inf" => Some(Float(f64::INFINITY)),
            "700000000000000003" => Some(Whole(700_000_000_000_000_003)),
            _ => None,
        },
        _ => None,
    }
}

fn float(number: &Known) -> f64 {
    match number {
        Whole(whole) => *whole as f64,
        Float(float) => *float,
        _ => unreachable!("arithmetic knows numbers alone"),
    }
}

fn arithmetic(one: &Known, operator: &str, other: &Known) -> Known {
    let (Some(one), Some(other)) = (as_number(one), as_number(other)) else { return Null };
    if let (Whole(a), Whole(b)) = (&one, &other) {
        let exact = match operator {
            "+" => Some(a + b),
            "-" => Some(a - b),
            "*" => a.checked_mul(*b),
            "/" => (*b != 0 && a % b == 0).then(|| a / b),
            "%" => (*b != 0).then(|| a % b),
            _ => (0..=200)
                .contains(b)
                .then(|| (0..*b).try_fold(1_i128, |n, _| n.checked_mul(*a)))
                .flatten(),
        };
        if let Some(exact) = exact.filter(|n| (i64::MIN.into()..=u64::MAX.into()).contains(n)) {
            return Whole(exact);
        }
    }
    let (a, b) = (float(&one), float(&other));
    Float(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "%" => a % b,
        _ => a.powf(b),
    })
}

fn compute(tree: &Tree, meta: &Value) -> Known {
    match tree {
        Tree::Number(number) => Whole((*number).into()),
        Tree::Big(number) => Whole((*number).into()),
        Tree::Float(number) => Float(*number),
        Tree::Text(text) => Text(text.clone()),
        Tree::Null => Null,
        Tree::List(items) => Array(items.iter().map(|item| compute(item, meta)).collect()),
        Tree::Field(path) => member(meta, path).map_or(Null, known),
        Tree::Exists(path) => truth(member(meta, path).is_some()),
        Tree::Not(inner) => truth(!is_true(&compute(inner, meta))),
        Tree::Binary(left, operator, right) => {
            let (one, other) = (compute(left, meta), compute(right, meta));
            match *operator {
                "and" | "&&" => truth(is_true(&one) && is_true(&other)),
                "or" | "||" => truth(is_true(&one) || is_true(&other)),
                "==" => truth(equal(&one, &other)),
                "!=" => truth(!equal(&one, &other)),
                "<" => truth(order(&one, &other) == Some(Ordering::Less)),
                ">" => truth(order(&one, &other) == Some(Ordering::Greater)),
                "<=" => truth(order(&one, &other).is_some_and(Ordering::is_le)),
                ">=" => truth(order(&one, &other).is_some_and(Ordering::is_ge)),
                "in" => truth(is_in(&one, &other)),
                "contains" => truth(is_in(&other, &one)),
                operator => arithmetic(&one, operator, &other),
            }
        }
    }
}

fn written(tree: &Tree) -> String {
    let path = |path: &[Key]| -> String {
        let key = |key: &Key| match key {
            Key::Name(name) if name.chars().all(char::is_alphanumeric) && !name.is_empty() => {
                format!(".{name}")
            }
            Key::Name(name) => format!(".{}", json!(name)),
            Key::At(place) => format!("[{place}]"),
        };
        path.iter().map(key).collect()
    };
    match tree {
        Tree::Number(number) => number.to_string(),
        Tree::Big(number) => number.to_string(),
        Tree::Float(number) => json!(number).to_string(),
        Tree::Text(text) => json!(text).to_string(),
        Tree::Null => "null".to_owned(),
        Tree::List(items) => {
            format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Tree::Field(keys) => path(keys),
        Tree::Exists(keys) => format!("exists({})", path(keys)),
        Tree::Not(inner) => format!("not ({})", written(inner)),
        Tree::Binary(left, operator, right) => {
            format!("({}) {operator} ({})", written(left), written(right))
        }
    }
}

const NAMES: [&str; 9] = ["a", "b", "c", "d", "größe", "a b", "", "x\"y", "n"];
const TEXTS: [&str; 11] =
    ["", "a", "b", "a1", "abba", "é", "12", "0x1F", " 7", ".5", "700000000000000003"];

fn whole() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -3..4_i64, 1 => 700_000_000_000_000_000..700_000_000_000_000_006_i64,
        1 => select(vec![i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1, 12, 127, 128, 40_000, 1 << 31])]
}

fn big() -> impl Strategy<Value = u64> {
    select(vec![u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1])
}

fn real() -> impl Strategy<Value = f64> {
    select(vec![
        0.0,
        -0.0,
        0.5,
        -1.5,
        7e17,
        9_007_199_254_740_992.0,
        1.844_674_407_370_955_2e19,
        1e300,
        2.0,
    ])
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => select(TEXTS.to_vec()).prop_map(str::to_owned), 1 => Just("b".repeat(300))]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => whole().prop_map(Value::from),
        1 => big().prop_map(Value::from),
        2 => real().prop_map(Value::from),
        4 => text().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn name() -> impl Strategy<Value = String> {
    select(NAMES.to_vec()).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// META with and without members that leave others no room.
fn meta() -> impl Strategy<Value = Value> {
    let members = proptest::collection::hash_map(name(), value(), 0..6);
    let padding = prop_oneof![
        5 => Just(Vec::new()),
        1 => (0..120_usize).prop_map(|count| (0..count).map(|n| format!("padding{n:03}")).collect()),
        1 => Just(vec!["x".repeat(900), "y".repeat(200)]),
    ];
    (members, padding).prop_map(|(members, padding)| {
        let padding = padding.into_iter().map(|name: String| (name, Value::from("12345")));
        Value::Object(members.into_iter().chain(padding).collect())
    })
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    let key = prop_oneof![3 => name().prop_map(Key::Name), 1 => (0..4_usize).prop_map(Key::At)];
    (name(), proptest::collection::vec(key, 0..3))
        .prop_map(|(head, rest)| std::iter::once(Key::Name(head)).chain(rest).collect())
}

fn leaf() -> impl Strategy<Value = Tree> {
    let literal = prop_oneof![
        whole().prop_map(Tree::Number),
        big().prop_map(Tree::Big),
        real().prop_map(Tree::Float),
        select(TEXTS.to_vec()).prop_map(|text| Tree::Text(text.to_owned())),
        Just(Tree::Null),
    ];
    let list = proptest::collection::vec(literal.clone(), 0..4).prop_map(Tree::List);
    prop_oneof![
        5 => keys().prop_map(Tree::Field),
        1 => keys().prop_map(Tree::Exists),
        4 => literal,
        1 => list,
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let operators = select(vec![
        "+", "-", "*", "/", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "contains", "and",
        "or", "and", "or", "&&", "||", "==", "contains",
    ]);
    leaf().prop_recursive(5, 30, 2, move |inner| {
        prop_oneof![
            5 => (inner.clone(), operators.clone(), inner.clone()).prop_map(
                |(left, operator, right)| Tree::Binary(Box::new(left), operator, Box::new(right))
            ),
            1 => inner.prop_map(|inner| Tree::Not(Box::new(inner))),
        ]
    })
}

fn check(expression: &str, meta: &Value, wanted: bool) {
    let wanted = if wanted { Verdict::Yes } else { Verdict::No };
    let filter = Filter::parse(expression.as_bytes());
    let filter = filter.unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut steps = Steps::default();
    assert_eq!(filter.judge(meta, &mut steps), wanted, "{expression} on {meta}");
    let members = meta.as_object().cloned().unwrap_or_default();
    let kept = FilterRecord::from_meta(&members, &HashSet::new());
    let of_record = filter.judge_record(kept.as_ref(), &mut steps);
    assert!(
        [wanted, Verdict::NeedsEntry].contains(&of_record),
        "{expression} on {meta}: {of_record:?}"
    );
    // Once a filter has asked, a record answers, and goes on answering what it did before.
    let other = Filter::parse(b".b or .padding000 or exists(.nothing)").expect("an expression");
    let mut wide = kept;
    for filter in [&other, &filter, &other] {
        wide = FilterRecord::widened(wide.as_ref(), &members, filter.heads());
    }
    assert_eq!(
        filter.judge_record(wide.as_ref(), &mut steps),
        wanted,
        "{expression} on {meta}, widened"
    );
    assert_ne!(other.judge_record(wide.as_ref(), &mut steps), Verdict::NeedsEntry, "{meta}");
    let persisted = wide.as_ref().map(|kept| FilterRecord::from_bytes(kept.as_bytes()));
    assert_eq!(persisted, wide.map(Some), "{meta}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn agrees_with_the_naive_evaluator(tree in tree(), meta in meta()) {
        let wanted = is_true(&compute(&tree, &meta));
        check(&written(&tree), &meta, wanted);
    }
}

/// Rows of a table: cells between bars.
fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect()
}

#[test]
fn the_truth_table_of_the_page_holds() {
    let page = include_str!("../../docs/filter.md");
    let (_, table) = page.split_once("## Truth table").expect("a truth table");
    let (table, _) = table.split_once("\n## ").expect("something after it");
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut checked = 0;
    for row in rows {
        let (meta, expression, matches) = match cells(row)[..] {
            [meta, expression, matches] => (meta, expression, matches),
            // No META at all.
            [expression, matches] => ("", expression.trim_start_matches("| `"), matches),
            _ => panic!("not a row of three cells: {row}"),
        };
        let meta =
            if meta.is_empty() { Value::Null } else { serde_json::from_str(meta).expect(row) };
        let wanted = match matches {
            "yes" => true,
            "no" => false,
            _ => panic!("neither yes nor no: {row}"),
        };
        check(expression, &meta, wanted);
        checked += 1;
    }
    assert!(checked > 50, "only {checked} rows in the table");
}

#[test]
fn judging_one_entry_takes_a_bounded_number_of_steps() {
    let long = "ab".repeat(30_000);
    let array: Vec<_> = (0..16_000).collect();
    let members: Map<String, Value> =
        [("t".to_owned(), json!(long)), ("a".to_owned(), json!(array))].into_iter().collect();
    let part = "ab".repeat(3_000) + "c";
    for (one, wanted) in [
        (format!("'{part}' in .t"), Verdict::No),
        ("-1 in .a".to_owned(), Verdict::No),
        (".a == .a".to_owned(), Verdict::Yes),
        (vec!["-1 in .a"; 250].join(" or "), Verdict::TooLong),
        (vec!["'ba' in .t"; 60].join(" and "), Verdict::Yes),
        (vec!["'bb' in .t"; 200].join(" or "), Verdict::TooLong),
        (vec!["not (.a == .a)"; 200].join(" or "), Verdict::TooLong),
    ] {
        let filter = Filter::parse(one.as_bytes()).expect("an expression");
        let record = FilterRecord::widened(None, &members, filter.heads());
        let meta = Value::Object(members.clone());
        for verdict in [
            |filter: &Filter, meta: &Value, _: Option<&FilterRecord>, steps: &mut Steps| {
                filter.judge(meta, steps)
            },
            |filter: &Filter, _: &Value, record: Option<&FilterRecord>, steps: &mut Steps| {
                filter.judge_record(record, steps)
            },
        ] {
            let mut steps = Steps::default();
            assert_eq!(verdict(&filter, &meta, record.as_ref(), &mut steps), wanted, "{one:.40}");
            assert!(steps.terms <= llmcache_core::limits::FILTER_STEPS_MAX.into());
        }
    }
}

#[test]
fn terms_that_cannot_change_the_outcome_are_left_out() {
    let meta = json!({"n": 1, "a": [1, 2, 3]});
    let record = FilterRecord::from_meta(meta.as_object().expect("an object"), &HashSet::new());
    for (expression, most) in [
        (".n == 2 and 1 in .a and 2 in .a and 3 in .a", 4),
        (".n == 1 or 1 in .a or 2 in .a or 3 in .a", 8),
        ("(.n == 2 and 1 in .a) or .n == 1", 10),
    ] {
        let mut steps = Steps::default();
        let filter = Filter::parse(expression.as_bytes()).expect("an expression");
        filter.judge_record(record.as_ref(), &mut steps);
        assert!(steps.terms <= most, "{expression}: {} steps", steps.terms);
        let cost = filter.cost();
        assert!(steps.terms <= cost.steps(64), "{expression}: {cost:?}");
    }
}

/// Records as release 0.1 persisted them: what they rounded or left out without a word, only the entry tells.
#[test]
fn records_of_the_first_form_are_read_and_say_what_they_do_not_know() {
    let mut bytes = vec![0];
    for (kind, name, value) in [
        (2_u8, "n", &5_i8.to_le_bytes()[..]),
        (5, "big", &9_007_199_254_740_992_f64.to_le_bytes()),
        (5, "half", &0.5_f64.to_le_bytes()),
        (6, "s", b"\x03abc"),
        (0, "tags", b""),
        (1, "nul", b""),
    ] {
        bytes.extend_from_slice(&[kind, name.len() as u8]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value);
    }
    let record = FilterRecord::from_first_form(&bytes).expect("a record of the first form");
    for (expression, wanted) in [
        (".n == 5 and .half == 0.5 and .s == 'abc' and .nul == null", Verdict::Yes),
        (".n == 4", Verdict::No),
        (".big == 9007199254740993", Verdict::NeedsEntry),
        ("'x' in .tags", Verdict::NeedsEntry),
        ("exists(.tags)", Verdict::Yes),
        (".object.member == 1", Verdict::NeedsEntry),
        ("exists(.object)", Verdict::NeedsEntry),
    ] {
        let filter = Filter::parse(expression.as_bytes()).expect("an expression");
        let verdict = filter.judge_record(Some(&record), &mut Steps::default());
        assert_eq!(verdict, wanted, "{expression}");
    }
    for length in 1..bytes.len() {
        // Cut anywhere, it is refused or tells a part.
        FilterRecord::from_first_form(&bytes[..length]);
    }
    assert!(FilterRecord::from_first_form(&[2]).is_none());
    assert!(FilterRecord::from_first_form(&[0; 257]).is_none());
}
