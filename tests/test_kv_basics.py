"""KVCHUNK from redis-py and redis-cli: store, match, fetch, inspect, remove."""

import random
import subprocess

import pytest
from harness.kv import SEGMENT, Kv, blob, cut, digests, payload
from harness.wire import Failure


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def kv(server, request):
    namespace = Kv(server.client(request.param))
    namespace.create()
    return namespace


def test_a_prompt_goes_in_and_comes_out(kv):
    tokens = list(range(14))
    for end in (4, 8, 12):
        assert kv.put(tokens[:end], payload(end), meta={"end": end}) == "STORED"
    assert kv.run("MATCH", "TOKENS", blob(tokens)) == [3, 12, None]
    matched, returned, following, chunks = kv.fetch(tokens)
    assert (matched, returned, following) == (3, 3, 3)
    assert [chunk[0] for chunk in chunks] == kv.digests(tokens)
    assert [chunk[3] for chunk in chunks] == [payload(end) for end in (4, 8, 12)]
    assert chunks[1][1:3] == (b'{"end": 8}', 1_000)
    assert kv.match([0, 1, 2, 3, 9, 9, 9, 9]) == 1
    assert kv.match([9, 1, 2, 3]) == 0


def test_mput_stores_many_and_missing_names_the_rest(kv):
    tokens = list(range(20))
    assert kv.missing(tokens) == [0, 1, 2, 3, 4]
    assert kv.mput(tokens, [payload(i) for i in range(3)]) == ["STORED"] * 3
    assert kv.missing(tokens) == [3, 4]
    assert kv.mput(tokens, [payload(4)], start=4) == ["STORED"]
    assert kv.missing(tokens) == [3]
    assert kv.match(tokens) == 3
    assert kv.mput(tokens, [b"x", payload(3)], start=2, nx=True) == ["EXISTS", "STORED"]
    assert kv.match(tokens) == 5
    assert [chunk[3] for chunk in kv.fetch(tokens)[3]] == [payload(i) for i in range(5)]


def test_digests_of_the_callers_own(kv):
    names = [b"\x00", b"\xff" * 64, b"third"]
    assert kv.put_hash(names[0], b"a") == "STORED"
    assert kv.put_hash(names[1], b"b", parent=names[0]) == "STORED"
    assert kv.run("MATCH", "HASHES", 3, *names)[:2] == [2, 8]
    each = [part for data in (b"A", b"B", b"C") for part in (1, data)]
    assert kv.run("MPUT", "HASHES", 3, *names, "PAYLOADS", 3, *each) == [b"STORED"] * 3
    found = kv.run("FETCH", "HASHES", 3, *names)[3]
    assert [(bytes.fromhex(d.decode()), b"".join(s)) for d, _, _, s in found] == list(zip(names, (b"A", b"B", b"C")))
    assert kv.run("MATCH", "HASHES", 2, names[2], names[1])[0] == 2, "each has all before it"


def test_paging_by_bytes_and_count(kv):
    tokens = list(range(40))
    kv.mput(tokens, [payload(i) for i in range(10)])
    seen, start = [], 0
    while True:
        matched, returned, start, chunks = kv.fetch(tokens, "FROM", start, "MAXBYTES", 3_500)
        assert matched == 10 and returned == len(chunks)
        seen += [chunk[3] for chunk in chunks]
        if start >= matched:
            break
        assert returned == 3
    assert seen == [payload(i) for i in range(10)]
    assert kv.fetch(tokens, "MAXBYTES", 1)[1:3] == (1, 1), "one chunk always passes"
    assert kv.fetch(tokens, "COUNT", 4, "FROM", 8)[1:3] == (2, 10)
    assert kv.fetch(tokens, "FROM", 10)[:3] == (10, 0, 10)


@pytest.mark.parametrize("size", [1, 63, 5_000, SEGMENT, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_payloads_of_any_size_and_ranges_of_them(kv, size):
    data = payload(size, size)
    assert kv.put([1, 2, 3, 4], cut(data, max(1, size // 3))) == "STORED"
    (chunk,) = kv.fetch([1, 2, 3, 4])[3]
    assert chunk[2:] == (size, data)
    rng = random.Random(size)
    for _ in range(8):
        offset, length = rng.randrange(size + 10), rng.randrange(1, size + 10)
        (chunk,) = kv.fetch([1, 2, 3, 4], "RANGE", offset, length)[3]
        assert chunk[2:] == (size, data[offset : offset + length])


def test_get_shows_what_a_chunk_is(kv):
    kv.put([1, 2, 3, 4], b"first")
    kv.put([1, 2, 3, 4, 5, 6, 7, 8], b"second", meta={"layer": 1}, prio=3, px=100_000)
    first, second = kv.digests(range(1, 9))
    about, size, data = kv.get(second)
    assert (size, data) == (6, b"second")
    assert about["parent"] == first.encode()
    assert (about["position"], about["prio"], about["pinned"]) == (1, 3, 0)
    assert about["meta"] == b'{"layer": 1}'
    assert about["deadline"] > 0
    assert kv.get(first)[0]["deadline"] == 0, "stored without one"
    assert kv.get(second, "NOPAYLOAD")[1:] == (6, b"")
    assert kv.get("00" * 32) is None


def test_what_follows_a_removed_chunk_is_a_miss_until_it_is_back(kv):
    tokens = list(range(16))
    kv.mput(tokens, [payload(i) for i in range(4)])
    names = kv.digests(tokens)
    assert kv.run("DEL", names[1], "00") == 1
    assert kv.match(tokens) == 1
    assert kv.get(names[2]) is None and kv.get(names[3]) is None
    assert kv.missing(tokens) == [1]
    assert kv.info()["orphans"] == 2
    kv.put(tokens[:8], b"back")
    assert kv.match(tokens) == 4
    assert kv.get(names[3])[2] == payload(3)
    assert kv.run("DEL", names[1], "SUBTREE") == 3
    assert kv.info()["chunks"] == 1


def test_filter_ends_the_prefix(kv):
    tokens = list(range(12))
    for end in (4, 8, 12):
        kv.put(tokens[:end], b"x", meta={"end": end})
    assert kv.match(tokens, filter=".end < 9") == 2
    assert kv.match(tokens, filter=".end > 9") == 0
    assert len(kv.scan()) == 3
    assert len(kv.run("SCAN", 0, "FILTER", ".end > 4")[1]) == 2


def test_salts_separate_tenants(kv):
    kv.put([1, 2, 3, 4], b"one", salt="one")
    assert kv.match([1, 2, 3, 4]) == 0
    assert kv.run("MATCH", "TOKENS", blob([1, 2, 3, 4]), "SALT", "two")[0] == 0
    assert kv.run("MATCH", "TOKENS", blob([1, 2, 3, 4]), "SALT", "one")[0] == 1


def test_find_sees_chunks_at_any_offset(kv):
    kv.mput(list(range(8)), [b"a", b"bb"])
    first, second = (name.encode() for name in kv.digests(range(8)))
    prompt = [9, 9, 9, 4, 5, 6, 7, 9, 0, 1, 2, 3, 4, 5, 6, 7]
    assert kv.run("FIND", "TOKENS", blob(prompt)) == [[3, 4, second, 2], [8, 0, first, 1], [12, 4, second, 2]]
    assert kv.run("FIND", "TOKENS", blob(prompt), "MINRUN", 2) == [[8, 0, first, 1], [12, 4, second, 2]]
    assert kv.run("FIND", "TOKENS", blob(prompt), "STRIDE", 4) == [[8, 0, first, 1], [12, 4, second, 2]]
    assert kv.client.dbsize() == 3, "FIND makes no keys"


def test_stats_and_scan(kv):
    tokens = list(range(400))
    kv.mput(tokens, [b"x"] * 100)
    kv.match(tokens + [0] * 400)
    assert sorted(kv.scan(7)) == sorted(kv.digests(tokens))
    stats = kv.stats()
    assert (stats["stored"], stats["asked"], stats["matched"]) == (100, 200, 100)
    assert float(stats["hit_ratio"]) == 0.5
    kv.run("STATS", "RESET")
    assert kv.stats()["stored"] == 0


def test_ten_thousand_prompts_have_hashlibs_digests(server):
    rng = random.Random(7)
    client = server.client()
    sizes = {1: "one", 4: "four", 16: "sixteen", 256: "many"}
    for chunk, name in sizes.items():
        client.execute_command("KVCHUNK.CREATE", name, "CHUNK", chunk, "MODEL", "m", "DTYPE", "bf16", "SHAPE", 2, 1, chunk, "SALT", "s")
    with server.wire() as wire:
        wanted, calls = [], []
        for _ in range(10_000):
            chunk = rng.choice(list(sizes))
            tokens = [rng.randrange(1 << 32) for _ in range(rng.randrange(3 * chunk + 2))]
            salt = rng.choice([None, b"", rng.randbytes(9)])
            calls.append(["KVCHUNK.DIGESTS", sizes[chunk], "TOKENS", blob(tokens), *([] if salt is None else ["SALT", salt])])
            given = dict(model=b"m", dtype=b"bfloat16", shape=(1, chunk))
            wanted.append(digests(tokens, chunk, b"s" if salt is None else salt, **given))
        replies = wire.pipeline(calls)
    assert [[name.decode() for name in reply] for reply in replies] == wanted


def test_redis_cli_sees_chunks_as_keys(server, redis_cli):
    kv = Kv(server.client(), "vllm@llama-3.1-8b@1@0")
    kv.create(model="llama-3.1-8b", dtype="bf16")
    kv.put([1, 2, 3, 4], b"payload", meta={"by": "cli"})
    (digest,) = kv.scan()

    def cli(*arguments):
        done = subprocess.run([redis_cli, "-p", str(server.port), *arguments], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        return done.stdout

    listed = cli("--scan", "--pattern", "*llama*").splitlines()
    assert sorted(listed) == sorted(["vllm@llama-3.1-8b@1@0", "{vllm@llama-3.1-8b@1@0}@" + digest])
    shown = cli("KVCHUNK.GET", "vllm@llama-3.1-8b@1@0", digest, "NOPAYLOAD")
    assert "bfloat16" in shown and '{"by": "cli"}' in shown and "payload" not in shown
    assert cli("TYPE", "{vllm@llama-3.1-8b@1@0}@" + digest).strip() == "llm-kvchk"
    assert cli("SCAN", "0", "TYPE", "llm-kvnsp").splitlines()[1:] == ["vllm@llama-3.1-8b@1@0"]


def test_reads_of_a_namespace_that_is_not_there_are_misses(server):
    with server.wire() as wire:
        tokens = blob(range(512))
        assert wire("KVCHUNK.MATCH", "no", "TOKENS", tokens) == [0, 0, None]
        assert wire("KVCHUNK.FETCH", "no", "TOKENS", tokens) == [0, 0, 0, []]
        assert wire("KVCHUNK.GET", "no", "00") is None
        assert wire("KVCHUNK.MISSING", "no", "TOKENS", tokens) == [0, 1]
        assert wire("KVCHUNK.SCAN", "no", 0) == [b"0", []]
        assert wire("KVCHUNK.DEL", "no", "00") == 0
        assert wire("KVCHUNK.INFO", "no").word == "NOCACHE"
        assert wire("DBSIZE") == 0
        wire("SET", "text", "x")
        for command in (["MATCH", "TOKENS", tokens], ["INFO"], ["PUT", "TOKENS", tokens, "PAYLOAD", 1, "x"]):
            reply = wire(f"KVCHUNK.{command[0]}", "text", *command[1:])
            assert isinstance(reply, Failure) and reply.word == "WRONGTYPE"
        assert wire("KVCHUNK.PUT", "auto", "TOKENS", tokens, "PAYLOAD", 1, "x") == b"STORED"
        wire("CONFIG", "SET", "llmcache.auto-create", "no")
        assert wire("KVCHUNK.PUT", "no", "TOKENS", tokens, "PAYLOAD", 1, "x").word == "NOCACHE"
        wire("CONFIG", "SET", "llmcache.auto-create", "yes")


def test_create_twice(kv):
    assert kv.create() == b"OK"
    with pytest.raises(Exception, match="other settings"):
        kv.create(ttl=5)


def test_every_command_takes_the_hex_digits_that_replies_have(kv):
    """A digest of the caller's own, stored in one form, is found in the other; so are those of a prompt."""
    ids = [b"\x00\xff", b"raw \r\n", b"x" * 64]
    hexes = [i.hex() for i in ids]
    assert kv.run("PUT", "DIGEST", hexes[0], "PAYLOAD", 1, "a") == b"STORED"
    assert kv.run("PUT", "DIGEST", hexes[1], "PARENT", hexes[0], "PAYLOAD", 1, "b") == b"STORED"
    assert kv.run("PUT", "HASH", ids[1], "PARENT", ids[0], "PAYLOAD", 1, "b", "NX") == b"EXISTS"
    assert kv.run("MISSING", "HASHES", 3, *ids) == kv.run("MISSING", "DIGESTS", 3, *hexes) == [2]
    stored = kv.run("MPUT", "DIGESTS", 3, *hexes, "FROM", 2, "PAYLOADS", 1, 1, "c")
    assert stored == [b"STORED"]
    assert kv.run("MATCH", "DIGESTS", 3, *hexes)[0] == kv.run("MATCH", "HASHES", 3, *ids)[0] == 3
    fetched = kv.run("FETCH", "DIGESTS", 3, *hexes)
    assert fetched == kv.run("FETCH", "HASHES", 3, *ids)
    assert [chunk[0].decode() for chunk in fetched[3]] == hexes
    for chunk in fetched[3]:
        assert kv.run("GET", chunk[0]) is not None
    # What DIGESTS returns of a prompt is taken as well.
    prompt = list(range(12))
    assert kv.mput(prompt, [b"1", b"2", b"3"]) == ["STORED"] * 3
    names = kv.run("DIGESTS", "TOKENS", blob(prompt))
    assert kv.run("MATCH", "DIGESTS", 3, *names)[0] == 3 == len(names)


def test_packed_hashes_are_those_of_a_list(kv):
    """One argument names what a list of them does, in every command that takes a list; in slices too."""
    names = [n.to_bytes(3, "big") for n in range(2_000)]
    packed = ("PACKED", 3, b"".join(names))
    assert kv.run("MPUT", "PACKED", 3, b"".join(names[:4]), "FROM", 1, "PAYLOADS", 2, 1, "a", 1, "b", "LOOSE") == [b"STORED"] * 2
    assert kv.run("MPUT", "PACKED", 3, names[1_999], "PAYLOADS", 1, 1, "c") == [b"STORED"]
    for command in (["MATCH", "SPARSE"], ["MATCH"], ["MISSING"], ["FETCH", "SPARSE", "COUNT", 5], ["FETCH"]):
        name, *options = command
        listed = kv.run(name, "HASHES", len(names), *names, *options)
        assert kv.run(name, *packed, *options) == listed, command
        assert kv.run(name, *options, *packed) == listed, command
    told = kv.run("MATCH", *packed, "SPARSE", "LEASE", 60_000)[3][0]
    bits = int.from_bytes(told[2], "big")
    assert [at for at in range(2_000) if bits >> (1_999 - at) & 1] == [1, 2, 1_999]
    assert kv.run("RELEASE", told[1]) == 3
    # Their bytes may be anything, the words of options too, and a namespace that is not there has none of them.
    assert kv.run("PUT", "HASH", "SPARSE", "PAYLOAD", 1, "x") == b"STORED"
    assert kv.run("MATCH", "PACKED", 6, "SPARSE")[0] == 1
    assert kv.client.execute_command("KVCHUNK.MATCH", "none", "PACKED", 6, "SPARSE")[0] == 0
