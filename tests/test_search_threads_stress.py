"""Many clients search in threads while others store, replace, invalidate, expire, delete, flush and restore: every
answer must be an entry that lived at some moment between request and reply, with the response and the
similarity that belong to it."""

import itertools
import random
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from harness.cache import Cache
from harness.replies import hits
from harness.server import settle_memory
from harness.vectors import fp32, near, normalised, units
from harness.waiting import wait_until
from harness.wire import Failure

DIM = 64
PROMPTS = 1_200
SECONDS = 9
SEARCHERS = 4
# Of float vectors of 32 bits, whose similarity is exact up to rounding.
ROUNDING = 1e-4


@dataclass
class Life:
    """An entry: from when on it may be answered, until when at the latest."""

    prompt: int
    response: bytes
    vector: np.ndarray
    born: float
    dead: float = float("inf")


@dataclass
class Model:
    """What lived when. Times are those of the test: an entry may be answered from the moment its command was sent, and
    until the reply of the command that ended it was read."""

    lives: dict[bytes, Life] = field(default_factory=dict)
    current: dict[int, Life] = field(default_factory=dict)
    # One writer at a time changes a prompt.
    locks: list = field(default_factory=lambda: [threading.Lock() for _ in range(PROMPTS)])
    problems: list = field(default_factory=list)
    answers: int = 0
    numbers: itertools.count = field(default_factory=itertools.count)

    def end(self, prompt, when):
        life = self.current.pop(prompt, None)
        if life is not None:
            life.dead = min(life.dead, when)

    def check(self, sent, read, asked, found):
        prompts = set()
        last = 2.0
        for hit in found:
            self.answers += 1
            life = self.lives.get(hit.response)
            if life is None or b"p%d" % life.prompt != hit.prompt:
                self.problems.append(("a response that was never stored under this prompt", hit))
                continue
            if life.born > read or life.dead < sent:
                self.problems.append(("dead or not born", hit, life.born - sent, life.dead - sent, read - sent))
            # One that was replaced meanwhile may be answered, but a prompt has one entry at any moment.
            if hit.prompt in prompts:
                self.problems.append(("twice in one answer", hit.prompt))
            prompts.add(hit.prompt)
            similarity = float(np.dot(asked, life.vector))
            if hit.tier == "semantic" and abs(similarity - hit.similarity) > ROUNDING:
                self.problems.append(("another similarity", hit, similarity))
            if hit.similarity > last + ROUNDING and hit.tier == "semantic":
                self.problems.append(("out of order", [other.similarity for other in found]))
            last = hit.similarity


class Stress:
    def __init__(self, server, seed, index):
        self.server, self.seed, self.index = server, seed, index
        self.model = Model()
        self.bases = units(PROMPTS, DIM, seed)
        # Commands that touch every prompt have the cache to themselves among writers.
        self.whole = threading.RLock()
        self.stop = time.monotonic() + SECONDS

    def store(self, wire, rng, prompt, ttl_ms=None):
        model, response = self.model, b"r%d-%d" % (prompt, next(self.model.numbers))
        vector = normalised(np.asarray(near(self.bases[prompt], 0.9, rng.randrange(1 << 30)), dtype="<f4"))
        life = Life(prompt, response, vector, time.monotonic())
        model.lives[response] = life
        expiry = () if ttl_ms is None else ("PX", ttl_ms)
        tags = ("TAGS", 1, f"t{prompt}")
        meta = ("META", '{"n":%d}' % (prompt % 10)) if prompt % 2 else ()
        command = ("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{prompt}", "RESPONSE", response)
        reply = wire(*command, *fp32(vector), *expiry, *meta, *tags)
        read = time.monotonic()
        if isinstance(reply, Failure):
            model.problems.append(reply.text)
            return None
        model.end(prompt, read)
        model.current[prompt] = life
        if ttl_ms is not None:
            # The server reckons with the time at which it began the command.
            life.dead = read + ttl_ms / 1_000 + 0.1
        return reply

    def write(self, rng, wire):
        prompt = rng.randrange(PROMPTS)
        with self.whole, self.model.locks[prompt]:
            kind = rng.random()
            if kind < 0.6:
                self.store(wire, rng, prompt)
            elif kind < 0.75:
                self.store(wire, rng, prompt, rng.randrange(1, 400))
            else:
                id_ = self.store(wire, rng, prompt)
                command = ("LLMCACHE.DEL", "faq", id_) if kind < 0.9 else ("LLMCACHE.INVALIDATE", "faq", "TAG", f"t{prompt}")
                reply = wire(*command)
                if isinstance(reply, Failure):
                    self.model.problems.append((command, reply.text))
                self.model.end(prompt, time.monotonic())

    def upheave(self, rng, wire):
        """What ends all entries at once, or moves or reads all of the cache."""
        with self.whole:
            kind = rng.randrange(8)
            for command in self.upheaval(kind, rng):
                reply = wire(*command)
                if isinstance(reply, Failure) and not reply.text.startswith("ERR Background save"):
                    self.model.problems.append((command, reply.text))
            if kind == 3:
                # Its entries may find it again or not, which is not what this is about.
                self.model.current.clear()
                dump = wire("DUMP", "faq")
                if wire("DEL", "faq") != 1 or wire("RESTORE", "faq", 0, dump) != "OK":
                    self.model.problems.append("no DUMP and RESTORE")
            now = time.monotonic()
            if kind < 3:
                for prompt in list(self.model.current):
                    self.model.end(prompt, now)

    def upheaval(self, kind, rng):
        create = ("LLMCACHE.CREATE", "faq", "DIM", DIM, "INDEX", self.index, "QUANT", "NONE")
        match kind:
            case 0:
                return [("LLMCACHE.INVALIDATE", "faq", "ALL")]
            case 1:
                return [("FLUSHALL", *rng.choice([(), ("ASYNC",)])), create]
            case 2:
                return [(rng.choice(["DEL", "UNLINK"]), "faq"), create]
            case 3:
                return []
            case 4:
                return [("RENAME", "faq", "other"), ("RENAME", "other", "faq")]
            case 5:
                threads = [rng.choice([0, 1, 4]), 2]
                return [("CONFIG", "SET", "llmcache.search-threads", number) for number in threads]
            case 6:
                settings = ("EF", rng.choice([20, 100])), ("INDEX", rng.choice(["AUTO", "FLAT", "HNSW"]))
                return [("LLMCACHE.CONFIG", "faq", "SET", *setting) for setting in settings]
            case _:
                return [("BGSAVE",)]

    def search(self, rng, wire):
        prompt = rng.randrange(PROMPTS)
        asked = np.asarray(near(self.bases[prompt], 0.95, rng.randrange(1 << 30)), dtype="<f4")
        tail = ["THRESHOLD", -1, "COUNT", 5, "RETURN", 4, "prompt", "response", "similarity", "tier"]
        kind = rng.random()
        if kind < 0.2:
            tail += ["FILTER", f".n == {prompt % 10}"]
        questions = [asked]
        if kind > 0.8:
            questions += [np.asarray(base, dtype="<f4") for base in rng.sample(self.bases, 4)]
            command = ["LLMCACHE.MGETSEM", "faq", 5, *(part for one in questions for part in fp32(one)), *tail]
        else:
            named = ["PROMPT", f"p{prompt}"] if kind > 0.6 else []
            command = ["LLMCACHE.GETSEM", "faq", *fp32(asked), *named, *tail]
        sent = time.monotonic()
        reply = wire(*command)
        read = time.monotonic()
        if isinstance(reply, Failure):
            self.model.problems.append(reply.text)
            return
        replies = reply if kind > 0.8 else [reply]
        for one, found in zip(questions, replies, strict=True):
            self.model.check(sent, read, normalised(one), hits(found))

    def leave(self, rng, wire):
        """Asks and goes before the answer."""
        with self.server.wire() as gone:
            gone.send("LLMCACHE.GETSEM", "faq", *fp32(rng.choice(self.bases)), "COUNT", 5)
            if rng.random() < 0.3:
                gone.send("LLMCACHE.GETSEM", "faq", *fp32(rng.choice(self.bases)), "COUNT", 5)
        time.sleep(0.01)

    def run(self, work, number, pause=0.0):
        rng = random.Random(self.seed * 1_000 + number)
        try:
            with self.server.wire(resp=2 + number % 2) as wire:
                while time.monotonic() < self.stop and len(self.model.problems) < 5:
                    work(rng, wire)
                    time.sleep(pause)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the test fails with it
            self.model.problems.append(repr(problem))


@pytest.mark.parametrize(("seed", "index"), [(1, "HNSW"), (2, "FLAT")])
def test_every_answer_lived_while_it_was_asked_for(fleet, seed, index):
    server = fleet.launch(**{"llmcache.search-inline-us": 0})
    base = settle_memory(server)
    stress = Stress(server, seed, index)
    rng = random.Random(seed)
    with server.wire() as wire:
        assert wire(*stress.upheaval(1, rng)[-1]) == "OK"
        for prompt in range(PROMPTS):
            stress.store(wire, rng, prompt)
    works = [(stress.search, 0.0)] * SEARCHERS + [(stress.write, 0.0)] * 2 + [(stress.upheave, 0.4), (stress.leave, 0.0)]
    threads = [
        threading.Thread(target=stress.run, args=(work, number, pause)) for number, (work, pause) in enumerate(works)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not stress.model.problems, stress.model.problems
    assert stress.model.answers > 1_500, stress.model.answers
    wait_until(lambda: int(server.info()["llmcache_searches_out"]) == 0, "all searches are back")
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) == 0, "nobody waits")
    info = server.info()
    assert int(info["llmcache_searches_in_threads"]) > 400
    with server.wire() as wire:
        assert wire("FLUSHALL") == "OK"
    wait_until(lambda: int(server.info()["llmcache_bytes"]) == 0, "no index holds memory")
    assert settle_memory(server) < base + 3_000_000
