//! The decoders and parsers that there are: read from the sources, so that a new one is missed by nobody.
//!
//! One is a function that others may call, takes bytes, text, a folder or a `Reader`, and returns a `DecodeError` or
//! has a name as such functions have. Private functions are reached through these.

use std::path::Path;

const NAMES: [&str; 10] = [
    "parse",
    "decode",
    "from_bytes",
    "from_hex",
    "from_first",
    "load",
    "read",
    "open_section",
    "take_",
    "plain",
];
const TAKES: [&str; 6] = ["[u8]", "&str", "&'a str", "&'static str", "&Path", "Reader<"];

/// Each as `file::function`, the file below `core/src`.
pub fn found() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    walk(&root, &mut |path| {
        let text = std::fs::read_to_string(path).expect("a source");
        let file = path.strip_prefix(&root).expect("below it").display().to_string();
        all.extend(decoders(&text).into_iter().map(|name| format!("{file}::{name}")));
    });
    all
}

fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for item in std::fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() {
            walk(&path, each);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            each(&path);
        }
    }
}

fn decoders(text: &str) -> Vec<String> {
    let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = own;
    while let Some(at) = rest.find("fn ") {
        let (before, after) = rest.split_at(at);
        rest = &after[3..];
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        let head = rest.split(['{', ';']).next().unwrap_or_default();
        let Some((name, signature)) = head.split_once('(') else { continue };
        let name = name.split('<').next().unwrap_or_default();
        let (takes, returns) = signature.rsplit_once("->").unwrap_or((signature, ""));
        let is_one = line.starts_with("pub")
            && TAKES.iter().any(|kind| takes.contains(kind))
            && (returns.contains("DecodeError")
                || NAMES.iter().any(|start| name.starts_with(start)));
        if is_one {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn a_decoder_is_known_by_its_signature() {
    let text = "pub fn parse(bytes: &[u8]) -> Option<Self> {}\nfn parse_own(b: &[u8]) {}\npub fn of(b: u8) {}\n\
        pub(super) fn fill(\n    from: &mut Reader<'_>,\n) -> Result<u8, DecodeError> {}";
    assert_eq!(decoders(text), ["parse", "fill"]);
}
