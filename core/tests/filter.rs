//! The FILTER language and the record of META beside a slot: tables checked against a server, error
//! positions, bounds, and random and hostile input. Runs on the test runner's threads.

use llmcache_core::filter::{Filter, FilterRecord, Verdict};
use llmcache_core::limits;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// META documents of [`REDIS_TABLE`], numbered from 0; number 9 has members too long for a record.
const DOCUMENTS: [&str; 9] = [
    r#"{"n":5,"z":0,"s":"abc","e":"","t":true,"f":false,"nul":null,"a":[1,"x",true,null],"ae":[],"an":[[1]],"ao":[{}],"o":{"k":1},"num":"12","x-y":1,"9":3}"#,
    r#"{"n":2020,"s":"gpt-5","t":false,"a":["abc","5"],"num":" 7","z":-1.5,"e":"0x1F"}"#,
    r#"{"n":-3,"s":"5","t":1,"a":[5,2020],"num":"1e2","nul":0,"e":"inf","z":1e300}"#,
    r#"{"n":0.1,"s":"","t":"true","a":[],"num":"-0x1.8p1","nul":"","e":"nan","z":-0.0}"#,
    r#"{"n":9007199254740993,"s":"é","t":null,"a":[null],"num":"+3","z":3,"e":".5","f":true}"#,
    r#"{"n":"5","s":5,"t":[true],"a":"abc","num":12,"z":"0","e":"tail ","f":""}"#,
    r#"{"n":null,"s":null,"a":5,"t":{},"z":0,"e":null,"num":null}"#,
    r#"{"a":[[1,2],"abc",0.1],"n":[5],"s":["abc"],"z":[],"e":[{"a":1}],"t":true,"num":"nan(x1)"}"#,
    r#"{"q":"a\"b","bs":"x\\y","nl":"l1\nl2","uu":"é","sp":" 7","tail":"7 ","plus":"+3","dot":".5","dd":"5.","expo":"1e2","hex":"0x1F","inf":"inf","nan":"nan","n":7}"#,
];

/// `documents : expression ; expression ...`, the documents that match by number, `-` for none. Every
/// line is what Redis 8.2.3 answered to `VSIM ... FILTER` over elements with these attributes.
const REDIS_TABLE: &str = r#"
- : 0 ; not .missing ; .missing or 1 ; 1 or .missing ; .nul ; null ; .z == null ; .missing == null ; .o == 0 ; .o ; .o == .o ; not .a ; .ao ; 1 in .ae ; 1 in .an ; 5 in 5 ; .s in [] ; .s in [1,] ; .u == "é" ; .u == "u00e9" ; .tail == 7
- : .nan == 0 ; .nan != .nan ; .big > 1 ; .n-4 ; .dup == 1 ; .dup == 2 ; not .n in [5] ; 0/0 == 0/0 ; 5 > 3 > 2 ; "a" < "b" ; not [] ; .n-3 == 2 ; .5 == 0.5 ; not1 ; (1)-1 ; 1 in null ; null in [1] ; 5 in "15" ; (-8) ** 0.5 == 0
- : null in .an ; "0x" == 1 ; "nan(1)" == 0 ; "1 " == 1 ; "1e" == 1 ; "1_0" == 10 ; null in [0] ; "a" in ["ab"] ; null > 0 ; null and 1 ; .o or 1 ; 1 and .ao ; .n==-5 ; .n== -5 ; !(1) ; !-1 ; not-1 ; not"a" ; "abcd" in .s ; [1] in [1]
- : (2020 ) + null in 3 % (.n ) ; -1 ** null in .f11 / "inf" ; (.missing ) ; !1e2 < .o * .s ** -3 and '5' ; .s and [5, "abc"] and .nul ; .f11 == .num ; (! "abc" ) < -3 != .t == (.ae ) ; .9 < '5' and not .f10 && .o ; '5' and .s + .s < .s
- : .s != .ao ; .missing ; ("12" ) <= .missing ; (! .f11 in .f10 ) ; (.an % .9 / -3 )
0 : .nul == null ; .nul != 0 ; .ae ; .an ; .x-y ; .x-y == 1 ; .9 == 3 ; not (.nul or .f) ; 0 in .an ; .n in [5] and .s in ["abc"] ; .an and 1 ; .e == .a ; "0x1F" or .9 in "0x1F" ; ("b" ) in ! ["5",0] == (.t ) != .f || .9 ; (.ae % 0 )
0 : 1 and .an ; "" / .ae ; [2020,-3,0.1,] ** .ae ; 1.5 and .x-y ; .ae && .t ; .x-y ** .e ; .x-y or .an ; not .x-y <= "gpt-5" * .num ; (.an ** ! "x" ) ; 1e2 < "b" == (.ae ) ; 'nan' && .an ; .an != .9 or "inf" ; ("x" or .9 )
0 : .9 or .an != (1.5 ) ; not (.an ) < '5' or .t ; " 7" or [] or .ae / .n or not "" < "" ** 1.5 ; (.x-y and 2020 ) ; -1 % (.t == .ae ) ; .t == .x-y ; (.t * -3 and .x-y ** "inf" ) ; ((.9 ) ) ; .an ** [] ** (.t ) ; .ae == .ae ; (.e or .an )
0 : .num != .x-y && ["5",0] or .t ; .t ** not .x-y ; '5' or .s or .9 ; .n in .9 < .n or .an ; null >= ("12" in .x-y ) ; .9 != '5' ; (.ae ) ** ["5",0] ; " 7" && .a or (.9 ) ; .t / (.f ) / ! .x-y ; .ae ** .f ; .an && "12"
0 : .an >= .z and .n || not "b" ; 5 - .t || .an ** .ae ; (.an == "" != [2020,-3,0.1,] == 1 ) ; (((.x-y ) ) ) ; .ae == "" ; -1 or "" and .ae % .z * " 7" and -3 ; .an or "inf" ; !"" && .an and 5 ; "" and .an || " 7" >= .n ; (.9 or .t )
0 : '5' + [1] <= 2020 and .x-y ; .n + .num or .x-y ; (.n ) ** .an ; .x-y ** .9 ; .x-y + "12" ; .x-y / [5, "abc"] or "" ; 0.1 < .s in .ae <= .t and [] == ! "0x1F" ; .x-y or 1 ; "abc" and .9 ; .9 ** .s && .n
0 : 1 in .f or (.x-y ) < "" != .e / 'nan' ; .ae < .9 ; .ae and [5, "abc"] && .n
0123456789 : 1 ; "x" == "x" ; null == null ; "bc" in "abc" ; "0" ; 2**3**2 == 512 ; 2*3**2 == 18 ; -2**2 == 4 ; not 0 + 1 == 2 ; 7 % 4 == 3 ; -7 % 4 == -3 ; 7 / 0 ; 1/0 > 5 ; 1 == 1 == 1 ; 1 && 0 || 1 ; 0 && 1 || 1 ; 1 || 0 && 0
0123456789 : "2" < "10" ; "abc" == 0 ; "abc" == 0.0 ; [1] == 0 ; [1] ; [] ; [1] == [2] ; 5 - -3 == 8 ; 5--3 == 8 ; 5-3 == 2 ; 1e5 == 100000 ; 1. == 1 ; 5.e1 == 50 ; !null ; not null ; notnull ; 1 or2 ; (1) -1 == 0 ; [1]-1 ; "3"-1 == 2
0123456789 : "2" ** 3 == 8 ; 0 ** 0 == 1 ; -1 == 0-1 ; ( -1 ) == 0-1 ; 1 +-1 == 0 ; 1 + -1 == 0 ; 1 *-1 == -1 ; 5 -1 == 4 ; ["a",'b', 1.5] ; 2 ** not 1 == 1 ; 1 + not 0 ** 2 == 2 ; 2 * 3 + 4 == 10 ; 10 - 4 - 3 == 3 ; 100 / 10 / 5 == 2
0123456789 : 1 < 2 == 1 ; 1 == 2 < 3 ; 1 in [1] == 1 ; 2 + 3 in [5] ; "0x10" == 16 ; "0x1.8p1" == 3 ; "0x" == 0 ; "infinity" > 1e300 ; "-inf" < 0 ; "1e400" > 1 ; " " == 0 ; "" == 0 ; "+1" == 1 ; "+-1" == 0 ; "-0x10" == 0-16 ; "." == 0
0123456789 : "00012" == 12 ; "1e5" == 100000 ; [1.5, -2] ; [1e3] ; [ ] ; [  1 , 2  ] ; "" in "" ; "a" in ["a"] ; null + 1 == 1 ; null >= 0 ; null or 1 ; 1 % 0 ; 5 % 2.5 == 0 ; 1 == "1" and "1" == 1 ; "a"=="a"&&'b'=='b'||0 ; !1||1 ; !0 ; ! 0
0123456789 : 1and1 ; 1andnot0 ; 1 !=2 ; 1!=2 ; 1*-2 == 0-2 ; 1**-1 == 1 ; ((1))
012345679 : .a ; .a == .a ; .a or .s ; 1e2 ** .a ; ! .s + (1.5 ) ; .a >= [] <= '5' ; (.s ) % 'nan' ; .z or "b" ; .n ** .s ; .s || "inf" ; (-3 ) ** (.z ) ; .s || "x" ; 1e2 > .s ; ((.z + '5' ) ) ; 1e2 != !.n + .s ; .a or "inf" + "b" in ![1]
012345679 : "b" or .s ; 0.1 or .a ; !(!.a and 0 ) ; not "abc" % ! .a ; "inf" && '5' or ['abc','',12] && .s ; .s >= (not ["5",0] )
012345689 : not (.n == 0)
012345789 : !.n == 0 ; not .n == 0 ; !(!.n) ; ("b" and .n ) ; !(! .n ) ; (-1 and .n ) ; .n or null and 0.1 ; not -1 || .n ; .n or not "abc" && 'nan' ; (.n ) and "b" != 2020 and -3 * "inf" and 3
01234579 : .a == 0 ; .a + 1 == 1 ; .s or .t ; .a == [1] ; .z or .t ; .t + "0x1F" ; (-1 ) <= .t ; (3 != .t ) or "x" in .a and -3 ; .t or .a ; .t || "abc" + .n ** [5, "abc"] ; .t / null ; (not "0x1F" / .a ) ; (.t / "é" ) ; (0.1 + .t ) && 1
01234579 : "é" <= .t ; "b" || .s < 0.1 < .s / "gpt-5" and .t ; .t || "x" ; .t ** .t ; .t in 'nan' || [] == "é" ; not "inf" <= "0x1F" or .t ; (.t == .t ) ; (-1 ) ** (.t )
0123479 : .s in .s
012349 : "" in .s
0124579 : 0 or .s ; .n and.s ; ((.s ) ) ; .s and .a ; not .t in -1 or .s ; ((1e2 && .s ) ) ; ! (not (.s ) ) ; 1 != .a && 1e2 == not "0x1F" or .s
013456789 : .n >-1 ; .n>=-1 ; .n >= "b"
013479 : .s == .a ; " 7" <= 5 == null == .s ; .s == "b" * "" > [2020,-3,0.1,]
0157 : .a in .a
017 : 0 in .a ; [1] in .a
023 : not .nul ; not [5, "abc"] + .nul or .t ; ![5, "abc"] <= .nul ; (1 ) != (.nul ) ; .nul ** "b" ; '5' == 0 + "inf" <= .nul ; "gpt-5" / "x" > .s and 1e2 || 5 - .nul * .n ; (-3 ) <= .nul or .nul ; 5 - .num || (.nul ) ; 3 > [] == !.nul
023 : .num and .nul % 'nan'
025 : .num > 11
02579 : .t and .s and .n ; .s && .t
0279 : .t == 1 ; .t == "1" ; .t > "é" ; !5 - .t - "x" ; .t + [2020,-3,0.1,] - "b" ; 0.1 < .t ; .t * " 7" % 1e2 % -3 ; .t ** 0.1
03567 : .z == [5] ; (2020 in .z ) % .z
037 : .z == .a
04 : null in .a
05 : .num == 12 ; .num + 1 == 13 ; .e == 0 ; not .f ; .f == 0 ; .t and not .f ; .s >= .f ; "12" * .f % [] and 1 == (.z <= null ) ; ! .n or !.f ; !null == .f <= .t in "x" == (.e ) ; (.f ) <= 0.1 and "0x1F"
0589 : .n>3and.n<9
059 : .n == 5 ; .n in [1,5] ; .n in ["5"] ; .n in [-5, 5] ; .n -4 == 1 ; .n - 4 == 1 ; .n in[5] ; .n in [-1,5] ; .n ==5 ; .n==5 ; .n - -5 == 10 ; (.n)-5 == 0 ; (.n) - 5 == 0 ; (((.n)))==5 ; .n=="5"
07 : "x" in .a ; .s in ["abc"] ; .s == 'abc'
079 : "abc" in .s
09 : 1 in .a ; "1" in .a ; "b" in .s ; .n=="5.0" ; .n > ['abc','',12] % .t
23 : .nul == 0 ; .nul == "" ; .nul == .a ; ['abc','',12] == .nul
256 : .s != .a ; .s != ["5",0]
45 : .f or .z ; (.f ) >= .t and ["5",0]
5 : .n in .n ; .n in "5" ; (.f == .t )
57 : "5" in .n
6 : not.n ; (! .num ) ; !(.num ) ; not .num ; .n == .e ; 0.1 == .num in !1e2 != -1 == "gpt-5" < .a ; !(!(! .num ) ) ; ! .n && (1 )
7 : .n == [5] ; (1 ) and 0 in .s
8 : .q == 'a"b' ; .uu == "é" ; .sp == 7 ; .tail == 0 ; .plus == 3 ; .dot == 0.5 ; .dd == 5 ; .expo == 100 ; .hex == 31 ; .inf > 1000 ; .nan == .nan ; .nan ; .q in ['a"b'] ; '"' in .q
"#;

fn documents() -> Vec<Value> {
    let long = json!({"long": "7".repeat(300), "n": 5, "s": "abc".repeat(90), "a": [1], "t": true, "z": 2});
    let parsed = DOCUMENTS.iter().map(|text| serde_json::from_str(text).expect("a JSON document"));
    parsed.chain([long]).collect()
}

fn filter(expression: &str) -> Filter {
    match Filter::parse(expression.as_bytes()) {
        Ok(filter) => filter,
        Err(error) => panic!("{expression}: {error}"),
    }
}

fn record(meta: &Value) -> Option<FilterRecord> {
    meta.as_object().and_then(FilterRecord::from_meta)
}

/// Evaluates on META and on its record, which must not contradict each other.
fn matches(expression: &str, meta: &Value) -> bool {
    let filter = filter(expression);
    let whole = filter.matches(meta);
    match filter.matches_record(record(meta).as_ref()) {
        Verdict::NeedsEntry => {}
        verdict => assert_eq!(verdict == Verdict::Yes, whole, "{expression} on {meta}"),
    }
    whole
}

fn from_record(expression: &str, meta: &Value) -> Verdict {
    filter(expression).matches_record(record(meta).as_ref())
}

#[test]
fn agrees_with_redis() {
    let documents = documents();
    let mut checked = 0;
    for line in REDIS_TABLE.lines().filter(|line| !line.is_empty()) {
        let (expected, expressions) = line.split_once(" : ").expect("documents : expressions");
        for expression in expressions.split(" ; ") {
            let numbers = documents.iter().enumerate();
            let matching = numbers.filter(|(_, meta)| matches(expression, meta));
            let found: String = matching.map(|(number, _)| number.to_string()).collect();
            assert_eq!(found, expected.replace('-', ""), "{expression}");
            checked += 1;
        }
    }
    assert!(checked > 400, "only {checked} expressions in the table");
}

#[test]
fn differs_from_redis_on_purpose() {
    let meta = json!({"n": 5, "t": true, "f": false, "nul": null, "q": "a\"b'c", "u": "\u{e9}\u{1f600}",
        "lines": "1\n2\t\u{8}\u{c}\r", "path": "C:\\x/", "small": 1e-5});
    for expression in [
        r#".q == "a\"b'c" and .q == 'a"b\'c' and '\"b' in .q"#,
        r#".u == "\u00e9\ud83d\ude00" and .u == "é😀""#,
        r#".lines == "1\n2\t\b\f\r" and .path == "C:\\x\/""#,
        ".t == true and .f == false and not false and true",
        ".nul in [1, null] and (.nul == null) and null==.nul and not(null)",
        "not not .n and !!.n == 1 and !!!.n == 0 and 1 and not not .n",
        ".small == 1e-5 and 1E+2 == 100 and 5-3 == 2",
    ] {
        assert!(matches(expression, &meta), "{expression}");
    }
}

#[test]
fn no_meta_matches_nothing() {
    for expression in ["1", "not .n", "null == null", "'a' in ['a']"] {
        for meta in [json!({}), json!(null), json!([1]), json!("n"), json!(1)] {
            assert!(!matches(expression, &meta), "{expression} on {meta}");
        }
        assert_eq!(filter(expression).matches_record(None), Verdict::No);
    }
    assert!(FilterRecord::from_meta(&Map::new()).is_none());
}

/// `expression => error`.
const ERRORS: &str = r#"
 => at byte 0: expected a value
.a == 1 and  => at byte 12: expected a value after "and"
(.a == 1 => at byte 0: this parenthesis is not closed
.a == 1) => at byte 7: this parenthesis closes nothing
() => at byte 1: expected a value after "("
1 2 => at byte 2: expected an operator after "1"
.n not in [1] => at byte 3: expected an operator after ".n"; write not (a in b)
.o.k == 1 => at byte 2: expected an operator after ".o"; only top-level members can be selected
é => at byte 0: unexpected "é"
.n = 5 => at byte 3: unexpected "="; equality is ==
.n & 5 => at byte 3: unexpected "&"; the operator is &&
1 AND 2 => at byte 2: unknown word "AND"; operators are in lower case, members start with a dot, text is quoted
. == 1 => at byte 1: expected the name of a member after "."
- 1 => at byte 0: a minus sign goes right before a number; to negate anything else write 0 - ...
1.2.3 => at byte 0: "1.2.3" is not a number
1 + 1e+ => at byte 4: "1e+" is not a number
1 == "ab => at byte 5: this text is not closed
'ab\ => at byte 0: this text is not closed
"a\d" => at byte 2: unknown escape; a backslash in text is written twice
"\ud800x" => at byte 1: \u takes four hexadecimal digits of a character
"\u00é0" => at byte 1: \u takes four hexadecimal digits of a character
1 in [1, 2 => at byte 5: this list is not closed
1 in [1 2] => at byte 8: expected "," or "]" in a list
1 in [.a] => at byte 6: a list holds numbers, quoted text, true, false and null only
"#;

#[test]
fn errors_name_the_place() {
    for line in ERRORS.lines().skip(1) {
        let (expression, expected) = line.split_once(" => ").expect("expression => error");
        let error = Filter::parse(expression.as_bytes()).expect_err(expression);
        assert_eq!(error.to_string(), expected, "{expression}");
    }
    let not_text = Filter::parse(b".a == \"\xff\"").expect_err("not UTF-8");
    assert_eq!((not_text.position, not_text.message.as_str()), (7, "not UTF-8"));
    let nul = Filter::parse(b"1\0").expect_err("a NUL byte");
    assert_eq!(nul.to_string(), "at byte 1: unexpected \"\\0\"");
}

#[test]
fn bounds_are_enforced() {
    let refused =
        |expression: &str| Filter::parse(expression.as_bytes()).expect_err("a bound").message;
    let spaces = " ".repeat(limits::FILTER_MAX_BYTES - 1);
    assert!(Filter::parse(format!("1{spaces}").as_bytes()).is_ok());
    assert_eq!(refused(&format!("1{spaces} ")), "longer than 8192 bytes");

    let values = limits::FILTER_MAX_NODES / 2;
    let sum = vec!["1"; values].join("+");
    assert!(matches(&sum, &json!({"n": 1})), "a long chain is not nesting");
    assert_eq!(refused(&format!("{sum}-1")), "more than 1024 values and operators");
    let list = vec!["1"; limits::FILTER_MAX_NODES].join(",");
    assert_eq!(refused(&format!("[{list}]")), "more than 1024 values and operators");

    for (open, close) in [("(", ")"), ("not ", ""), ("1**", ""), ("!(", ")"), ("1 or (", ")")] {
        let nested = |times: usize| format!("{}.n{}", open.repeat(times), close.repeat(times));
        let held = if open.len() > 1 && !close.is_empty() { 2 } else { 1 };
        let deepest = limits::FILTER_MAX_DEPTH / held;
        matches(&nested(deepest), &json!({"n": 1}));
        assert_eq!(refused(&nested(deepest + 1)), "nested deeper than 64 operators", "{open}");
    }
    assert!(Filter::parse("(".repeat(limits::FILTER_MAX_BYTES).as_bytes()).is_err());
}

#[test]
fn a_record_answers_what_it_can() {
    let meta = json!({"n": 5, "s": "abc", "a": [1, "x"], "o": {"k": 1}, "ao": [[{}]], "long": "7".repeat(300)});
    for (expression, expected) in [
        (".n == 5 and 'b' in .s", Verdict::Yes),
        ("1 in .a", Verdict::NeedsEntry),
        (".long", Verdict::NeedsEntry),
        ("not .a", Verdict::NeedsEntry),
        (".n == 4 and 1 in .a", Verdict::No),
        ("1 in .a and .n == 4", Verdict::No),
        ("not (1 in .a and .n == 4)", Verdict::Yes),
        (".n == 5 or 1 in .a", Verdict::Yes),
        ("1 in .a or .n == 4", Verdict::NeedsEntry),
        ("1 in .a or .missing", Verdict::No),
        ("1 in .a or .o", Verdict::No),
        ("1 in .a or not .ao", Verdict::No),
        (".n in [1, 5] and .long + 1 > 0", Verdict::NeedsEntry),
    ] {
        assert_eq!(from_record(expression, &meta), expected, "{expression}");
        matches(expression, &meta);
    }
}

#[test]
fn a_record_without_room_for_every_name_says_so() {
    let members = (0..100).map(|number| (format!("member{number:02}"), json!(number)));
    let meta = Value::Object(members.collect());
    let kept = record(&meta).expect("a record");
    assert!(kept.as_bytes().len() <= limits::FILTER_RECORD_MAX_BYTES);
    for (expression, expected) in [
        (".member99 == 99", Verdict::NeedsEntry),
        (".missing", Verdict::NeedsEntry),
        // Yes only if the member exists, which the record cannot tell.
        ("1 or .missing", Verdict::NeedsEntry),
        ("0 and .missing", Verdict::No),
    ] {
        assert_eq!(from_record(expression, &meta), expected, "{expression}");
        matches(expression, &meta);
    }
    let short_first = json!({"a": "t".repeat(240), "b": 1, "c": "short"});
    assert_eq!(from_record(".b == 1 and .c == 'short'", &short_first), Verdict::Yes);
    assert_eq!(from_record(".a == 't'", &short_first), Verdict::NeedsEntry);
    let unselectable_name = json!({"a b": "t".repeat(500), "": 1, "é": 2, "n": 1});
    assert_eq!(from_record(".n or .missing", &unselectable_name), Verdict::No);
    assert_eq!(from_record(".n", &json!({"n": 1, "x".repeat(256): 1})), Verdict::Yes);
}

#[test]
fn records_are_small() {
    assert_eq!(size_of::<Option<FilterRecord>>(), 16);
    let kept = record(&json!({"year": 2020, "model": "gpt-5", "ok": true})).expect("a record");
    // Completeness, three heads of two bytes, the names, and 2, 1 + 5 and 1 bytes of values.
    assert_eq!(kept.as_bytes().len(), 1 + 6 + 11 + 9);
    // Two counts, the bytes, and what aligns them to eight.
    assert_eq!(kept.bytes(), 16 + 27 + 5);
}

fn scalar() -> impl Strategy<Value = Value> {
    let number =
        prop_oneof![-3..3_i64, any::<i64>(), Just(130), Just(40_000)].prop_map(Value::from);
    let text = select(vec!["", "a", "b", "a1", "abba", "0x1F", " 7", "é", ".5", "inf", "nan"])
        .prop_map(Value::from);
    let long = (250..260_usize).prop_map(|length| Value::from("b".repeat(length)));
    let flag = any::<bool>().prop_map(Value::from);
    let real = any::<f64>().prop_map(Value::from);
    prop_oneof![4 => number, 4 => text, 1 => long, 2 => flag, 1 => real, 1 => Just(Value::Null)]
}

fn meta() -> impl Strategy<Value = Value> {
    let array = proptest::collection::vec(scalar(), 0..4).prop_map(Value::from);
    let value =
        prop_oneof![6 => scalar(), 1 => array, 1 => Just(json!({"k": 1})), 1 => Just(json!([{}]))];
    let names = prop_oneof![
        6 => select(vec!["a", "b", "c", "d", "e", "f"]).prop_map(str::to_string),
        1 => (90..120_usize).prop_map(|length| "x".repeat(length)),
    ];
    proptest::collection::hash_map(names, value, 0..8)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn expression() -> impl Strategy<Value = String> {
    let fields = select(vec![".a", ".b", ".c", ".d", ".e", ".f", ".g"]);
    let written = select(vec![
        "0",
        "1",
        "-3",
        "0.5",
        "'b'",
        "\"a1\"",
        "''",
        "null",
        "true",
        "'é'",
        "\"0x1F\"",
        "[1, 'a', 0, null]",
    ]);
    let operators = select(vec![
        "+", "-", "*", "/", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "and", "or", "and",
        "or", "&&", "||",
    ]);
    let leaf = prop_oneof![4 => fields, 3 => written].prop_map(str::to_string);
    leaf.prop_recursive(5, 40, 2, move |inner| {
        prop_oneof![
            4 => (inner.clone(), operators.clone(), inner.clone())
                .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
            1 => inner.clone().prop_map(|inner| format!("({inner})")),
            1 => inner.prop_map(|inner| format!("not ({inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn records_agree_with_meta(expression in expression(), meta in meta()) {
        matches(&expression, &meta);
        if let Some(kept) = record(&meta) {
            prop_assert!(kept.as_bytes().len() <= limits::FILTER_RECORD_MAX_BYTES);
            prop_assert_eq!(FilterRecord::from_bytes(kept.as_bytes()), Some(kept));
        }
    }
}

/// A seeded generator of random numbers (xorshift), the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, alphabet: &[u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let byte = alphabet[self.below(alphabet.len())];
            match self.below(4) {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                2 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.push(byte),
            }
        }
    }
}

#[test]
fn no_expression_panics() {
    let documents = documents();
    let records: Vec<_> = documents.iter().map(record).collect();
    let sources: Vec<&str> = REDIS_TABLE.split([';', '\n']).collect();
    let alphabet: Vec<u8> = (0..=255).chain(*b"()[]!.,-+*/%<>=&|'\"\\ue0123 notandorin").collect();
    let mut random = Random(0x5eed);
    let mut parsed = 0;
    for round in 0..100_000 {
        let mut bytes = match round % 3 {
            0 => (0..random.below(40)).map(|_| alphabet[random.below(alphabet.len())]).collect(),
            _ => sources[random.below(sources.len())].as_bytes().to_vec(),
        };
        random.mutate(&mut bytes, &alphabet);
        match Filter::parse(&bytes) {
            Ok(filter) => {
                parsed += 1;
                let number = random.below(documents.len());
                filter.matches(&documents[number]);
                filter.matches_record(records[number].as_ref());
            }
            Err(error) => assert!(error.position <= bytes.len(), "{bytes:?}: {error}"),
        }
    }
    assert!(parsed > 5_000, "only {parsed} of the mutated expressions were valid");
}

#[test]
fn hostile_records_are_refused_or_harmless() {
    let everything = filter(".n == 5 or .s == 'abc' or .missing or 1 in .a");
    let sources: Vec<Vec<u8>> =
        documents().iter().filter_map(record).map(|kept| kept.as_bytes().to_vec()).collect();
    let alphabet: Vec<u8> = (0..=255).chain([0, 1, 2, 3, 4, 5, 6, 7, b'n', b's']).collect();
    let mut random = Random(0xbad5eed);
    let mut accepted = 0;
    for round in 0..100_000 {
        let mut bytes = match round % 4 {
            0 => (0..random.below(30)).map(|_| alphabet[random.below(alphabet.len())]).collect(),
            _ => sources[random.below(sources.len())].clone(),
        };
        random.mutate(&mut bytes, &alphabet);
        if let Some(kept) = FilterRecord::from_bytes(&bytes) {
            accepted += 1;
            assert_eq!(kept.as_bytes(), bytes);
            everything.matches_record(Some(&kept));
        }
    }
    assert!(accepted > 1_000, "only {accepted} of the mutated records were well formed");
    let too_long =
        [0].into_iter().chain([1, 1, b'n'].into_iter().cycle().take(258)).collect::<Vec<_>>();
    for refused in [
        &b""[..],
        b"\x02",
        b"\0\x01",
        b"\0\x01\0",
        b"\0\x01\x01",
        b"\0\x01\x01 ",
        b"\0\x07\x01n",
        b"\0\x06\x01n\x01\xff",
        b"\0\x05\x01n\0\0\0\0\0\0\xf0\x7f",
        &too_long,
    ] {
        assert!(FilterRecord::from_bytes(refused).is_none(), "{refused:?}");
    }
}
