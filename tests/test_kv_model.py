"""The longest prefix against a naive one: random stores, deadlines, removals by every way there is."""

import random
import time

import pytest
from harness.kv import Kv, payload
from harness.waiting import wait_until

CHUNK = 2


class Naive:
    """Chunks by the whole prompt they end."""

    def __init__(self):
        self.chunks: dict[tuple, tuple[bytes, float]] = {}

    def forget_what_is_due(self, now):
        self.chunks = {prompt: chunk for prompt, chunk in self.chunks.items() if chunk[1] > now}

    def put(self, prompt, data, deadline):
        later = [d for p, (_, d) in self.chunks.items() if p[: len(prompt)] == prompt and len(p) == len(prompt) + CHUNK]
        deadline = max([deadline, *later])
        self.chunks[prompt] = (data, deadline)
        for end in range(len(prompt) - CHUNK, 0, -CHUNK):
            if prompt[:end] not in self.chunks:
                break
            data, own = self.chunks[prompt[:end]]
            self.chunks[prompt[:end]] = (data, max(own, deadline))

    def run(self, prompt, now):
        found = []
        for end in range(CHUNK, len(prompt) + 1, CHUNK):
            chunk = self.chunks.get(prompt[:end])
            if chunk is None or chunk[1] <= now:
                break
            found.append(chunk[0])
        return found


def random_prompt(rng):
    """Few tokens, so that prompts share prefixes."""
    return tuple(rng.randrange(3) for _ in range(CHUNK * rng.randrange(1, 6)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["noeviction", "volatile-lfu"])
def test_match_and_fetch_agree_with_the_model(fleet, seed, policy):
    server = fleet.launch(maxmemory_policy=policy, maxmemory="1gb", llmcache__sweep_interval_ms=1)
    rng, client, naive = random.Random(seed), server.client(), Naive()
    kv = Kv(client, chunk=CHUNK)
    kv.create()
    for step in range(1_500):
        prompt = random_prompt(rng)
        match rng.randrange(12):
            case 0 | 1 | 2 | 3:
                data = payload((seed, step), rng.randrange(1, 200))
                if rng.random() < 0.3:
                    ms = rng.randrange(30, 200)
                    settle_edges(naive)
                    at = int(time.time() * 1_000) + ms
                    told = kv.put(prompt, data, pxat=at)
                    if told == "STORED":
                        naive.put(prompt, data, at / 1_000)
                    else:
                        # A slow machine comes too late with it.
                        assert told == "REJECTED expired" and time.time() * 1_000 >= at
                else:
                    settle_edges(naive)
                    assert kv.put(prompt, data) == "STORED"
                    naive.put(prompt, data, float("inf"))
            case 4:
                name = kv.digests(prompt)[-1]
                kv.run("DEL", name)
                naive.chunks.pop(prompt, None)
            case 5:
                way = rng.choice(["delete", "unlink"])
                getattr(client, way)(kv.key(kv.digests(prompt)[-1]))
                naive.chunks.pop(prompt, None)
            case 6 if rng.random() < 0.2:
                settle_edges(naive, 0.1)
                kv.run("DEL", kv.digests(prompt)[-1], "SUBTREE")
                if kv_had(naive, prompt):
                    for other in [p for p in naive.chunks if connected(naive, prompt, p)]:
                        naive.chunks.pop(other)
            case 7 if rng.random() < 0.3:
                time.sleep(rng.random() / 50)
            case _:
                check(kv, naive, prompt)
    for _ in range(300):
        check(kv, naive, random_prompt(rng))
    assert server.info("keyspace")
    client.execute_command("DEBUG", "RELOAD")
    for _ in range(300):
        check(kv, naive, random_prompt(rng))


def settle_edges(naive, seconds=0.004):
    """Waits until no deadline is so near that server and model could see it differently."""
    while any(-0.004 < deadline - time.time() < seconds for _, deadline in naive.chunks.values()):
        time.sleep(0.001)
    naive.forget_what_is_due(time.time())


def kv_had(naive, prompt):
    chunk = naive.chunks.get(prompt)
    return chunk is not None and chunk[1] > time.time()


def connected(naive, top, prompt):
    """Whether everything between the two is there."""
    return prompt[: len(top)] == top and all(prompt[:end] in naive.chunks for end in range(len(top), len(prompt), CHUNK))


def check(kv, naive, prompt):
    start = time.time()
    matched, returned, _, chunks = kv.fetch(list(prompt))
    most, least = naive.run(prompt, start - 0.003), naive.run(prompt, time.time() + 0.003)
    assert len(least) <= matched <= len(most) and returned == matched
    assert [chunk[3] for chunk in chunks] == most[:matched]
    if len(least) == matched:
        also = kv.match(list(prompt))
        assert len(naive.run(prompt, time.time() + 0.003)) <= also <= matched


def test_inner_chunks_live_as_long_as_what_follows_and_leaves_carry_the_deadline(server):
    client = server.client()
    kv = Kv(client)
    kv.create()
    tokens = list(range(12))
    names = kv.digests(tokens)
    keys = [kv.key(name) for name in names]
    kv.put(tokens[:4], b"a", px=100_000)
    assert client.pttl(keys[0]) > 0
    kv.put(tokens[:8], b"b", px=400_000)
    assert client.pttl(keys[0]) == -1 and client.pttl(keys[1]) > 300_000
    assert kv.get(names[0])[0]["deadline"] == kv.get(names[1])[0]["deadline"]
    kv.put(tokens, b"c", px=2_000)
    assert client.pttl(keys[1]) == -1 and 0 < client.pttl(keys[2]) <= 2_000
    wait_until(lambda: client.dbsize() == 3, "the leaf expires")
    wait_until(lambda: client.pttl(keys[1]) > 300_000, "the new leaf has its deadline again")
    assert kv.match(tokens) == 2
    kv.put(tokens, b"c")
    assert kv.get(names[0])[0]["deadline"] == 0, "no deadline is the latest"
    assert client.pttl(keys[1]) == -1


def test_a_ttl_of_the_namespace_ends_chunks(server):
    kv = Kv(server.client())
    kv.create(ttl=3)
    tokens = list(range(16))
    kv.mput(tokens, [b"x"] * 4)
    assert kv.match(tokens) == 4
    wait_until(lambda: kv.match(tokens) == 0, "all is past its deadline")
    wait_until(lambda: kv.client.dbsize() == 1, "and removed", 15)
    assert kv.info()["chunks"] == 0 and kv.info()["bytes"] == 0


def test_chunks_of_a_deleted_namespace_are_reaped_and_never_answer_for_a_new_one(server):
    client = server.client()
    kv = Kv(client)
    kv.create()
    tokens = list(range(4_000))
    kv.mput(tokens, [b"x"] * 1_000)
    client.delete("ns")
    kv.create()
    assert kv.match(tokens) == 0
    assert kv.get(kv.digests(tokens)[0]) is None
    wait_until(lambda: client.dbsize() == 1, "the old chunks are gone")
    assert kv.mput(tokens[:8], [b"new"] * 2) == ["STORED"] * 2
    assert kv.match(tokens) == 2


def test_orphans_are_reaped_after_their_grace(fleet):
    server = fleet.launch(llmcache__orphan_grace=1)
    kv = Kv(server.client())
    kv.create()
    tokens = list(range(40))
    kv.mput(tokens, [b"x"] * 10)
    server.client().delete(kv.key(kv.digests(tokens)[3]))
    assert kv.info()["orphans"] == 6
    wait_until(lambda: kv.info()["chunks"] == 3, "the orphans are gone")
    assert kv.client.dbsize() == 4


def test_a_chunk_renamed_or_moved_away_is_a_miss(server):
    client = server.client()
    kv = Kv(client)
    kv.create()
    kv.put([1, 2, 3, 4], b"x")
    key = kv.key(kv.digests([1, 2, 3, 4])[0])
    client.rename(key, "{ns}elsewhere")
    assert kv.match([1, 2, 3, 4]) == 0
    client.delete("{ns}elsewhere")
    kv.put([1, 2, 3, 4], b"y")
    client.rename(key, "{ns}elsewhere")
    client.rename("{ns}elsewhere", key)
    assert kv.fetch([1, 2, 3, 4])[3][0][3] == b"y"
    assert kv.info()["chunks"] == 1
    client.rename("ns", "other")
    assert Kv(client, "other").match([1, 2, 3, 4]) == 1
    client.move(key, 1)
    assert Kv(client, "other").match([1, 2, 3, 4]) == 0
    client.flushall()
    assert Kv(client, "other").match([1, 2, 3, 4]) == 0
