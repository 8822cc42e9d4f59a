"""Hits of KV-cache chunks beside plain keys under the server's own eviction, on a trace of real prompts.

All servers of a round are sent the same prompts side by side, at a pace of the trace: the LRU clock
ticks once a second and LFU decays by the minute, so that a fast replay would measure a policy that
sees no time. Wrong payloads, and a chunk answered without all before it, end the run.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from host import Host
from plot import Line, Panel, chart
from report import Report, check, number
from wire import Failure, encode, percentile

FIXTURE = Path(__file__).resolve().parent / "data" / "conversation.jsonl"
BLOCK_TOKENS = 512
NAMESPACE = "vllm@llama-3.1-8b@1@0"
# Chunks, or commands for plain keys, that are sent at once: what waits in a server's buffers counts
# against its maxmemory.
AT_ONCE = 16
# Requests between two looks at used_memory.
LOOK_EVERY = 40
# Our budget begins with what fits into this much of the memory that plain keys may take.
MARGIN = 0.99
TARGET = 1.10
OURS = "llmcache, BUDGET"
NATIVE = ("allkeys-lru", "allkeys-lfu")

TEXT = """{requests:,} requests of the Mooncake conversation trace (FAST'25 release, Apache-2.0), {blocks:,} blocks of
{tokens} tokens, {distinct:,} of them distinct; the tokens of a block are made from its id. A block never seen before
cannot be a hit: {most:.1f} % is what endless memory finds. Each request fetches its leading run and stores everything
behind it. "Plain keys" is one string a block in a server with `maxmemory`: EXISTS of all blocks, GET of the leading
run, SET of the others; "llmcache, BUDGET" is `KVCHUNK.FETCH` and `KVCHUNK.MPUT` in the same server binary under
`noeviction`, with the budget that keeps used_memory below that of the plain keys; "llmcache, allkeys-lru" and "-lfu" have
no budget and leave eviction to the server and the module's hints. A hit is a block of a request's leading run; every
payload answered is compared with the one stored. "Cut off" are blocks that were there behind one that was not:
memory that served nobody.

The replay is paced: {pace}. The clocks of the server's policies are not scaled (a second for LRU, a minute for LFU),
so that they see less of time than in production. All servers run side by side. Requests were sent
{lag50} ms (median), {lag99} ms (p99), {lagmax} ms (most) after their time."""


@dataclass(frozen=True)
class Size:
    """One payload size, the memory that servers may take, and whether the hints are tried alone."""

    payload: int
    memory_mib: Sequence[int]
    hinted: bool


@dataclass(frozen=True)
class Plan:
    trace: Path
    pace: float
    sizes: Sequence[Size]
    judged: bool


def plan(trace: Path | None, pace: float) -> Plan:
    """The whole trace, or the excerpt that is kept beside the benchmark."""
    if trace is None:
        # The excerpt is short: it shows that all works, and judges nothing.
        return Plan(FIXTURE, min(pace, 0.05), (Size(4 << 10, (12, 24), True),), judged=False)
    sizes = (Size(4 << 10, (24, 48, 96, 192), True), Size(64 << 10, (384, 768, 1_536), False))
    return Plan(trace, pace, sizes, judged=True)


@dataclass(frozen=True)
class Prompt:
    """A request: when, and its blocks with the names of their chunks."""

    at_s: float
    ids: Sequence[int]
    tokens: bytes
    digests: Sequence[bytes]


Talk = Generator[Sequence[bytes], list, None]


@dataclass
class Counts:
    asked: int = 0
    hits: int = 0
    cut_off: int = 0
    used: list[int] = field(default_factory=list)

    def share(self) -> float:
        return 100 * self.hits / self.asked


class Payloads:
    """The payload of a block: its id, then the same bytes for all."""

    def __init__(self, size: int):
        self.size = size
        self.rest = hashlib.shake_128(b"payload").digest(size - 8)

    def of(self, block: int) -> bytes:
        return block.to_bytes(8, "little") + self.rest

    def parts(self, block: int) -> tuple[bytes, ...]:
        """The same as an argument of a command, not yet joined."""
        return (b"$%d\r\n" % self.size, block.to_bytes(8, "little"), self.rest, b"\r\n")


class Keys:
    """Plain keys, evicted by the server."""

    def __init__(self, name: str, host: Host, payloads: Payloads):
        self.name, self.host, self.payloads, self.counts = name, host, payloads, Counts()
        self.lookups = host.wire()

    def key(self, digest: bytes) -> bytes:
        return NAMESPACE.encode() + b"@" + digest.hex().encode() + b"@bfloat16"

    def serve(self, prompt: Prompt) -> Talk:
        keys = [self.key(digest) for digest in prompt.digests]
        there = yield [encode(["EXISTS", key]) for key in keys]
        run = there.index(0) if 0 in there else len(there)
        values: list[bytes | None] = []
        for part in batches(range(run)):
            values += yield [encode(["GET", keys[at]]) for at in part]
        # A read evicts too where the server is above its memory: what was there may be gone.
        run = values.index(None) if None in values else run
        check(values[:run] == [self.payloads.of(prompt.ids[at]) for at in range(run)], f"{self.name} answered other bytes")
        self.counts.asked += len(keys)
        self.counts.hits += run
        self.counts.cut_off += sum(there[run:])
        for part in batches(range(run, len(keys))):
            stored = yield [
                b"".join((b"*3\r\n$3\r\nSET\r\n$%d\r\n" % len(keys[at]), keys[at], b"\r\n", *self.payloads.parts(prompt.ids[at])))
                for at in part
            ]
            check(stored == ["OK"] * len(part), f"{self.name} refused a SET: {stored[:1]}")

    def look(self, used: int, late: bool) -> None:
        if late:
            self.counts.used.append(used)

    def chunks(self) -> int:
        return self.host("DBSIZE")


class Chunks:
    """A namespace of chunks."""

    def __init__(self, name: str, host: Host, payloads: Payloads, budget: int, most: int):
        self.name, self.host, self.payloads, self.counts = name, host, payloads, Counts()
        self.budget, self.most, self.lookups = budget, most, host.wire()
        create(host, budget)

    def serve(self, prompt: Prompt) -> Talk:
        ((run, returned, _, found),) = yield [encode(["KVCHUNK.FETCH", NAMESPACE, "TOKENS", prompt.tokens])]
        check(run == returned == len(found), f"{run} chunks match, {returned} were returned")
        for at, (digest, _, size, segments) in enumerate(found):
            # In order from the first on: what is answered is a prefix, and every byte of it.
            check(digest == prompt.digests[at].hex().encode(), f"chunk {at} is another")
            check(size == self.payloads.size, f"chunk {at} has {size} bytes")
            check(b"".join(segments) == self.payloads.of(prompt.ids[at]), f"chunk {at} has other bytes")
        self.counts.asked += len(prompt.ids)
        self.counts.hits += run
        for part in batches(range(run, len(prompt.ids))):
            ((*words,),) = yield [mput(prompt, part, self.payloads)]
            check(all(word == b"STORED" for word in words), f"{self.name} answered {words}")

    def look(self, used: int, late: bool) -> None:
        """Lowers the budget in the first half where buffers and tables took more than was left for them."""
        if late:
            self.counts.used.append(used)
        elif self.budget and used > self.most:
            self.budget -= used - self.most
            self.host("KVCHUNK.BUDGET", NAMESPACE, self.budget)

    def chunks(self) -> int:
        return fields(self.host)["chunks"]


def mput(prompt: Prompt, part: range, payloads: Payloads) -> bytes:
    # A chunk is named by all tokens up to it: those behind the last one stored are left out.
    tokens = prompt.tokens[: part.stop * BLOCK_TOKENS * 4]
    head = [b"KVCHUNK.MPUT", NAMESPACE.encode(), b"TOKENS", tokens, b"FROM", b"%d" % part.start]
    head += [b"PAYLOADS", b"%d" % len(part)]
    each = [piece for at in part for piece in (b"$1\r\n1\r\n", *payloads.parts(prompt.ids[at]))]
    counted = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in head)
    return b"".join((b"*%d\r\n" % (len(head) + 2 * len(part)), counted, *each))


def batches(numbers: range) -> Iterator[range]:
    return (numbers[at : at + AT_ONCE] for at in range(0, len(numbers), AT_ONCE))


def create(host: Host, budget: int) -> None:
    host("KVCHUNK.CREATE", NAMESPACE, "MODEL", "llama-3.1-8b", "DTYPE", "bf16", "CHUNK", BLOCK_TOKENS, "BUDGET", budget)


def fields(host: Host) -> dict:
    flat = host("KVCHUNK.INFO", NAMESPACE)
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2])}


def requests(trace: Path) -> list[dict]:
    with trace.open() as lines:
        return [json.loads(line) for line in lines]


def prompts(asked: Sequence[dict], root: bytes) -> Iterator[Prompt]:
    """The requests with tokens and digests; those of one moment spread evenly until the next."""
    moments = [request["timestamp"] / 1e3 for request in asked]
    first = 0
    for at, request in enumerate(asked):
        if at and moments[at] != moments[at - 1]:
            first = at
        behind = next((n for n in range(at, len(asked)) if moments[n] != moments[at]), len(asked))
        until = moments[behind] if behind < len(asked) else moments[at] + 1
        moment = moments[at] + (until - moments[at]) * (at - first) / (behind - first)
        digests, previous, parts = [], root, []
        for block in request["hash_ids"]:
            tokens = hashlib.shake_128(b"block %d" % block).digest(BLOCK_TOKENS * 4)
            previous = hashlib.sha256(previous + tokens).digest()
            parts.append(tokens)
            digests.append(previous)
        yield Prompt(moment, request["hash_ids"], b"".join(parts), digests)


def root_of(server, module: Path, folder: Path) -> bytes:
    """What the first chunk of a prompt is chained to; there is no salt."""
    with Host("root", server.path, folder / "kvtrace-root", module) as host:
        create(host, 0)
        return hashlib.sha256(bytes.fromhex(fields(host)["fingerprint"].decode())).digest()


def budget_for(server, module: Path, folder: Path, root: bytes, payloads: Payloads, most: int) -> int:
    """The bytes of chunks with which used_memory comes to `most`, tree and all: filled to find out."""
    with Host("fill", server.path, folder / "kvtrace-fill", module) as host:
        create(host, 0)
        start, fits = host.used_memory(), 0
        ids = 0
        while True:
            left = most - int(host.info("memory")["used_memory"])
            per_chunk = max(payloads.size, (most - left - start) // max(1, ids))
            count = max(AT_ONCE, left // per_chunk // 4)
            for _ in range(0, count, AT_ONCE):
                asked = [{"timestamp": 0, "hash_ids": range(ids, ids + AT_ONCE)}]
                (prompt,) = prompts(asked, root)
                host.control.flush([mput(prompt, range(AT_ONCE), payloads)])
                ids += AT_ONCE
            if int(host.info("memory")["used_memory"]) > most:
                return fits
            fits = fields(host)["bytes"]


def contenders(server, module: Path, folder: Path, root: bytes, size: Size) -> list[tuple[Size, int, Keys | Chunks]]:
    payloads, out = Payloads(size.payload), []
    for mib in size.memory_mib:
        most = mib << 20
        place = f"kvtrace-{size.payload}-{mib}"
        for policy in NATIVE:
            host = Host(policy, server.path, folder / f"{place}-{policy}")
            configure(host, most, policy)
            out.append((size, mib, Keys(policy, host, payloads)))
        host = Host(OURS, server.path, folder / f"{place}-ours", module)
        aim = int(most * MARGIN)
        budget = budget_for(server, module, folder, root, payloads, aim)
        out.append((size, mib, Chunks(OURS, host, payloads, budget, aim)))
        if size.hinted:
            out += [(size, mib, hinted(server, module, folder / f"{place}-hinted", payloads, most, policy)) for policy in NATIVE]
    return out


def hinted(server, module: Path, folder: Path, payloads: Payloads, most: int, policy: str) -> Chunks:
    """Chunks without a budget, evicted by the server."""
    name = f"llmcache, {policy}"
    host = Host(name, server.path, folder / policy, module)
    configure(host, most, policy)
    host("CONFIG", "SET", "llmcache.kv-share", 0)
    return Chunks(name, host, payloads, 0, most)


def configure(host: Host, most: int, policy: str) -> None:
    host("CONFIG", "SET", "maxmemory", most, "maxmemory-policy", policy)


def replay(asked: Sequence[dict], root: bytes, all_of_them: Sequence[Keys | Chunks], pace: float) -> list[float]:
    """Sends every request to all; answers by how many seconds each was late."""
    late, start = [], time.monotonic()
    for at, prompt in enumerate(prompts(asked, root)):
        due = start + prompt.at_s * pace
        time.sleep(max(0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        side_by_side(all_of_them, prompt)
        if at % LOOK_EVERY == 0:
            for one in all_of_them:
                used = int(one.host.info("memory")["used_memory"])
                one.look(used, at * 2 > len(asked))
    return late


def side_by_side(all_of_them: Sequence[Keys | Chunks], prompt: Prompt) -> None:
    """One request for all of them: each trip is sent to all that have one before the first is read."""
    talks = [(one, one.serve(prompt)) for one in all_of_them]
    sent = [(one, talk, next(talk, None)) for one, talk in talks]
    while sent := [(one, talk, commands) for one, talk, commands in sent if commands is not None]:
        for one, _, commands in sent:
            one.lookups.socket.sendall(b"".join(commands))
        answered = []
        for one, talk, commands in sent:
            replies = [one.lookups.read() for _ in commands]
            failed = [reply for reply in replies if isinstance(reply, Failure)]
            check(not failed, f"{one.name} answered {failed[:1]}")
            answered.append((one, talk, replies))
        sent = [(one, talk, following(talk, replies)) for one, talk, replies in answered]


def following(talk: Talk, replies: list) -> Sequence[bytes] | None:
    try:
        return talk.send(replies)
    except StopIteration:
        return None


def run(server, module: Path, folder: Path, plan: Plan) -> Report:
    asked = requests(plan.trace)
    root = root_of(server, module, folder)
    report = Report("KV-cache chunks: hits at equal memory", "")
    table = report.table(
        "payload", "memory", "contender", "used_memory at rest", "chunks at the end", "hits", "cut off", "over the better of plain keys"
    )
    rivals: list[tuple[Size, int, Keys | Chunks]] = []
    panels = []
    try:
        for size in plan.sizes:
            rivals += contenders(server, module, folder, root, size)
        late = replay(asked, root, [one for _, _, one in rivals], plan.pace)
        for size in plan.sizes:
            lines: dict[str, list] = {}
            for mib in size.memory_mib:
                show(report, table, size, mib, [one for of, at, one in rivals if (of, at) == (size, mib)], lines, plan.judged)
            panels.append(Panel(f"payloads of {size.payload >> 10} KiB", [Line(name, at) for name, at in lines.items()]))
    finally:
        for _, _, one in rivals:
            one.host.stop()
    report.text = text(asked, plan, late)
    ticks = sorted({thousands(mib, size) for size in plan.sizes for mib in size.memory_mib})
    report.plots["kvtrace.svg"] = chart(
        panels, "memory, thousands of payloads", "hits, % of blocks", ticks, tick_format="{:.0f}"
    )
    report.figures["late_ms"] = {"p50": millis(late, 0.5), "p99": millis(late, 0.99), "max": millis(late, 1.0)}
    report.figures["pace"] = plan.pace
    return report


def text(asked: Sequence[dict], plan: Plan, late: Sequence[float]) -> str:
    blocks = [block for request in asked for block in request["hash_ids"]]
    span = asked[-1]["timestamp"] / 1e3
    return TEXT.format(
        requests=len(asked), blocks=len(blocks), distinct=len(set(blocks)), tokens=BLOCK_TOKENS,
        most=100 - 100 * len(set(blocks)) / len(blocks),
        pace=f"{span:,.0f} s of the trace in {span * plan.pace:,.0f} s, requests of one moment spread until the next",
        lag50=millis(late, 0.5), lag99=millis(late, 0.99), lagmax=millis(late, 1.0),
    )


def millis(late: Sequence[float], share: float) -> float:
    return round(1e3 * percentile(late, share), 1)


def thousands(mib: int, size: Size) -> float:
    return (mib << 20) / size.payload / 1e3


def show(report: Report, table, size: Size, mib: int, rivals: Sequence[Keys | Chunks], lines: dict, judged: bool) -> None:
    best = max(one.counts.share() for one in rivals if one.name in NATIVE)
    rest = {one.name: statistics.mean(one.counts.used) for one in rivals}
    least = min(rest[name] for name in NATIVE)
    payload = f"{size.payload >> 10} KiB"
    for one in rivals:
        counts, ratio = one.counts, one.counts.share() / best
        plain = one.name in NATIVE
        table.add(
            payload, f"{mib} MiB", f"plain keys, {one.name}" if plain else one.name,
            f"{rest[one.name] / 2**20:.1f} MiB", f"{one.chunks():,}", f"{counts.share():.2f} %",
            f"{100 * counts.cut_off / counts.asked:.2f} %" if plain else "", "" if plain else f"{ratio:.3f}",
        )
        lines.setdefault(one.name, []).append((thousands(mib, size), counts.share()))
        report.figures[f"{payload}/{mib} MiB/{one.name}"] = {
            "hits_pct": round(counts.share(), 3), "cut_off_pct": round(100 * counts.cut_off / counts.asked, 3),
            "used_memory_at_rest": round(rest[one.name]), "chunks": one.chunks(), "over_the_better": round(ratio, 4),
        }
        if one.name == OURS:
            if judged:
                what = f"hits of {payload} chunks in {mib} MiB over the better of allkeys-lru and allkeys-lfu"
                met = ratio >= TARGET and rest[OURS] <= least
                report.add_target(what, f">= {TARGET:.2f} x in no more memory", f"{ratio:.3f}", met)
