//! The pages of `docs/commands/`, written from the command table: one a command, and an index.
//!
//! Owns: the form of the pages. Fails when a page differs from the table, when one is missing and
//! when one is left over. `make docs` writes them again.

use llmcache::command::table::{COMMANDS, COSTS, cost_of, explain, label, unused};
use llmcache::ffi::command::{Arg, ArgKind, CommandSpec, KeyUse};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Either of these in the environment has the pages written instead of compared.
const UPDATE: &str = "LLMCACHE_WRITE_DOCS";

/// Longest line of a syntax block, and of a paragraph.
const SYNTAX_COLUMNS: usize = 80;
const TEXT_COLUMNS: usize = 100;

#[test]
fn pages_agree_with_the_command_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands");
    let wanted = pages(&folder);
    if std::env::var_os(UPDATE).is_some() {
        write_all(&folder, &wanted);
    }
    let found = read_all(&folder);
    let mut wrong = Vec::new();
    for (path, text) in &wanted {
        match found.get(path) {
            None => wrong.push(format!("{} is missing", path.display())),
            Some(old) if old != text => wrong.push(format!("{} differs", path.display())),
            Some(_) => {}
        }
    }
    let left_over = found.keys().filter(|path| !wanted.contains_key(*path));
    wrong.extend(left_over.map(|path| format!("{} has no command", path.display())));
    assert!(wrong.is_empty(), "run `make docs`, then look at the changes:\n{}", wrong.join("\n"));
}

#[test]
fn each_command_states_its_worst_case_once() {
    let names: Vec<&str> = COMMANDS.iter().map(|spec| spec.name).collect();
    for name in &names {
        let stated = COSTS.iter().filter(|(own, _)| own == name).count();
        assert_eq!(stated, 1, "{name} has {stated} rows in src/command/table/cost.rs");
    }
    let left_over: Vec<_> = COSTS.iter().filter(|(own, _)| !names.contains(own)).collect();
    assert!(left_over.is_empty(), "statements without a command: {left_over:?}");
}

#[test]
fn syntax_lines_read_as_in_the_documentation_of_redis() {
    let line = |name: &str| {
        let spec = COMMANDS.iter().find(|spec| spec.name == name).expect("a command of the table");
        syntax(spec).join(" ")
    };
    assert_eq!(
        line("LLMCACHE.GET"),
        "LLMCACHE.GET cache PROMPT prompt [CONTEXT context] [SCOPE scope]"
    );
    assert_eq!(line("LLMCACHE.DEL"), "LLMCACHE.DEL cache id [id ...]");
    assert_eq!(line("LLMCACHE.CONFIG"), "LLMCACHE.CONFIG cache <GET [setting] | SET name value>");
    let expiry = "<EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                  PXAT unix-time-milliseconds | PERSIST>";
    assert_eq!(line("LLMCACHE.EXPIRE"), format!("LLMCACHE.EXPIRE cache id {expiry}"));
    assert!(line("LLMCACHE.CREATE").contains("[QUANT <NONE | F16 | Q8>]"));
    assert!(line("LLMCACHE.GETSEM").contains("VALUES count value [value ...]"));
}

fn write_all(folder: &Path, wanted: &BTreeMap<PathBuf, String>) {
    fs::create_dir_all(folder).expect("docs/commands can be made");
    for path in read_all(folder).keys().filter(|path| !wanted.contains_key(*path)) {
        fs::remove_file(path).expect("a page can be removed");
    }
    for (path, text) in wanted {
        fs::write(path, text).expect("a page can be written");
    }
}

fn read_all(folder: &Path) -> BTreeMap<PathBuf, String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(&path).expect("a page is text"))).collect()
}

fn pages(folder: &Path) -> BTreeMap<PathBuf, String> {
    let commands = COMMANDS.iter().map(|spec| (folder.join(file_name(spec)), page(spec)));
    commands.chain([(folder.join("README.md"), index())]).collect()
}

fn file_name(spec: &CommandSpec) -> String {
    format!("{}.md", spec.name.to_ascii_lowercase())
}

fn is_internal(spec: &CommandSpec) -> bool {
    spec.name.contains("._")
}

fn index() -> String {
    let mut out = String::from("# Commands\n\n");
    out.push_str(ORIGIN);
    out.push_str(READING);
    for (heading, internal) in [("For clients", false), ("Internal", true)] {
        let _ = write!(out, "\n## {heading}\n\n| Command | What it does |\n|---|---|\n");
        for spec in COMMANDS.iter().filter(|spec| is_internal(spec) == internal) {
            let _ = writeln!(out, "| [{}]({}) | {} |", spec.name, file_name(spec), spec.summary);
        }
    }
    out
}

const ORIGIN: &str = "Written from the command table (`src/command/table/`) and `docs/examples/` by \
                      `make docs`. The server\ntells the same: `COMMAND DOCS llmcache.get`.\n";

const READING: &str = "\nIn a syntax line capitals stand for themselves, small letters for a value; \
                       `[...]` may be left\nout, of `<a | b>` exactly one is given, `x [x ...]` is \
                       one or more. Options come in any order, each\nat most once. Every error \
                       begins with a word in capitals: `ERR`, `WRONGTYPE`, `BADVECTOR`,\n\
                       `DIMMISMATCH`, `MODELMISMATCH`, `NOCACHE`, `BADFILTER`, `TOOBIG`, `LEASELOST`, \
                       `CROSSSLOT`,\n`NOPERM`, `BUSY`, `OOM`. A refused command changes nothing.\n";

fn page(spec: &CommandSpec) -> String {
    let mut out = format!("# {}\n\n{}\n\n```\n", spec.name, spec.summary);
    out.push_str(&wrapped(&syntax(spec), SYNTAX_COLUMNS, "    "));
    out.push_str("\n```\n\n| | |\n|---|---|\n");
    let flags: Vec<String> = spec.flags.split(' ').map(|flag| format!("`{flag}`")).collect();
    let mut key = format!("the first argument; {}", key_use(spec.key));
    if let Some(second) = spec.second_key {
        let _ = write!(key, ". The second; {}", key_use(second));
    }
    for option in spec.key_options {
        let (first, names) = (option.first.map(key_use), option.names.map(key_use));
        let _ = write!(key, ". With `{}`", option.token);
        if let Some(first) = first {
            let _ = write!(key, " also {first}");
        }
        if let Some(names) = names {
            let and = if first.is_some() { ", and" } else { "" };
            let _ = write!(key, "{and} the key named by it; {names}");
        }
    }
    for (name, value) in [
        ("Since", spec.since),
        ("Complexity", spec.complexity),
        ("At worst", &cost_of(spec.name.as_bytes()).expect("a statement of cost").describe()),
        ("Arity", &arity(spec.arity)),
        ("Flags", &flags.join(" ")),
        ("Key", &key),
    ] {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    out.push_str("\n## Arguments\n\n| Argument | Type | Meaning |\n|---|---|---|\n");
    for arg in spec.args {
        write_argument(&mut out, spec, arg, 0);
    }
    let _ = write!(out, "\n## Reply\n\n{}\n", paragraph(spec.reply));
    if !spec.notes.is_empty() {
        let _ = write!(out, "\n## Notes\n\n{}\n", paragraph(spec.notes));
    }
    let example = example(spec);
    if !example.is_empty() {
        let _ = write!(out, "\n## Examples\n\n```console\n{example}\n```\n");
    }
    out
}

/// What redis-cli shows of a command, from the file of its family; `tests/test_readme.py` types it in.
fn example(spec: &CommandSpec) -> String {
    let family = spec.name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let file = format!("docs/examples/{family}.console");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect("every family has examples");
    let lines = text.lines().skip_while(|line| line.strip_prefix("# ") != Some(spec.name)).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("# ")).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The row of an argument, and below it those of its parts.
fn write_argument(out: &mut String, spec: &CommandSpec, arg: &Arg, depth: usize) {
    let shown = if depth == 0 { whole(arg) } else { whole(&Arg { optional: false, ..*arg }) };
    let shown = shown.replace('|', "\\|");
    let indent = "&nbsp;&nbsp;".repeat(depth);
    let optional = if arg.optional && depth == 0 { "Optional. " } else { "" };
    let words = linked(explain(spec.name, arg));
    let _ = writeln!(out, "| {indent}`{shown}` | {} | {optional}{words} |", kind(arg));
    for part in parts(arg).iter().filter(|part| label(part) != "count") {
        write_argument(out, spec, part, depth + 1);
    }
}

/// What an argument is made of. The three forms of a vector and those of an expiry are known by their own rows.
fn parts(arg: &Arg) -> &'static [Arg] {
    match arg.kind {
        ArgKind::OneOf(inner) | ArgKind::Block(inner) => inner,
        _ => &[],
    }
}

#[test]
fn every_command_has_an_example() {
    let without = COMMANDS.iter().filter(|spec| example(spec).is_empty()).map(|spec| spec.name);
    let without: Vec<_> = without.collect();
    assert!(without.is_empty(), "add them to docs/examples/: {without:?}");
}

#[test]
fn every_argument_is_explained_and_every_explanation_is_used() {
    let all = all_arguments();
    let silent = all.iter().filter(|(command, arg)| explain(command, arg).is_empty());
    let mut silent: Vec<_> = silent.map(|(c, arg)| format!("{c} {}", label(arg))).collect();
    silent.dedup();
    assert!(silent.is_empty(), "say what these mean in table/explain/:\n{}", silent.join("\n"));
    let is_used = |scope: &str, name: &str| {
        all.iter().any(|(command, arg)| {
            label(arg) == name
                && (*command == scope
                    || command.split('.').next() == Some(scope)
                    || scope.is_empty())
        })
    };
    assert_eq!(unused(is_used), [], "explanations of nothing");
}

fn all_arguments() -> Vec<(&'static str, Arg)> {
    fn collect(command: &'static str, args: &'static [Arg], all: &mut Vec<(&'static str, Arg)>) {
        for arg in args {
            all.push((command, *arg));
            collect(command, parts(arg), all);
        }
    }
    let mut all = Vec::new();
    COMMANDS.iter().for_each(|spec| collect(spec.name, spec.args, &mut all));
    all
}

/// The syntax line, in the pieces between which a line may be broken.
fn syntax(spec: &CommandSpec) -> Vec<String> {
    let mut out = vec![spec.name.to_owned()];
    for arg in spec.args {
        out.extend(pieces(arg));
    }
    out
}

/// One argument, in the pieces between which a line may be broken: alternatives.
fn pieces(arg: &Arg) -> Vec<String> {
    let mut out = match arg.kind {
        ArgKind::Word => vec![arg.token.to_owned()],
        ArgKind::Block(inner) => vec![inner.iter().map(whole).collect::<Vec<_>>().join(" ")],
        ArgKind::OneOf(inner) => {
            let mut forms: Vec<String> = inner.iter().map(whole).collect();
            let last = forms.len() - 1;
            forms[..last].iter_mut().for_each(|form| form.push_str(" |"));
            forms
        }
        _ => vec![arg.name.to_owned()],
    };
    if arg.multiple {
        out.push(format!("[{} ...]", arg.name));
    }
    let last = out.len() - 1;
    // Brackets of an option without a token already say that one of the forms is meant.
    if matches!(arg.kind, ArgKind::OneOf(_)) && !(arg.optional && arg.token.is_empty()) {
        out[0].insert(0, '<');
        out[last].push('>');
    }
    if !arg.token.is_empty() && !matches!(arg.kind, ArgKind::Word) {
        out[0] = format!("{} {}", arg.token, out[0]);
    }
    if arg.optional {
        out[0].insert(0, '[');
        out[last].push(']');
    }
    out
}

fn whole(arg: &Arg) -> String {
    pieces(arg).join(" ")
}

fn kind(arg: &Arg) -> &'static str {
    match arg.kind {
        _ if arg.multiple => "one or more",
        ArgKind::Key => "key",
        ArgKind::Text => "bytes",
        ArgKind::Integer => "whole number",
        ArgKind::Double => "number",
        ArgKind::UnixTime => "Unix time",
        ArgKind::Word => "word",
        ArgKind::OneOf(_) => "one of these",
        ArgKind::Block(inner) if inner[0].name == "count" => "a count, then that many",
        ArgKind::Block(_) => "these in a row",
    }
}

fn key_use(key: KeyUse) -> &'static str {
    match key {
        KeyUse::Read => "read",
        KeyUse::Insert => "written (adds to it)",
        KeyUse::Update => "written (changes what is there)",
        KeyUse::Delete => "written (removes from it)",
        KeyUse::UpdateAndRead => "read and written (changes what is there)",
        KeyUse::DeleteAndRead => "read and written (removes from it)",
    }
}

fn arity(arity: i32) -> String {
    let count = arity.unsigned_abs();
    if arity < 0 {
        format!("{count} or more, the name included")
    } else {
        format!("{count}, the name included")
    }
}

/// The pages that texts of the table name, as links.
fn linked(text: &str) -> String {
    let text = text.replace("`docs/filter.md`", "docs/filter.md");
    let text = text.replace("docs/filter.md", "[docs/filter.md](../filter.md)");
    text.replace("docs/formats.md", "[docs/formats.md](../formats.md)")
}

/// Text of the table as a paragraph; files it names become links.
fn paragraph(text: &str) -> String {
    let linked = linked(text);
    let words: Vec<String> = linked.split_whitespace().map(str::to_owned).collect();
    wrapped(&words, TEXT_COLUMNS, "")
}

/// Joins pieces by blanks into lines of at most `columns`, where the pieces allow it.
fn wrapped(pieces: &[String], columns: usize, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for piece in pieces {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(piece);
        } else if line.chars().count() + 1 + piece.chars().count() <= columns {
            line.push(' ');
            line.push_str(piece);
        } else {
            lines.push(format!("{indent}{piece}"));
        }
    }
    lines.join("\n")
}
