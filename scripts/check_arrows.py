#!/usr/bin/env python3
"""Checks the arrows that ARCHITECTURE.md promises: which room may use which, and that none run in a circle.

A room is a folder or a file below `src/` or `core/src/`, as named in LAYERS. `use` declarations are read from the
source (and paths written out in code), followed through `pub use` to the file that defines what is used, and held
against LAYERS: a room may use the rooms named beside it, everything in BASE, and itself. No files may use one another
in a circle, inside a room neither.

Code behind `#[cfg(test)]` is not looked at. Ends with status 1 when something is wrong.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES = {"src": "src", "core": "core/src"}

# What every room of the core may use.
BASE = {
    "core/account", "core/allocation", "core/cluster", "core/codec", "core/error", "core/ids", "core/limits", "core/listing", "core/load",
    "core/members", "core/sharded", "core/sleepers", "core/sync", "core/work",
}  # fmt: skip

# Room -> rooms it may use besides BASE and, for rooms of src, the core as a whole ("core").
LAYERS = {
    "core/distance": set(),
    "core/vector": {"core/distance"},
    "core/evict": set(),
    "core/embed": set(),
    "core/filter": set(),
    "core/top": set(),
    "core/words": set(),
    "core/index": {"core/distance", "core/evict", "core/filter", "core/top", "core/vector", "core/words"},
    "core/cache": {"core/distance", "core/evict", "core/filter", "core/index", "core/vector", "core/words"},
    "core/kvchunk": {"core/evict"},
    "core/session": {"core/distance", "core/filter", "core/top", "core/vector"},
    "src/ffi": {"core"},
    "src/config": {"core", "src/ffi"},
    "src/keytype": {"core", "src/ffi"},
    "src/keyspace": {"core", "src/config", "src/ffi", "src/keytype"},
    "src/background": {"core", "src/config", "src/ffi", "src/keyspace", "src/keytype"},
    "src/command/parse": {"core", "src/ffi"},
    "src/command/filtered": {"core", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype"},
    "src/command/container": {
        "core", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype",
    },
    "src/command/llmcache": {
        "core", "src/command/container", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype",
    },
    "src/command/rag": {
        "core", "src/command/container", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype",
    },
    "src/command/embcache": {
        "core", "src/command/container", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype",
    },
    "src/command/kvchunk": {"core", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype"},
    "src/command/session": {
        "core", "src/command/llmcache", "src/command/filtered", "src/command/parse", "src/config", "src/ffi", "src/keyspace", "src/keytype",
    },
    "src/command/table": {
        "src/command/container", "src/command/embcache", "src/command/kvchunk", "src/command/llmcache",
        "src/command/rag", "src/command/session", "src/ffi", "core/limits",
    },
    "src/version": set(),
    "src/info": {"core", "src/background", "src/config", "src/ffi", "src/keyspace", "src/keytype", "src/version"},
    "src/events": {"core", "src/background", "src/config", "src/ffi", "src/keyspace", "src/keytype"},
    "src/lib": {
        "core", "src/background", "src/command/table", "src/config", "src/events", "src/ffi", "src/info",
        "src/keyspace", "src/keytype", "src/version",
    },
}  # fmt: skip

USE = re.compile(r"^(?P<indent>[ \t]*)(?P<vis>pub(?:\([^)]*\))?\s+)?use\s+(?P<tree>[^;]+);", re.M)
INLINE = re.compile(r"(?<![\w:$])(?:crate|super|llmcache_core)(?:::\w+)+")
VISIBILITY = re.compile(r"pub\([^)]*\)")
MACRO = re.compile(r"#\[macro_export\]\s*(?:///[^\n]*\s*|#\[[^\]]*\]\s*)*macro_rules!\s+(\w+)")
COMMENT = re.compile(r"//[^\n]*")


def leaves(tree: str, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """The paths of a use tree, each with the name it is bound to."""
    tree = tree.strip()
    if not tree:
        return []
    if "{" not in tree:
        path, _, alias = tree.partition(" as ")
        whole = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
        if whole[-1] == "self":
            whole = whole[:-1]
        return [(whole, alias.strip() or whole[-1])]
    head, body = tree[: tree.index("{")], tree[tree.index("{") + 1 : tree.rindex("}")]
    prefix += tuple(part.strip() for part in head.split("::") if part.strip())
    found, depth, start = [], 0, 0
    for at, char in enumerate(body + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            found += leaves(body[start:at], prefix)
            start = at + 1
    return found


class Crate:
    """The modules of one crate, and what each hands on by `pub use`."""

    def __init__(self, name: str):
        self.name = name
        self.folder = ROOT / CRATES[name]
        self.files: dict[tuple[str, ...], Path] = {}
        self.uses: dict[tuple[str, ...], list[tuple[tuple[str, ...], str, bool]]] = {}
        self.macros: dict[str, tuple[str, ...]] = {}
        for path in sorted(self.folder.rglob("*.rs")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            module = parts[:-1] if parts[-1] in ("mod", "lib") else parts
            self.files[module] = path
            text = COMMENT.sub("", path.read_text()).split("#[cfg(test)]")[0]
            self.uses[module] = [
                (leaf, name, bool(use["vis"]))
                for use in USE.finditer(text)
                for leaf, name in leaves(use["tree"])
            ]
            for inline in INLINE.finditer(VISIBILITY.sub("", USE.sub("", text))):
                whole = tuple(inline[0].split("::"))
                self.uses[module].append((whole, whole[-1], False))
            for macro in MACRO.finditer(text):
                self.macros[macro[1]] = module

    def absolute(self, module: tuple[str, ...], path: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
        """The crate and path that `path` names in `module`; None for what is another package's."""
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.name, rest
        if first == "llmcache_core":
            return "core", rest
        if first in ("self", "super"):
            base = module
            while path and path[0] in ("self", "super"):
                base = base[:-1] if path[0] == "super" else base
                path = path[1:]
            return self.name, base + path
        if module + (first,) in self.files:
            return self.name, module + path
        return None


CRATE = {name: Crate(name) for name in CRATES}


def defining(crate: str, path: tuple[str, ...], seen: frozenset = frozenset()) -> tuple[str, tuple[str, ...]]:
    """The module that defines what `path` names, through whatever hands it on."""
    files = CRATE[crate].files
    if path in files:
        return crate, path
    if len(path) == 1 and path[0] in CRATE[crate].macros:
        return crate, CRATE[crate].macros[path[0]]
    cut = len(path)
    while path[:cut] not in files:
        cut -= 1
    module, name = path[:cut], path[cut]
    for leaf, bound, is_public in CRATE[crate].uses[module]:
        if bound in (name, "*") and is_public and (crate, module, name) not in seen:
            target = CRATE[crate].absolute(module, leaf)
            if target is not None:
                if bound == "*":
                    target = target[0], target[1][:-1] + (name,)
                return defining(*target, seen | {(crate, module, name)})
    return crate, module


def file_arrows() -> dict[str, dict[str, set[str]]]:
    """File -> file it uses -> the names used."""
    arrows: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, crate in CRATE.items():
        for module, uses in crate.uses.items():
            source = str(crate.files[module].relative_to(ROOT))
            for leaf, bound, is_public in uses:
                target = crate.absolute(module, leaf)
                if target is None:
                    continue
                where = defining(*target)
                file = str(CRATE[where[0]].files[where[1]].relative_to(ROOT))
                # A folder's face that hands on what is in it does not use it.
                is_face = is_public and where[0] == name and where[1][: len(module)] == module
                if file != source and not is_face:
                    arrows[source][file].add(bound)
    return arrows


def room(file: str) -> str:
    """The room that a file belongs to."""
    path = file.removesuffix(".rs").removesuffix("/mod").replace("core/src", "core")
    while path not in LAYERS and path not in BASE and "/" in path:
        path = path.rsplit("/", 1)[0]
    return path


def circles(arrows: dict[str, dict[str, set[str]]]) -> list[set[str]]:
    """The strongly connected components of more than one file (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for follower in arrows.get(node, {}):
            if follower not in index:
                visit(follower)
                low[node] = min(low[node], low[follower])
            elif follower in stack:
                low[node] = min(low[node], index[follower])
        if low[node] == index[node]:
            part = set()
            while not part or node not in part:
                part.add(stack.pop())
            if len(part) > 1:
                found.append(part)

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def main() -> int:
    arrows = file_arrows()
    wrong = []
    used = defaultdict(set)
    for source, targets in sorted(arrows.items()):
        here = room(source)
        if here not in LAYERS and here not in BASE and here != "core/lib":
            wrong.append(f"{source}: no room of LAYERS")
            continue
        for target, names in sorted(targets.items()):
            there = room(target)
            used[here].add(there)
            allowed = LAYERS.get(here, set())
            free = there == here or (there in BASE and here.startswith("core"))
            if not (free or there in allowed or ("core" in allowed and there.startswith("core/"))):
                wrong.append(f"{source} uses {target} ({', '.join(sorted(names))}): {here} may not use {there}")
    wrong += ["a circle: " + ", ".join(sorted(part)) for part in circles(arrows)]
    for line in wrong:
        print(f"check_arrows: {line}", file=sys.stderr)
    if not wrong:
        count = sum(len(targets) for targets in arrows.values())
        print(f"arrows: {count} between {len(CRATE['src'].files) + len(CRATE['core'].files)} files, as promised")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
