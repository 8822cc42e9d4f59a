"""A prefix of KV-cache chunks in one command, beside what a client of plain keys sends for the same bytes."""

from __future__ import annotations

import hashlib
import multiprocessing
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stalls
from contest import spread
from host import Host
from report import Report, check, number
from wire import Batch, Load, encode, joined, learn, percentile

# A segment that the allocator wastes nothing on.
SEGMENT = (1 << 20) - 64
CHUNK_TOKENS = 256
NAMESPACE = "vllm@llama-3.1-8b@1@0"
# Connections of LMCache's native client, each with one command under way.
WORKERS = 8
DELAYS_MS = (0, 1)
# A slice is repeated passes of at least this long; passes of more bytes than this last long enough for one.
SLICE_S = 0.03
LONG_BYTES = 256 << 20
TARGET = 0.9
# Memory left free on the machine beside what servers and client need.
SPARE = 1.25
SMALL_KEY, SMALL_VALUE = "small", b"x" * 100

# Bytes of a page where a prefix is fetched in several answers.
PAGE_BYTES = 16 << 20
OURS, PAGED = "KVCHUNK.FETCH", f"KVCHUNK.FETCH in pages of {PAGE_BYTES >> 20} MiB"
PIPELINED, SINGLE, MANY = "GET of each segment, pipelined", "GET of each segment", "MGET of the segments"
TWO_KEYS, ONE_KEY = "LMCache redis://", "LMCache resp://"

TEXT = f"""The payloads of a prompt's chunks, all of them there. Chunks are stored in segments of 1 MiB less 64 bytes, the
plain keys of the `GET` and `MGET` rows are these same segments. `{TWO_KEYS}` is what its connector sends: EXISTS of
each chunk, each waited for, then GET of all metadata keys and GET of all payload keys, whole chunks, each of the two
in one trip, which is the best its pool of connections can do. `{ONE_KEY}` has one key a chunk and {WORKERS} connections
with one command under way each: EXISTS of all, then GET of all. `KVCHUNK.FETCH` is one command (`MAXBYTES` raised: by
default an answer ends at 64 MiB), or several with `FROM` and `COUNT`, each waited for: a short answer is written
into memory that the one before has used, a long one into pages that the server first gets from the system, as is that
to many GETs at once. Payloads have checksums; they were looked at within the last minute, as of chunks in use. One
client reads on one core and parses nothing.

A delay is slept by the client before each trip: as the network would have it, without a network's limit on bytes.
GB/s are payload bytes over the time of the whole sequence; the median of the rounds, each round the best of its
slices. "Over GET" is FETCH over pipelined GETs of equal segments, within a round. "p99 of GET" is that of a GET of 100
bytes each millisecond on another connection while the row's sequence is repeated without pause or delay: the kernel's
time stamps, waits for a core included, the machine having {{cores}} cores for the server and two processes; all
commands that have arrived in one batch are run before it is looked at.{{left_out}}"""


@dataclass(frozen=True)
class Size:
    chunk_bytes: int
    counts: Sequence[int]


@dataclass(frozen=True)
class Plan:
    sizes: Sequence[Size]
    rounds: int
    slices: int
    probe_s: float


def plan(full: bool) -> Plan:
    mib = 1 << 20
    if full:
        return Plan((Size(mib, (1, 8, 32, 128)), Size(16 * mib, (1, 8, 32, 128))), rounds=3, slices=4, probe_s=1.0)
    return Plan((Size(mib, (1, 32)), Size(16 * mib, (1, 4))), rounds=3, slices=2, probe_s=0.2)


@dataclass
class Way:
    """A sequence of trips; a trip is a batch on each of some connections."""

    name: str
    trips: Sequence[Sequence[Batch]]
    # Seconds of a pass: the best slice of each round, by delay.
    passes: dict[int, list[float]] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        return max(map(len, self.trips))

    @property
    def commands(self) -> int:
        return sum(batch.commands for trip in self.trips for batch in trip)

    def pass_s(self, load: Load, delay_ms: int) -> float:
        """Seconds of the whole sequence once."""
        start = time.perf_counter()
        for trip in self.trips:
            if delay_ms:
                time.sleep(delay_ms / 1e3)
            load.round(trip)
        return time.perf_counter() - start

    def slice_s(self, load: Load, delay_ms: int, warm: bool) -> float:
        """Seconds of a pass, from passes of a slice; the memory that another's answers left is met before."""
        if warm:
            self.pass_s(load, 0)
        taken, count = 0.0, 0
        while taken < SLICE_S:
            taken, count = taken + self.pass_s(load, delay_ms), count + 1
        return taken / count


class Stored:
    """The same payloads as chunks, as segments in plain keys, and as LMCache's two keys."""

    def __init__(self, host: Host, size: Size):
        self.host, self.size, self.most = host, size, max(size.counts)
        rest = hashlib.shake_128(b"payload").digest(size.chunk_bytes - 8)
        self.tokens = hashlib.shake_128(b"prompt").digest(self.most * CHUNK_TOKENS * 4)
        host("KVCHUNK.CREATE", NAMESPACE, "CHUNK", CHUNK_TOKENS)
        host("CONFIG", "SET", "llmcache.kv-in-flight", 0)
        host("SET", SMALL_KEY, SMALL_VALUE)
        header = struct.pack("<7i", size.chunk_bytes, 1, 3, 2, 32, CHUNK_TOKENS, 1_024)
        for at in range(self.most):
            payload = at.to_bytes(8, "little") + rest
            segments = cut(payload)
            tokens = self.tokens[: (at + 1) * CHUNK_TOKENS * 4]
            word = host("KVCHUNK.PUT", NAMESPACE, "TOKENS", tokens, "PAYLOAD", len(segments), *segments)
            check(word == b"STORED", f"a chunk was answered {word}")
            for n, segment in enumerate(segments):
                host("SET", segment_key(at, n), segment)
            host("SET", chunk_key(at) + "kv_bytes", payload)
            host("SET", chunk_key(at) + "metadata", header)
        self.rest = rest

    def payload(self, at: int) -> bytes:
        return at.to_bytes(8, "little") + self.rest

    def ways(self, count: int) -> list[Way]:
        """The sequences for the first `count` chunks, each answer checked."""
        wire, chunks = self.host.control, range(count)
        per_chunk = len(cut(self.payload(0)))
        names = [segment_key(at, n) for at in chunks for n in range(per_chunk)]

        def whole(_: int, reply: list) -> None:
            matched, returned, _, found = reply
            check((matched, returned) == (count, count), f"FETCH matched {matched}, returned {returned} of {count}")
            check(all(b"".join(c[3]) == self.payload(at) for at, c in enumerate(found)), "FETCH answered other bytes")

        def segments(_: int, reply: list) -> None:
            for at in chunks:
                part = reply[at * per_chunk : (at + 1) * per_chunk]
                check(b"".join(part) == self.payload(at), "MGET answered other bytes")

        def there(_: int, reply: int) -> None:
            check(reply == 1, "EXISTS answered 0")

        def one(commands: Sequence[Sequence], verdict: Callable | None = None) -> list[Batch]:
            return learn(wire, [encode(command) for command in commands], 1, verdict)

        tokens = self.tokens[: count * CHUNK_TOKENS * 4]
        fetch = one([["KVCHUNK.FETCH", NAMESPACE, "TOKENS", tokens, "MAXBYTES", 1 << 40]], whole)
        get = one([["GET", name] for name in names])
        mget = one([["MGET", *names]], segments)
        exists = one([["EXISTS", chunk_key(at) + "metadata"] for at in chunks], there)
        metadata = one([["GET", chunk_key(at) + "metadata"] for at in chunks])
        payloads = one([["GET", chunk_key(at) + "kv_bytes"] for at in chunks], lambda at, got: check(got == self.payload(at), "GET"))
        both = [[batch] for part in (metadata, payloads) for batch in joined(part, count)]
        page = max(1, PAGE_BYTES // self.size.chunk_bytes)
        paged = [["KVCHUNK.FETCH", NAMESPACE, "TOKENS", tokens, "FROM", at, "COUNT", page] for at in range(0, count, page)]
        return [
            Way(OURS, [fetch]),
            Way(PAGED, [[batch] for batch in one(paged)]),
            Way(PIPELINED, [joined(get, len(get))]),
            Way(SINGLE, [[batch] for batch in get]),
            Way(MANY, [mget]),
            Way(TWO_KEYS, [[batch] for batch in exists] + both),
            Way(ONE_KEY, [part[at : at + WORKERS] for part in (exists, payloads) for at in range(0, count, WORKERS)]),
        ]


def cut(payload: bytes) -> list[bytes]:
    return [payload[at : at + SEGMENT] for at in range(0, len(payload), SEGMENT)]


def segment_key(at: int, n: int) -> str:
    return f"{chunk_key(at)}@{n}"


def chunk_key(at: int) -> str:
    return f"{NAMESPACE}@{at:064x}@bfloat16"


def run(server, module: Path, folder: Path, plan: Plan) -> Report:
    report = Report("KV-cache chunks: a prefix in one trip", "")
    table = report.table(
        "chunks", "of", "sequence", "commands", "round trips",
        *(f"GB/s, {ms} ms" for ms in DELAYS_MS), "over GET, 0 ms", "p50 of GET, us", "p99 of GET, us",
    )
    left_out = []
    for size in plan.sizes:
        size, note = within_memory(size)
        left_out += note
        if not size.counts:
            continue
        with Host(server.name, server.path, folder / f"kvfetch-{size.chunk_bytes}", module) as host:
            stored = Stored(host, size)
            for count in size.counts:
                measure(report, table, stored, count, plan)
    cores = multiprocessing.cpu_count()
    report.text = TEXT.format(cores=cores, left_out="".join(f"\n\nLeft out: {what}" for what in left_out))
    return report


def within_memory(size: Size) -> tuple[Size, list[str]]:
    """As many chunks as this machine's free memory has room for, and what was left out."""
    info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(info["MemAvailable"].split()[0]) << 10
    # Chunks, segments, LMCache's keys in their size class, an answer in the server and one in the client.
    per_chunk = size.chunk_bytes * (1 + 1 + 1.25 + 1 + 1)
    fits = [count for count in size.counts if count * per_chunk * SPARE <= free]
    left = [
        f"{count} chunks of {mib(size.chunk_bytes)} need {count * per_chunk / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free."
        for count in size.counts if count not in fits
    ]
    return Size(size.chunk_bytes, fits), left


def mib(size: int) -> str:
    return f"{size >> 20} MiB"


def measure(report: Report, table, stored: Stored, count: int, plan: Plan) -> None:
    ways = stored.ways(count)
    loads = [Load(stored.host.port, way.connections) for way in ways]
    for way, load in zip(ways, loads):
        way.pass_s(load, 0)
    payload_bytes = count * stored.size.chunk_bytes
    for delay_ms in DELAYS_MS:
        for turn in range(plan.rounds):
            best = [float("inf")] * len(ways)
            long = payload_bytes > LONG_BYTES
            for part in range(1 if long else plan.slices):
                for n in range(len(ways)):
                    # Another one is first each time: none always meets the memory that the same one left.
                    at = (n * (-1) ** part + turn + part) % len(ways)
                    best[at] = min(best[at], ways[at].slice_s(loads[at], delay_ms, warm=not long))
            for way, seconds in zip(ways, best):
                way.passes.setdefault(delay_ms, []).append(seconds)
    for load in loads:
        load.close()
    show(report, table, stored, count, payload_bytes, ways, [beside(stored.host, way, plan.probe_s) for way in ways])


def show(report: Report, table, stored: Stored, count: int, payload_bytes: int, ways: Sequence[Way], small: Sequence[list[float]]) -> None:
    ours, pipelined = (next(way for way in ways if way.name == name) for name in (OURS, PIPELINED))
    ratio = spread([get / fetch for fetch, get in zip(ours.passes[0], pipelined.passes[0])])
    size = mib(stored.size.chunk_bytes)
    for way, seen in zip(ways, small):
        rates = {ms: payload_bytes / spread(taken).median / 1e9 for ms, taken in way.passes.items()}
        p50, p99 = percentile(seen, 0.5), percentile(seen, 0.99)
        table.add(
            count, size, way.name, f"{way.commands:,}", f"{len(way.trips):,}", *(f"{rates[ms]:.2f}" for ms in DELAYS_MS),
            ratio if way is ours else "", number(p50), number(p99),
        )
        report.figures[f"{count} x {size}/{way.name}"] = {
            "commands": way.commands, "round_trips": len(way.trips), "get_p50_us": round(p50), "get_p99_us": round(p99),
            **{f"gb_per_s_{ms}_ms": round(rate, 3) for ms, rate in rates.items()},
        }
    report.figures[f"{count} x {size}/over GET"] = ratio.raw()
    check((len(ours.trips), ours.commands) == (1, 1), "a FETCH is one command")
    what = f"GB/s of FETCH, {count} {'chunks' if count > 1 else 'chunk'} of {size}, 1 round trip"
    report.add_target(what, f">= {TARGET} x GET of equal segments", str(ratio), ratio.median >= TARGET)


def beside(host: Host, way: Way, seconds: float) -> list[float]:
    """Microseconds of small GETs while the sequence is repeated."""
    fork = multiprocessing.get_context("fork")
    busy = fork.Process(target=repeat, args=(host.port, way, seconds))
    busy.start()
    request, reply = encode(["GET", SMALL_KEY]), b"$%d\r\n%b\r\n" % (len(SMALL_VALUE), SMALL_VALUE)
    seen = stalls.probe(host, busy, 0, request, reply)
    busy.join()
    check(busy.exitcode == 0, f"{way.name} could not be repeated")
    return seen.whole


def repeat(port: int, way: Way, seconds: float) -> None:
    load, end = Load(port, way.connections), time.monotonic() + seconds
    while time.monotonic() < end:
        way.pass_s(load, 0)
