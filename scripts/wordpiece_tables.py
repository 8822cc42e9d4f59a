"""Writes core/src/embed/tables.rs: what the reference tokenizer does with each code point.

Run with the packages `tokenizers` installed; the module itself needs none of it.
"""

from pathlib import Path

from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TARGET = Path(__file__).parent.parent / "core/src/embed/tables.rs"

off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
clean = BertNormalizer(**{**off, "clean_text": True}).normalize_str
strip = BertNormalizer(**{**off, "strip_accents": True}).normalize_str
ideographs = BertNormalizer(**{**off, "handle_chinese_chars": True}).normalize_str
decomposed = NFD().normalize_str
words = BertPreTokenizer().pre_tokenize_str

TABLES = {
    "REMOVED": ("Removed by cleaning.", lambda c: clean(f"a{c}b") == "ab"),
    "SPACES": ("Become a space by cleaning.", lambda c: clean(f"a{c}b") == "a b"),
    "MARKS": (
        "Marks without a width, which go with the accents.",
        lambda c: decomposed(c) == c and strip(f"a{c}b") == "ab",
    ),
    "PUNCTUATION": ("Words of their own.", lambda c: len(words(f"a{c}b")) == 3),
    "IDEOGRAPHS": ("Get a space to either side.", lambda c: ideographs(f"a{c}b") == f"a {c} b"),
}


def ranges(holds):
    found = []
    for point in range(0x110000):
        if 0xD800 <= point < 0xE000 or not holds(chr(point)):
            continue
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def main():
    lines = [
        "//! Code points by what the reference tokenizer of BERT does with them. Written by",
        "//! `scripts/wordpiece_tables.py`; not to be edited.",
    ]
    for name, (text, holds) in TABLES.items():
        found = ranges(holds)
        lines += ["", f"/// {text}", "#[rustfmt::skip]", f"pub(super) const {name}: [(u32, u32); {len(found)}] = ["]
        row = "   "
        for first, last in found:
            part = f" ({first:#x}, {last:#x}),"
            if len(row) + len(part) > 110:
                lines.append(row)
                row = "   "
            row += part
        lines += [row, "];"]
    TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
