#!/usr/bin/env python3
"""Checks that files and functions of the module stay short: about 500 lines and 60, with a tenth of leeway.

A length counts what a reader reads: the lines of a file without its `#[cfg(test)]` part, and the lines of a function
from its `fn` to its closing brace, whatever they hold. TOO_LONG and LONG_FUNCTIONS name those that are still longer;
nothing may be added to them, and a file that was split must leave the list. Ends with status 1 when something is wrong.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_MAX = 550
FUNCTION_MAX = 66

# Files and functions that are still longer. Nothing may be added.
TOO_LONG: set[str] = set()
LONG_FUNCTIONS = {
    "src/command/rag/search.rs: answer",
    "src/ffi/api.rs: probe",  # a list of names
}

FUNCTION = re.compile(r"^(?P<indent> *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?fn (?P<name>\w+)")


def functions(lines: list[str]) -> list[tuple[str, int, int]]:
    """The functions of a file that rustfmt formatted: name, first line, number of lines."""
    found = []
    for at, line in enumerate(lines):
        head = FUNCTION.match(line)
        if not head:
            continue
        for end in range(at, len(lines)):
            if lines[end].startswith(head["indent"] + "}") or (end == at and line.endswith("}")):
                found.append((head["name"], at + 1, end - at + 1))
                break
            if lines[end].endswith(";") and not lines[end].startswith(head["indent"] + " "):
                break  # a declaration
    return found


def main() -> int:
    wrong, count = [], 0
    for folder in ("src", "core/src"):
        for path in sorted((ROOT / folder).rglob("*.rs")):
            count += 1
            name = str(path.relative_to(ROOT))
            lines = path.read_text().split("#[cfg(test)]\nmod tests {")[0].splitlines()
            if (len(lines) > FILE_MAX) != (name in TOO_LONG):
                verb = "take it out of TOO_LONG" if name in TOO_LONG else f"split it, {FILE_MAX} are the limit"
                wrong.append(f"{name} has {len(lines)} lines: {verb}")
            for function, first, length in functions(lines):
                known = f"{name}: {function}" in LONG_FUNCTIONS
                if length > FUNCTION_MAX and not known:
                    wrong.append(f"{name}:{first} {function} has {length} lines: split it, {FUNCTION_MAX} are the limit")
    for line in wrong:
        print(f"check_lengths: {line}", file=sys.stderr)
    if not wrong:
        rest = f"{len(TOO_LONG)} files and {len(LONG_FUNCTIONS)} functions aside"
        print(f"lengths: {count} files of at most {FILE_MAX} lines, functions of at most {FUNCTION_MAX}; {rest}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
