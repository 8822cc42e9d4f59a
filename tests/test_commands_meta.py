"""What the server can tell of each command: arity, flags, keys, documentation."""

from dataclasses import dataclass

import pytest
from harness.replies import fields


@dataclass(frozen=True)
class Command:
    name: str
    arity: int
    kind: str  # "read", "store" or "write"
    call: tuple
    internal: bool = False
    family: str = "LLMCACHE"

    @property
    def full(self) -> str:
        return f"{self.family}.{self.name}"


PUBLIC = [
    Command("CREATE", -2, "store", ("DIM", 3)),
    Command("SETSEM", -6, "store", ("PROMPT", "p", "RESPONSE", "r")),
    Command("GETSEM", -4, "read", ("PROMPT", "p")),
    Command("MGETSEM", -5, "read", (1, "VALUES", 1, 1)),
    Command("SET", -6, "store", ("PROMPT", "p", "RESPONSE", "r")),
    Command("GET", -4, "read", ("PROMPT", "p")),
    Command("ENTRY", -3, "read", ("id",)),
    Command("DEL", -3, "write", ("id", "id2")),
    Command("EXPIRE", -4, "write", ("id", "EX", 5)),
    Command("SCAN", -3, "read", (0,)),
    Command("CONFIG", -3, "write", ("SET", "TTL", 5)),
    Command("INFO", 2, "read", ()),
    Command("STATS", -2, "read", ()),
    Command("FETCH", -4, "write", ("PROMPT", "p")),
    Command("FAIL", -3, "write", ("0123456789abcdef",)),
    Command("EXTEND", 4, "write", ("0123456789abcdef", 5)),
    Command("FEEDBACK", -3, "write", ("RESET",)),
    Command("NEARMISSES", -2, "read", ()),
    Command("INVALIDATE", -3, "write", ("ALL",)),
    Command("DROP", 2, "write", ()),
]
INTERNAL = [
    Command("_CREATE", 3, "write", ("blob",), internal=True),
    Command("_ENTRY", -3, "write", ("blob",), internal=True),
    Command("_CONFIG", 4, "write", ("TTL", 5), internal=True),
    Command("_EPOCH", 6, "write", ("ALL", "", 1, "HARD"), internal=True),
    Command("_AUDIT", 3, "write", ("state",), internal=True),
    Command("_LABEL", 6, "write", (0, 9000, 0, 1), internal=True),
    Command("_STALE", 2, "write", (), internal=True),
]
VECTOR = ("VALUES", 2, 1, 2)
PUBLIC += [
    Command(*row, family="EMBCACHE")
    for row in (
        ("CREATE", -4, "store", ("MODEL", "m", "DIM", 2)),
        ("SET", -4, "store", ("TEXT", "t", *VECTOR)),
        ("MSET", -5, "store", (1, "TEXT", "t", *VECTOR)),
        ("GET", -4, "read", ("TEXT", "t")),
        ("MGET", -5, "read", ("TEXTS", 1, "t")),
        ("MGETEX", -6, "write", ("TEXTS", 1, "t", "EX", 5)),
        ("FETCH", -4, "write", ("TEXT", "t")),
        ("FAIL", -3, "write", ("0123456789abcdef",)),
        ("EXTEND", 4, "write", ("0123456789abcdef", 5)),
        ("DEL", -5, "write", ("TEXTS", 1, "t")),
        ("INFO", 2, "read", ()),
    )
]
PUBLIC += [
    Command(*row, family="RAG")
    for row in (
        ("CREATE", -2, "store", ("DIM", 2)),
        ("ADD", -5, "store", ("id", *VECTOR, "TEXT", "t")),
        ("MADD", -6, "store", (1, "id", *VECTOR, "TEXT", "t")),
        ("SEARCH", -4, "read", VECTOR),
        ("GET", 3, "read", ("id",)),
        ("MGET", -5, "read", ("IDS", 1, "id")),
        ("DEL", -3, "write", ("id", "id2")),
        ("SCAN", -3, "read", (0,)),
        ("INFO", 2, "read", ()),
        ("DROP", 2, "write", ()),
    )
]
# What these do with their keys depends on their options: the server asks the module, call by call.
BY_OPTIONS = {"LLMCACHE.CONFIG", "LLMCACHE.INVALIDATE", "LLMCACHE.NEARMISSES", "LLMCACHE.STATS"}
EVERY = pytest.mark.parametrize("command", PUBLIC + INTERNAL, ids=lambda c: c.full)
EACH_PUBLIC = pytest.mark.parametrize("command", PUBLIC, ids=lambda c: c.full)


@pytest.fixture
def server(emptied):
    return emptied


def info(server, command):
    with server.wire() as wire:
        (entry,) = wire("COMMAND", "INFO", command.full)
    assert entry is not None, f"no command {command.full}"
    return entry


def test_these_are_all_commands_of_the_families(server):
    with server.wire() as wire:
        listed = {name.decode().upper() for name in wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")}
    families = ("LLMCACHE.", "EMBCACHE.", "RAG.")
    assert {name for name in listed if name.startswith(families)} == {c.full for c in PUBLIC + INTERNAL}


@EVERY
def test_arity(server, command):
    assert info(server, command)[1] == command.arity


@EVERY
def test_flags(server, command):
    flags = {str(flag) for flag in info(server, command)[2]}
    assert ("readonly" in flags) == (command.kind == "read")
    assert ("write" in flags) == (command.kind != "read")
    if not command.internal:
        assert ("denyoom" in flags) == (command.kind == "store")
    # What users asked is for operators.
    assert ("admin" in flags) == (command.internal or command.full == "LLMCACHE.NEARMISSES")
    assert "blocking" not in flags
    assert ("movablekeys" in flags) == (command.full in BY_OPTIONS)


@EVERY
def test_the_first_argument_is_the_key(server, command):
    entry = info(server, command)
    assert entry[3:6] == [1, 1, 1]
    (spec,) = entry[8]
    spec = fields(spec)
    flags = {str(flag) for flag in spec[b"flags" if b"flags" in spec else "flags"]}
    access = {"RO", "RW", "OW", "RM"} & flags
    if command.full not in BY_OPTIONS:
        assert access == ({"RO"} if command.kind == "read" else access - {"RO"})
    assert len(access) == 1
    begin, find = fields(spec["begin_search"]), fields(spec["find_keys"])
    assert (begin["type"], fields(begin["spec"])["index"]) == (b"index", 1)
    assert (find["type"], fields(find["spec"])["lastkey"]) == (b"range", 0)


@EVERY
def test_getkeys(server, command):
    with server.wire() as wire:
        name = command.full
        assert wire("COMMAND", "GETKEYS", name, "the key", *command.call) == [b"the key"]
        (pair,) = wire("COMMAND", "GETKEYSANDFLAGS", name, "the key", *command.call)
        assert pair[0] == b"the key"


@EVERY
def test_acl_categories(server, command):
    categories = {str(category) for category in info(server, command)[6]}
    if not server.gives_modules_categories:
        assert categories == set()
        return
    assert ("@read" in categories) == (command.kind == "read")
    assert ("@write" in categories) == (command.kind != "read")
    # Near misses show what others asked.
    shows_others = command.full == "LLMCACHE.NEARMISSES"
    assert ("@dangerous" in categories) == (command.internal or shows_others)


@EVERY
def test_docs(server, command):
    with server.wire() as wire:
        name, docs = wire("COMMAND", "DOCS", command.full)
    docs = fields(docs)
    assert name.decode().upper() == command.full
    assert len(docs["summary"]) > 10
    assert docs["group"] == b"module"
    assert docs["module"] == b"llmcache"
    assert docs["complexity"]
    arguments = [fields(argument) for argument in docs["arguments"]]
    assert arguments[0]["type"] == b"key"
    assert len(arguments) >= min(abs(command.arity) - 1, 2)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("EMBCACHE.MGETEX", "TEXTS DIGESTS EX PX EXAT PXAT PERSIST AS FP32 FP16 VALUES MODEL"),
        ("RAG.ADD", "FP32 FP16 VALUES NOVECTOR TEXT META TAGS TOKENS EX PX EXAT PXAT PERSIST"),
        ("RAG.SEARCH", "FP32 FP16 VALUES COUNT OFFSET FILTER SIMILARITY MMR TOKENS EF RETURN"),
        ("RAG.DEL", "IDS FILTER TAG LIMIT DRYRUN"),
        ("KVCHUNK.FETCH", "TOKENS SALT HASHES FROM COUNT MAXBYTES RANGE LEASE SPARSE"),
        ("LLMCACHE.CREATE", "DIM MODEL THRESHOLD TTL JITTER MAXENTRIES MAXMEMORY QUANT INDEX"),
        ("LLMCACHE.SETSEM", "PROMPT RESPONSE FP32 FP16 VALUES ID SCOPE CONTEXT TAGS META EX PX EXAT PXAT PERSIST TOKENS COST LATENCY NX"),
        ("LLMCACHE.GETSEM", "PROMPT FP32 FP16 VALUES SCOPE CONTEXT THRESHOLD COUNT FILTER MAXAGE RETURN EXPLAIN"),
        ("LLMCACHE.GET", "PROMPT SCOPE CONTEXT"),
        ("LLMCACHE.EXPIRE", "EX PX EXAT PXAT PERSIST"),
        ("LLMCACHE.SCAN", "COUNT FILTER"),
        ("LLMCACHE.STATS", "SCOPE RESET"),
    ],
)
def test_docs_know_every_option(server, name, tokens):
    with server.wire() as wire:
        _, docs = wire("COMMAND", "DOCS", name)

    def every_token(arguments):
        for argument in map(fields, arguments):
            if "token" in argument:
                yield argument["token"].decode()
            yield from every_token(argument.get("arguments", []))

    assert set(tokens.split()) <= set(every_token(fields(docs)["arguments"]))


@EACH_PUBLIC
def test_the_documented_call_is_accepted(server, command):
    with server.wire() as wire:
        given = {"EMBCACHE": ("MODEL", "m", "DIM", 2), "LLMCACHE": ("MAXERROR", "0.05")}.get(command.family, ())
        wire(f"{command.family}.CREATE", "faq", *given)
        key = "new" if command.name == "CREATE" else "faq"
        reply = wire(command.full, key, *command.call)
        assert getattr(reply, "word", "LEASELOST") == "LEASELOST", reply


def test_the_module_is_listed_once_and_cannot_be_unloaded(fleet):
    server = fleet.launch(enable_module_command="yes")
    with server.wire() as wire:
        modules = [fields(module) for module in wire("MODULE", "LIST")]
        assert [m["name"] for m in modules].count(b"llmcache") == 1
        reply = wire("MODULE", "UNLOAD", "llmcache")
        assert "exports one or more module-side data types" in reply.text
        assert wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A") is not None


def test_latency_and_calls_of_commands_are_counted(server, cache):
    cache.client.config_resetstat()
    cache.set("a", "A")
    cache.get("a")
    cache.get("b")
    counted = {name.lower(): value for name, value in server.info("commandstats").items()}
    assert counted["cmdstat_llmcache.get"].startswith("calls=2,")
