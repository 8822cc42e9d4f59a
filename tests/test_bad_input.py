"""Bad input: the error words of the documents, and nothing changed."""

import numpy as np
import pytest
from harness.cache import Cache
from harness.vectors import fp16, fp32, unit
from harness.wire import Failure, encode

DIM = 4
GOOD = fp32(np.array([1, 2, 3, 4]))
NAN = np.array([1, np.nan, 3, 4])
INF = np.array([1, np.inf, 3, 4])
ZERO = np.zeros(DIM)
STORE = ["PROMPT", "p", "RESPONSE", "r"]
HUGE_F16 = ["FP16", b"\x00\x7c" + b"\x00\x3c" * 3]

BAD_VECTORS = {
    "NaN in FP32": (fp32(NAN), "BADVECTOR"),
    "NaN in FP16": (fp16(NAN), "BADVECTOR"),
    "NaN in VALUES": (["VALUES", 4, 1, "nan", 3, 4], "BADVECTOR"),
    "infinity in FP32": (fp32(INF), "BADVECTOR"),
    "infinity in FP16": (HUGE_F16, "BADVECTOR"),
    "infinity in VALUES": (["VALUES", 4, 1, "inf", 3, 4], "BADVECTOR"),
    "overflow in VALUES": (["VALUES", 4, 1, "1e400", 3, 4], "BADVECTOR"),
    "a word in VALUES": (["VALUES", 4, 1, "two", 3, 4], "BADVECTOR"),
    "an empty number in VALUES": (["VALUES", 4, 1, "", 3, 4], "BADVECTOR"),
    "zero vector": (fp32(ZERO), "BADVECTOR"),
    "zero vector in FP16": (fp16(ZERO), "BADVECTOR"),
    "zero vector in VALUES": (["VALUES", 4, 0, 0, "-0", "0.0"], "BADVECTOR"),
    "a blob that is no multiple of four": (["FP32", b"\x00\x00\x80\x3f" * 4 + b"\x00"], "BADVECTOR"),
    "a blob that is no multiple of two": (["FP16", b"\x00\x3c" * 4 + b"\x00"], "BADVECTOR"),
    "an empty blob": (["FP32", b""], "BADVECTOR"),
    "a smaller dimension": (fp32(np.ones(3)), "DIMMISMATCH"),
    "a larger dimension": (fp32(np.ones(5)), "DIMMISMATCH"),
    "another dimension in VALUES": (["VALUES", 2, 1, 2], "DIMMISMATCH"),
    "another dimension in FP16": (fp16(np.ones(8)), "DIMMISMATCH"),
}

# What every store refuses. Numbers past a bound are ERR, sizes past a bound are TOOBIG.
BAD_STORES = {
    "unknown option": ([*STORE, "COLOUR", "red"], "ERR"),
    "an option twice": ([*STORE, "SCOPE", "a", "SCOPE", "b"], "ERR"),
    "a flag twice": ([*STORE, "NX", "NX"], "ERR"),
    "the prompt twice": ([*STORE, "PROMPT", "q"], "ERR"),
    "two vectors": ([*STORE, *GOOD, "VALUES", 4, 1, 2, 3, 4], "ERR"),
    "two deadlines": ([*STORE, "EX", 5, "PX", 5], "ERR"),
    "a deadline and none": ([*STORE, "EX", 5, "PERSIST"], "ERR"),
    "no prompt": (["RESPONSE", "r", *GOOD], "ERR"),
    "no response": (["PROMPT", "p", *GOOD], "ERR"),
    "an option without its value": ([*STORE, "SCOPE"], "ERR"),
    "a vector without its blob": ([*STORE, "FP32"], "ERR"),
    "VALUES that promise more": ([*STORE, "VALUES", 9, 1, 2, 3, 4], "BADVECTOR"),
    "VALUES of a negative number": ([*STORE, "VALUES", -1], "BADVECTOR"),
    "VALUES of no number": ([*STORE, "VALUES", 0], "BADVECTOR"),
    "EX of zero": ([*STORE, "EX", 0], "ERR"),
    "EX of a negative number": ([*STORE, "EX", -5], "ERR"),
    "EX of a word": ([*STORE, "EX", "soon"], "ERR"),
    "EX beyond an integer": ([*STORE, "EX", "99999999999999999999"], "ERR"),
    "EX beyond its bound": ([*STORE, "EX", 2**62], "ERR"),
    "PX beyond its bound": ([*STORE, "PX", 2**63 - 1], "ERR"),
    "tags that promise more": ([*STORE, "TAGS", 3, "a", "b"], "ERR"),
    "a negative count of tags": ([*STORE, "TAGS", -1], "ERR"),
    "META that is no JSON": ([*STORE, "META", "{year: 2024}"], "ERR"),
    "META that is no object": ([*STORE, "META", "[1, 2]"], "ERR"),
    "META with a tail": ([*STORE, "META", "{} x"], "ERR"),
    "META nested too deep": ([*STORE, "META", '{"a":' * 5_000 + "1" + "}" * 5_000], "ERR"),
    "META that is no UTF-8": ([*STORE, "META", b'{"a":"\xff\xfe"}'], "ERR"),
    "an empty id": ([*STORE, "ID", ""], "ERR"),
    "an id with a control character": ([*STORE, "ID", "a\nb"], "ERR"),
    "an id with NUL": ([*STORE, "ID", b"a\x00"], "ERR"),
    "a negative COST": ([*STORE, "COST", "-1"], "ERR"),
    "COST of a word": ([*STORE, "COST", "cheap"], "ERR"),
    "COST beyond its bound": ([*STORE, "COST", "1000001"], "ERR"),
    "negative TOKENS": ([*STORE, "TOKENS", -1], "ERR"),
    "TOKENS beyond their bound": ([*STORE, "TOKENS", 2**33], "ERR"),
    "LATENCY beyond its bound": ([*STORE, "LATENCY", 2**62], "ERR"),
    "an id too long": ([*STORE, "ID", "x" * 129], "TOOBIG"),
    "a scope too long": ([*STORE, "SCOPE", "s" * 1_025], "TOOBIG"),
    "a context too long": ([*STORE, "CONTEXT", "c" * ((1 << 20) + 1)], "TOOBIG"),
    "a prompt too long": (["PROMPT", "p" * ((16 << 20) + 1), "RESPONSE", "r"], "TOOBIG"),
    "a response too long": (["PROMPT", "p", "RESPONSE", "r" * ((64 << 20) + 1)], "TOOBIG"),
    "META too long": ([*STORE, "META", '{"a":"' + "x" * (64 << 10) + '"}'], "TOOBIG"),
    "a tag too long": ([*STORE, "TAGS", 1, "t" * 257], "TOOBIG"),
    "too many tags": ([*STORE, "TAGS", 65, *(f"t{i}" for i in range(65))], "ERR"),
}

BAD_LOOKUPS = {
    "neither prompt nor vector": (["SCOPE", "s"], "ERR"),
    "unknown option": (["PROMPT", "p", "NEAREST", 3], "ERR"),
    "an option twice": (["PROMPT", "p", "THRESHOLD", 1, "THRESHOLD", 1], "ERR"),
    "EXPLAIN twice": (["PROMPT", "p", "EXPLAIN", "EXPLAIN"], "ERR"),
    "THRESHOLD above one": ([*GOOD, "THRESHOLD", "1.01"], "ERR"),
    "THRESHOLD below minus one": ([*GOOD, "THRESHOLD", "-1.01"], "ERR"),
    "THRESHOLD of NaN": ([*GOOD, "THRESHOLD", "nan"], "ERR"),
    "THRESHOLD of a word": ([*GOOD, "THRESHOLD", "high"], "ERR"),
    "COUNT of zero": ([*GOOD, "COUNT", 0], "ERR"),
    "COUNT of a negative number": ([*GOOD, "COUNT", -1], "ERR"),
    "COUNT beyond its bound": ([*GOOD, "COUNT", 1_001], "ERR"),
    "a negative MAXAGE": ([*GOOD, "MAXAGE", -1], "ERR"),
    "EF beyond its bound": ([*GOOD, "EF", 10_001], "ERR"),
    "EF of zero": ([*GOOD, "EF", 0], "ERR"),
    "RETURN of an unknown field": ([*GOOD, "RETURN", 1, "colour"], "ERR"),
    "RETURN of a field twice": ([*GOOD, "RETURN", 2, "id", "id"], "ERR"),
    "RETURN that promises more": ([*GOOD, "RETURN", 5, "id"], "ERR"),
    "RETURN of nothing": ([*GOOD, "RETURN", 0], "ERR"),
    "an empty filter": ([*GOOD, "FILTER", ""], "BADFILTER"),
    "an open parenthesis": ([*GOOD, "FILTER", "(.year > 1"], "BADFILTER"),
    "a filter without an operand": ([*GOOD, "FILTER", ".year >"], "BADFILTER"),
    "a filter of an unknown operator": ([*GOOD, "FILTER", ".year <> 3"], "BADFILTER"),
    "an open text in a filter": ([*GOOD, "FILTER", '.model == "gpt'], "BADFILTER"),
    "two values side by side": ([*GOOD, "FILTER", ".a 1"], "BADFILTER"),
    "a filter with NUL": ([*GOOD, "FILTER", b".a == 1\x00"], "BADFILTER"),
    "a filter nested too deep": ([*GOOD, "FILTER", "(" * 10_000 + "1" + ")" * 10_000], "TOOBIG"),
    "a filter deep within its length": ([*GOOD, "FILTER", "(" * 2_000 + "1" + ")" * 2_000], "BADFILTER"),
    "a filter too long": ([*GOOD, "FILTER", ".a == " + "1" * 9_000], "TOOBIG"),
    "a prompt too long": (["PROMPT", "p" * ((16 << 20) + 1)], "TOOBIG"),
}

BAD_CREATES = {
    "DIM of zero": (["DIM", 0], "ERR"),
    "DIM beyond its bound": (["DIM", 16_385], "ERR"),
    "DIM of a word": (["DIM", "many"], "ERR"),
    "THRESHOLD above one": (["THRESHOLD", 2], "ERR"),
    "a negative TTL": (["TTL", -1], "ERR"),
    "TTL beyond its bound": (["TTL", 2**60], "ERR"),
    "JITTER above a hundred": (["JITTER", 101], "ERR"),
    "a negative MAXENTRIES": (["MAXENTRIES", -1], "ERR"),
    "MAXENTRIES beyond its bound": (["MAXENTRIES", 2**32], "ERR"),
    "a negative MAXMEMORY": (["MAXMEMORY", -1], "ERR"),
    "an unknown QUANT": (["QUANT", "F8"], "ERR"),
    "an unknown INDEX": (["INDEX", "TREE"], "ERR"),
    "unknown option": (["SHARDS", 3], "ERR"),
    "an option twice": (["DIM", 3, "DIM", 3], "ERR"),
    "an option without its value": (["DIM"], "ERR"),
    "MODEL too long": (["MODEL", "m" * 257], "TOOBIG"),
}

BAD_NAMES = {
    "a brace that closes nothing": (b"a}b", "ERR"),
    "an empty tag": (b"{}", "ERR"),
    "an empty tag before a real one": (b"{}a{b}", "ERR"),
    "an empty name": (b"", "ERR"),
    "a name too long": (b"n" * 1_025, "TOOBIG"),
}


def cases(table):
    return pytest.mark.parametrize(("arguments", "word"), table.values(), ids=table.keys())


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def filled(server, cache):
    cache.create(dim=DIM, threshold="0.8")
    cache.setsem("p", "kept", unit(1, DIM), id="kept", meta={"year": 2024, "a": 1})
    cache.client.set("text", "x")
    cache.client.rpush("list", "x")
    return cache


@pytest.fixture
def refused(server):
    """Sends a command that must be refused with this word, and leave every database as it was."""

    def check(word, *command):
        before = server.digest()
        with server.wire() as wire:
            reply = wire(*command)
            assert isinstance(reply, Failure), f"accepted: {reply!r}"
            assert reply.word == word, reply.text
            assert len(reply.text) > len(word) + 3, "an error says what was wrong"
            assert wire("PING") == "PONG"
        assert server.digest() == before
        return reply.text

    return check


@cases(BAD_VECTORS)
def test_bad_vectors(refused, filled, arguments, word):
    refused(word, "LLMCACHE.SETSEM", "faq", *STORE, *arguments)
    refused(word, "LLMCACHE.SETSEM", "faq", "PROMPT", "new", "RESPONSE", "r", *arguments)
    refused(word, "LLMCACHE.GETSEM", "faq", *arguments)
    assert filled.get("p") == b"kept"


@pytest.mark.parametrize("name", [n for n, (_, word) in BAD_VECTORS.items() if word == "BADVECTOR"])
def test_a_bad_vector_creates_no_cache(refused, name):
    refused("BADVECTOR", "LLMCACHE.SETSEM", "new", *STORE, *BAD_VECTORS[name][0])


def test_the_dimension_error_says_both_dimensions(refused, filled):
    text = refused("DIMMISMATCH", "LLMCACHE.SETSEM", "faq", *STORE, *fp32(np.ones(7)))
    assert text == 'DIMMISMATCH vector has 7 dimensions, "faq" holds 4'


def test_a_blob_longer_than_any_dimension(refused):
    refused("BADVECTOR", "LLMCACHE.SETSEM", "new", *STORE, *fp32(np.ones(16_385)))


@cases(BAD_STORES)
def test_bad_stores(refused, filled, arguments, word):
    refused(word, "LLMCACHE.SETSEM", "faq", *arguments)
    refused(word, "LLMCACHE.SETSEM", "new", *arguments)
    assert filled.entry("kept")["response"] == b"kept"


@cases(BAD_LOOKUPS)
def test_bad_lookups(refused, filled, arguments, word):
    refused(word, "LLMCACHE.GETSEM", "faq", *arguments)


def test_a_filter_error_tells_the_place(refused, filled):
    text = refused("BADFILTER", "LLMCACHE.GETSEM", "faq", *GOOD, "FILTER", ".year >= 2020 and and 3")
    assert any(ch.isdigit() for ch in text), text


@cases(BAD_CREATES)
def test_bad_creates(refused, arguments, word):
    refused(word, "LLMCACHE.CREATE", "new", *arguments)


@pytest.mark.parametrize(("name", "word"), BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_bad_names(refused, name, word):
    refused(word, "LLMCACHE.CREATE", name)
    refused(word, "LLMCACHE.SET", name, *STORE)


def test_create_on_an_existing_name(server, refused, filled):
    refused("ERR", "LLMCACHE.CREATE", "faq", "DIM", 8)
    refused("ERR", "LLMCACHE.CREATE", "faq", "DIM", DIM, "THRESHOLD", "0.7")
    before = server.digest()
    assert filled.create(dim=DIM, threshold="0.8") == b"OK"
    assert server.digest() == before


WRONG_TYPE = [
    ("LLMCACHE.CREATE", "{}"),
    ("LLMCACHE.SETSEM", "{}", *STORE, *GOOD),
    ("LLMCACHE.SET", "{}", *STORE),
    ("LLMCACHE.GETSEM", "{}", "PROMPT", "p"),
    ("LLMCACHE.GET", "{}", "PROMPT", "p"),
    ("LLMCACHE.ENTRY", "{}", "id"),
    ("LLMCACHE.DEL", "{}", "id"),
    ("LLMCACHE.EXPIRE", "{}", "id", "EX", 5),
    ("LLMCACHE.SCAN", "{}", 0),
    ("LLMCACHE.CONFIG", "{}", "GET"),
    ("LLMCACHE.CONFIG", "{}", "SET", "THRESHOLD", "0.5"),
    ("LLMCACHE.INFO", "{}"),
    ("LLMCACHE.STATS", "{}"),
]


@pytest.mark.parametrize("command", WRONG_TYPE, ids=lambda c: " ".join(str(p) for p in c[:3:2]))
def test_wrong_type(refused, filled, command):
    entry_key = filled.key_of("kept")
    for key in ("text", "list", entry_key):
        word = refused_word(refused, [key if part == "{}" else part for part in command])
        assert word == "WRONGTYPE", (key, word)


def refused_word(refused, command):
    refused("WRONGTYPE", *command)
    return "WRONGTYPE"


@pytest.mark.parametrize("command", [("GET", "faq"), ("LPUSH", "faq", 1), ("HGETALL", "faq"), ("INCR", "faq")], ids=lambda c: c[0])
def test_other_commands_on_a_cache_are_of_the_wrong_type(refused, filled, command):
    refused("WRONGTYPE", *command)


MISSING = [
    ("LLMCACHE.CONFIG", "none", "SET", "THRESHOLD", "0.5"),
    ("LLMCACHE.CONFIG", "none", "GET"),
    ("LLMCACHE.INFO", "none"),
]


@pytest.mark.parametrize("command", MISSING, ids=lambda c: " ".join(str(p) for p in c[:3:2]))
def test_a_missing_cache_where_there_must_be_one(refused, command):
    refused("NOCACHE", *command)


def test_reads_of_a_missing_cache_are_misses(server):
    empty = server.digest()
    with server.wire() as wire:
        assert wire("LLMCACHE.GETSEM", "none", "PROMPT", "p") is None
        assert wire("LLMCACHE.GETSEM", "none", *GOOD, "COUNT", 3) == []
        assert wire("LLMCACHE.GET", "none", "PROMPT", "p") is None
        assert wire("LLMCACHE.ENTRY", "none", "x") is None
        assert wire("LLMCACHE.SCAN", "none", 0) == [b"0", []]
        assert wire("LLMCACHE.DEL", "none", "x") == 0
        assert wire("LLMCACHE.EXPIRE", "none", "x", "EX", 5) == 0
    assert server.digest() == empty


def test_stores_into_a_missing_cache_with_auto_create_off(fleet):
    with fleet.launch(llmcache__auto_create="no").wire() as wire:
        assert wire("LLMCACHE.SET", "none", *STORE).word == "NOCACHE"
        assert wire("LLMCACHE.SETSEM", "none", *STORE, *GOOD).word == "NOCACHE"
        assert wire("LLMCACHE.GET", "none", "PROMPT", "p") is None
        assert wire("DBSIZE") == 0


def test_set_and_get_take_no_vector_and_no_lookup_options(refused, filled):
    refused("ERR", "LLMCACHE.SET", "faq", *STORE, *GOOD)
    refused("ERR", "LLMCACHE.GET", "faq", "PROMPT", "p", *GOOD)
    refused("ERR", "LLMCACHE.GET", "faq", "PROMPT", "p", "COUNT", 3)
    refused("ERR", "LLMCACHE.GET", "faq", "SCOPE", "s", "CONTEXT", "c")


@pytest.mark.parametrize(
    "arguments",
    [["EX", 0], ["EX", "x"], ["PX", -1], ["NX"], ["EX", 5, "PX", 5], ["EX"], ["PERSIST", "EX", 5], ["KEEPTTL"]],
    ids=str,
)
def test_bad_expiry(refused, filled, arguments):
    refused("ERR", "LLMCACHE.EXPIRE", "faq", "kept", *arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["x"], "ERR"), ([-1], "ERR"), ([0, "COUNT", 0], "ERR"), ([0, "COUNT", 10_001], "ERR"), ([0, "MATCH", "*"], "ERR"), ([0, "FILTER", "("], "BADFILTER")],
    ids=str,
)
def test_bad_scans(refused, filled, arguments, word):
    refused(word, "LLMCACHE.SCAN", "faq", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [["SET", "COLOUR", 1], ["SET", "THRESHOLD", 7], ["SET", "THRESHOLD"], ["SET", "DIM", 9], ["SET", "JITTER", 101], ["SET", "TTL", -1], ["LIST"], ["GET", "THRESHOLD", "TTL"]],
    ids=str,
)
def test_bad_config(refused, filled, arguments):
    refused("ERR", "LLMCACHE.CONFIG", "faq", *arguments)


ARITY = [
    ("LLMCACHE.CREATE",),
    ("LLMCACHE.SETSEM", "faq"),
    ("LLMCACHE.SETSEM", "faq", "PROMPT", "p"),
    ("LLMCACHE.GETSEM", "faq"),
    ("LLMCACHE.SET", "faq", "PROMPT", "p"),
    ("LLMCACHE.GET", "faq"),
    ("LLMCACHE.ENTRY", "faq"),
    ("LLMCACHE.DEL", "faq"),
    ("LLMCACHE.EXPIRE", "faq", "a"),
    ("LLMCACHE.SCAN", "faq"),
    ("LLMCACHE.CONFIG", "faq"),
    ("LLMCACHE.INFO",),
    ("LLMCACHE.INFO", "faq", "x"),
    ("LLMCACHE.STATS",),
]


@pytest.mark.parametrize("command", ARITY, ids=" ".join)
def test_arity(refused, filled, command):
    text = refused("ERR", *command)
    assert "wrong number of arguments" in text


def test_512_megabytes_of_prompt(server, filled):
    """The largest argument Redis takes; refused without being hashed, and the memory comes back."""
    before, used = server.digest(), server.used_memory()
    parts = encode(["LLMCACHE.SETSEM", "faq", "PROMPT", b"", "RESPONSE", "r"]).split(b"$0\r\n\r\n")
    chunk = b"p" * (8 << 20)
    with server.wire() as wire:
        wire.socket.sendall(parts[0] + b"$%d\r\n" % (512 << 20))
        for _ in range(64):
            wire.socket.sendall(chunk)
        wire.socket.sendall(b"\r\n" + parts[1])
        reply = wire.read()
        assert reply.word == "TOOBIG", reply
        assert wire("PING") == "PONG"
    assert server.digest() == before
    assert server.used_memory() < used + (64 << 20)


def test_nul_bytes_are_bytes_like_any_other(server, filled):
    prompt = b"a\x00b\x00"
    filled.setsem(prompt, b"\x00", unit(2, DIM), scope=b"\x00s", context=b"c\x00", tags=[b"\x00"])
    hit = filled.getsem(prompt=prompt, scope=b"\x00s", context=b"c\x00")
    assert (hit.prompt, hit.response, hit.tags) == (prompt, b"\x00", [b"\x00"])
    assert filled.get(b"a", scope=b"\x00s", context=b"c\x00") is None
    name = b"cache\x00name"
    binary = Cache(filled.client, name)
    binary.set("p", "r")
    assert binary.get("p") == b"r"
    assert binary.client.exists(name) == 1


def test_error_texts_do_not_repeat_what_users_asked(server, filled):
    """Prompts may be private: no error and no line of the log holds one."""
    secret = "my-social-security-number"
    with server.wire() as wire:
        replies = [
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", secret, "RESPONSE", secret, "VALUES", 2, 1, 2),
            wire("LLMCACHE.GETSEM", "faq", "PROMPT", secret, "COUNT", 0),
            wire("LLMCACHE.GETSEM", "faq", *GOOD, "SCOPE", secret, "FILTER", "("),
        ]
    assert all(isinstance(reply, Failure) and secret not in reply.text for reply in replies)
    assert secret not in server.log()
