"""BUDGET, leases, pins, priorities, the share of maxmemory, and Redis' own eviction."""

import random
import threading

import pytest
import redis
from harness.kv import Kv, blob, cut, payload
from harness.waiting import wait_until

SIZE = 20_000


def filled(kv, chains=10, length=5):
    """Chains of their own, each of `length` chunks."""
    prompts = [[1_000 * chain + at for at in range(4 * length)] for chain in range(chains)]
    for prompt in prompts:
        assert kv.mput(prompt, [payload((prompt[0], at), SIZE) for at in range(length)]) == ["STORED"] * length
    return prompts


@pytest.fixture
def kv(server):
    return Kv(server.client())


def test_the_budget_holds_and_prefixes_stay_whole(kv):
    kv.create(budget=SIZE * 25)
    prompts = filled(kv, 12)
    info = kv.info()
    assert info["bytes"] <= SIZE * 25 < info["bytes"] + 3 * SIZE
    assert info["orphans"] == 0
    assert info["chunks"] == sum(kv.match(prompt) for prompt in prompts), "no chunk without its prefix"
    assert kv.match(prompts[-1]) == 5, "the last one stored is whole"
    assert kv.client.dbsize() == info["chunks"] + 1
    assert kv.stats()["evicted"] == 60 - info["chunks"]


def test_what_is_used_stays(kv):
    kv.create(budget=SIZE * 30)
    prompts = filled(kv, 5)
    for _ in range(5):
        assert kv.fetch(prompts[2])[0] == 5
    for chain in range(50, 70):
        prompt = [1_000 * chain + at for at in range(20)]
        kv.mput(prompt, [payload(chain, SIZE)] * 5)
    assert kv.match(prompts[2]) == 5
    assert kv.match(prompts[0]) < 5


def test_lowering_the_budget_evicts_at_once_leaves_first(kv):
    kv.create()
    prompts = filled(kv)
    used = kv.info()["bytes"]
    evicted = kv.run("BUDGET", used // 2)
    assert kv.info()["bytes"] <= used // 2
    assert kv.info()["chunks"] == 50 - evicted == sum(kv.match(prompt) for prompt in prompts)
    assert kv.run("BUDGET", 1) == 50 - evicted
    assert kv.info()["bytes"] == 0
    assert kv.put([1, 2, 3, 4], b"x") == "REJECTED budget"
    assert kv.client.dbsize() == 1, "a rejected chunk leaves nothing"
    assert kv.run("BUDGET", 0) == 0
    assert kv.put([1, 2, 3, 4], b"x") == "STORED"


def test_leases_hold_until_released_or_lapsed(kv):
    kv.create()
    prompts = filled(kv, 4)
    lease = kv.lease(prompts[1], 60_000)
    assert 0 < int(lease) < 1 << 53
    assert kv.run("BUDGET", 1) == 15
    assert kv.match(prompts[1]) == 5 and kv.info()["chunks"] == 5
    assert kv.put(prompts[0][:4], b"x" * SIZE) == "REJECTED budget"
    assert kv.run("RELEASE", lease) == 5 and kv.run("RELEASE", lease) == 0
    wait_until(lambda: kv.info()["chunks"] == 0, "the background goes back under the budget")
    kv.run("BUDGET", 0)
    prompts = filled(kv, 2)
    names = kv.digests(prompts[0])
    held, lease = kv.run("LEASE", 300, names[4], "00")
    assert held == 1 and int(lease) > 0
    assert kv.run("BUDGET", 1) == 5, "what is before a leased chunk stays too"
    assert kv.match(prompts[0]) == 5
    wait_until(lambda: kv.info()["chunks"] == 0, "the lease lapses")
    assert kv.run("LEASE", 300, "00") == [0, None]


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_lease_is_named_by_a_string_and_released_by_either_form(server, protocol):
    kv = Kv(server.client(resp=protocol))
    kv.create()
    (prompt,) = filled(kv, 1)
    names = kv.digests(prompt)
    named = [
        kv.lease(prompt, 60_000),
        kv.run("LEASE", 60_000, *names)[1],
        kv.run("FETCH", "TOKENS", blob(prompt), "LEASE", 60_000)[4],
    ]
    assert all(type(lease) is bytes and lease.isdigit() for lease in named), named
    for number, lease in enumerate(named):
        assert kv.run("RELEASE", lease if number % 2 else int(lease)) == len(names)
    assert kv.info()["leases"] == 0


def test_a_page_is_leased_with_its_fetch(kv):
    kv.create()
    (prompt,) = filled(kv, 1)
    reply = kv.run("FETCH", "TOKENS", blob(prompt), "COUNT", 1, "LEASE", 60_000)
    assert reply[0] == 5 and len(reply) == 5
    assert kv.run("BUDGET", 1) == 0
    assert kv.run("RELEASE", reply[4]) == 5


def test_pins_hold_are_saved_and_can_be_let_go(fleet):
    server = fleet.launch()
    kv = Kv(server.client())
    kv.create()
    prompts = filled(kv, 3)
    names = kv.digests(prompts[0])
    assert kv.run("PIN", names[2]) == 1 and kv.run("PIN", names[2]) == 0
    assert kv.run("PIN", names[2], "SUBTREE") == 2
    assert kv.run("PIN", kv.digests(prompts[1])[1], "PREFIX") == 2
    kv.run("BUDGET", 1)
    assert [kv.match(prompt) for prompt in prompts] == [5, 2, 0]
    server.client().save()
    server.restart()
    kv = Kv(server.client())
    assert kv.info()["pinned"] == 5
    assert [kv.match(prompt) for prompt in prompts] == [5, 2, 0]
    assert kv.run("UNPIN", names[0], "SUBTREE") == 3
    wait_until(lambda: kv.match(prompts[0]) == 0, "what was let go is evicted")
    assert kv.match(prompts[1]) == 2


def test_a_priority_outweighs_uses(kv):
    kv.create(budget=SIZE * 12)
    dear, cheap = [1, 2, 3, 4], [5, 6, 7, 8]
    kv.put(dear, payload("dear", SIZE), prio=8)
    kv.put(cheap, payload("cheap", SIZE))
    kv.fetch(cheap)
    for at in range(300):
        kv.put([100 + at] * 4, payload(at, SIZE))
    assert (kv.match(dear), kv.match(cheap)) == (1, 0)


def test_namespaces_share_a_part_of_maxmemory(fleet):
    server = fleet.launch(maxmemory="40mb", maxmemory_policy="noeviction", llmcache__kv_share=25)
    kv, other = Kv(server.client()), Kv(server.client(), "other")
    kv.create()
    other.create()
    wait_until(lambda: kv.info()["room"] > 0, "the server's maxmemory is known")
    for at in range(300):
        kv.put([at] * 4, payload(at, 50_000))
        other.put([at] * 4, payload(at, 50_000))
    total = kv.info()["bytes"] + other.info()["bytes"]
    assert 8_000_000 < total <= 40 * 2**20 // 4
    assert kv.stats()["rejected"] < 300


@pytest.mark.parametrize("policy", ["allkeys-lfu", "allkeys-lru", "volatile-lfu", "volatile-ttl", "allkeys-random"])
def test_the_servers_own_eviction_never_gives_half_a_prefix(fleet, policy):
    server = fleet.launch(maxmemory="24mb", maxmemory_policy=policy, llmcache__kv_share=0, llmcache__orphan_grace=1)
    kv = Kv(server.client())
    kv.create(ttl=1_000)
    rng = random.Random(policy)
    prompts = [[1_000 * chain + at for at in range(20)] for chain in range(400)]
    stored = refused = 0
    for prompt in prompts:
        try:
            stored += kv.mput(prompt, [payload((prompt[0], at), SIZE) for at in range(5)]).count("STORED")
        except redis.exceptions.OutOfMemoryError:
            refused += 1
        hot = rng.choice(prompts[:10])
        kv.fetch(hot)
    assert stored > 500
    assert refused < 40, "leaves get their deadlines back in time for volatile-*"
    server.client().config_set("maxmemory", 0)
    assert int(server.info("stats")["evicted_keys"]) > 0
    for prompt in prompts:
        matched, _, _, chunks = kv.fetch(prompt)
        assert [chunk[3] for chunk in chunks] == [payload((prompt[0], at), SIZE) for at in range(matched)]
    if policy.startswith("volatile"):
        assert kv.info()["orphans"] == 0, "only leaves carry a deadline"
    info = kv.info()
    assert info["chunks"] == len(kv.scan(1_000))


def test_a_lease_and_concurrent_storms(server):
    """Nothing leased goes while others store; what is fetched is whole."""
    kv = Kv(server.client())
    kv.create(budget=SIZE * 40)
    (kept,) = filled(kv, 1)
    kv.lease(kept, 60_000)
    failures = []

    def storm(seed):
        try:
            own = Kv(server.client())
            for at in range(150):
                prompt = [seed * 10_000 + at * 10 + i for i in range(8)]
                own.mput(prompt, [payload((seed, at, i), SIZE) for i in range(2)])
                matched, _, _, chunks = own.fetch(prompt)
                assert [c[3] for c in chunks] == [payload((seed, at, i), SIZE) for i in range(matched)]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in (1, 2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures
    assert kv.match(kept) == 5
    assert kv.info()["bytes"] <= SIZE * 40


@pytest.mark.parametrize("mib", [1, 2, 16, 32])
@pytest.mark.parametrize("way", ["whole", "segments"])
def test_memory_of_a_payload_byte(fleet, mib, way):
    server = fleet.launch()
    kv = Kv(server.client())
    kv.create()
    count = 64 // mib
    size = mib << 20
    before = server.used_memory()
    with server.wire() as wire:
        for at in range(count):
            data = payload(at, size)
            parts = cut(data) if way == "segments" else [data]
            assert wire("KVCHUNK.PUT", "ns", "TOKENS", blob([at] * 4), "PAYLOAD", len(parts), *parts) == b"STORED"
    server.close_clients()
    kv = Kv(server.client())
    used = wait_until(lambda: (u := server.used_memory() - before) <= 1.03 * count * size and u, "1.03 bytes a byte")
    told = sum(kv.client.memory_usage(key) for key in kv.keys())
    assert told == pytest.approx(used, rel=0.02)
    assert told <= 1.03 * count * size
    assert kv.info()["bytes"] == pytest.approx(told, rel=0.01)


@pytest.mark.parametrize("policy", ["allkeys-lfu", "allkeys-lru"])
def test_a_chunk_never_looks_less_used_than_what_follows(fleet, policy):
    server = fleet.launch(maxmemory_policy=policy, lfu_log_factor=0)
    kv = Kv(server.client())
    kv.create()
    prompt = list(range(24))
    names = kv.digests(prompt)
    rng = random.Random(1)

    def counters():
        word = "FREQ" if policy.endswith("lfu") else "IDLETIME"
        return [kv.client.execute_command("OBJECT", word, kv.key(name)) for name in names]

    kv.mput(prompt, [b"x"] * 6)
    for step in range(40):
        match rng.randrange(4):
            case 0:
                kv.fetch(prompt, "FROM", rng.randrange(6), "COUNT", 1)
            case 1:
                kv.run("TOUCH", rng.choice(names))
            case 2:
                kv.get(rng.choice(names))
            case 3:
                end = 4 * rng.randrange(1, 7)
                kv.put(prompt[:end], b"y")
        seen = counters()
        if policy.endswith("lfu"):
            assert seen == sorted(seen, reverse=True), (step, seen)
        else:
            # Idle time, to the second; two looks may fall into two seconds.
            assert all(a <= b + 1 for a, b in zip(seen, seen[1:])), (step, seen)
    kv.lease(prompt, 10_000)
    if policy.endswith("lfu"):
        assert set(counters()) == {255}


def test_an_evicted_namespace_key_is_put_back(fleet):
    """allkeys-random takes any key; the namespace and its tree live on."""
    server = fleet.launch(maxmemory="16mb", maxmemory_policy="allkeys-random", llmcache__kv_share=0)
    kv = Kv(server.client())
    kv.create(model="kept")
    uid = kv.info()["uid"]
    for at in range(3_000):
        kv.put([at] * 4, payload(at, 20_000))
    assert int(server.info("stats")["evicted_keys"]) > 1_000
    assert kv.info()["uid"] == uid and kv.info()["model"] == b"kept"
    server.client().config_set("maxmemory", 0)
    assert sum(kv.match([at] * 4) for at in range(3_000)) == len(kv.scan(1_000)) > 100


def test_info_sums_over_all_namespaces(server):
    for name in ("a", "b"):
        kv = Kv(server.client(), name)
        kv.create()
        kv.mput(list(range(8)), [b"x" * 100] * 2)
        kv.match(list(range(16)))
    info = server.info()
    assert (info["llmcache_namespaces"], info["llmcache_chunks"]) == ("2", "4")
    sums = (info["llmcache_chunk_payload_bytes"], info["llmcache_chunks_asked"], info["llmcache_chunks_matched"])
    assert sums == ("400", "8", "4")
