"""How long the commands that once held up a server keep others waiting now: the table of faults of the first release.

Each was a command of an ordinary client, with the arguments given, that kept every other client waiting; its old time
was taken on the release build of the first version, on a loaded machine. Now a PING goes beside it each half
millisecond. What counts is what the server's own thread took of the longest one (`harness/prober.py`).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.prober import Prober, Stall
from harness.wire import Failure
from harness.worst import LONGEST_RUN
from host import Host
from report import Report, check
from wire import encode

TEXT = """Beside each command a PING goes each half millisecond. "Then" is how long others waited in the first release, on a
loaded machine; "longest PING" what the server's own thread takes of the longest one now, the least of {runs} runs where it is above
{half:g} ms, less the longest beside reading as many bytes; "p99" is of all of them, reading included; "whole" what the client of the longest saw, waits for a core included; "took" the
command itself. "Steps" is the most that is done in one piece, between which no other client's command comes (a row compared
is one, a key opened 32, 64 bytes are one): it is the same on every machine, at most {run:,} for any command, and tests hold
every command to it. An idle server's longest PING was {idle:.2f} ms in the same run; beside reading as many bytes as the
longest of these commands have it was {reading:.2f} ms, which is what the machine adds and no module changes. The machine's
load average was {load:.0f} on {cores} cores at the end of the run: with more than one a core, times are those of the other
work too, and steps are what to compare."""

# Of the server's own time, beyond the machine's.
TARGET_MS = 2.0
# Of a command beside which a PING took longer than half of that.
RUNS = 5


@dataclass(frozen=True)
class Case:
    """A command, how long it once held up others, and what has to be there."""

    what: str
    then: str
    setup: Callable
    command: Callable


def run(server, module: Path, folder: Path) -> Report:
    options = {"llmcache.check-work": "yes"}
    with Host("llmcache", server.path, folder / "faults", module, **options) as host, Prober(host.port, host.process.pid) as prober:
        idle = max(prober.beside(host.wire(), encode(["ECHO", "x"])).own_ms for _ in range(10))
        report = Report("Commands that held up others", "")
        table = report.table("command", "then", "longest PING, ms", "p99, ms", "whole, ms", "steps", "took, ms", "reply")
        measured = []
        for case in CASES:
            measured.append(measure(host, prober, case))
            show(report, table, case, measured[-1])
        host("FLUSHALL", "SYNC")
        many_containers(report, table, host, prober)
        host("FLUSHALL", "SYNC")
        beside_much(report, host)
        worst = max(one.own_ms for one in measured)
        reading = max(one.reading_ms for one in measured)
        report.text = TEXT.format(runs=RUNS, half=TARGET_MS / 2, idle=idle, reading=reading, run=LONGEST_RUN, load=os.getloadavg()[0], cores=os.cpu_count())
        longest = max(one.steps for one in measured)
        report.add_target("longest PING beside any of them", f"< {TARGET_MS:g} ms beyond idle", f"{worst:.1f} ms", worst < TARGET_MS + idle)
        report.add_target("steps in one piece of any of them", f"<= {LONGEST_RUN:,}", f"{longest:,}", longest <= LONGEST_RUN)
    return report


@dataclass(frozen=True)
class Measured:
    stall: Stall
    # The longest PING beside reading as many arguments, and what the command adds to it.
    reading_ms: float
    own_ms: float
    steps: int


def measure(host: Host, prober: Prober, case: Case) -> Measured:
    """The run that held up others least, less the longest wait beside reading as many bytes: what the command itself takes is in
    each run, what the machine adds is not."""
    stalls: list[Stall] = []
    reading_ms, steps = 0.0, 0
    while len(stalls) < RUNS:
        host("FLUSHALL", "SYNC")
        (command,) = case.command(case.setup(host))
        reading_ms = max(reading_ms, prober.beside(host.wire(), encode(["OBJECT", *command[1:]])).own_ms)
        stalls.append(prober.beside(host.wire(), encode(command)))
        steps = max(steps, int(host.info("llmcache")["llmcache_last_command_longest_run"]))
        least = min(stalls, key=lambda stall: stall.own_ms)
        if least.own_ms < TARGET_MS / 2:
            break
    return Measured(least, reading_ms, max(0.0, least.own_ms - reading_ms), steps)


def show(report: Report, table, case: Case, one: Measured) -> None:
    stall = one.stall
    said = stall.refusal.split()[0] if stall.refusal else "done"
    table.add(
        case.what, case.then, f"{one.own_ms:.1f}", f"{stall.p99_ms:.2f}", f"{stall.whole_ms:.1f}", f"{one.steps:,}",
        f"{stall.took_ms:,.0f}", said,
    )  # fmt: skip
    report.figures[case.what] = {
        "then": case.then, "own_ms": round(one.own_ms, 2), "p99_ms": round(stall.p99_ms, 3), "steps": one.steps,
        "took_ms": round(stall.took_ms, 1), "reply": said,
    }  # fmt: skip


def beside_much(report: Report, host: Host) -> None:
    """A search of one client while another has both threads search for as long as they like."""
    answers(host, 5_000)
    with host.wire() as much, host.wire() as one:
        ask = ["LLMCACHE.GETSEM", "faq", *at(1), "FILTER", TERMS]

        def searches(count: int) -> list[float]:
            took = []
            for _ in range(count):
                start = time.perf_counter()
                reply = one(*ask)
                check(not isinstance(reply, Failure), f"a search is answered: {reply}")
                took.append((time.perf_counter() - start) * 1e3)
            return sorted(took)

        alone = searches(30)
        much.send("LLMCACHE.MGETSEM", "faq", 1_000, *questions(1_000), "FILTER", TERMS)
        beside = searches(30)
    table = report.table("a search of another client, ms", "then", "p50", "longest")
    table.add("alone", "7", f"{alone[15]:.1f}", f"{alone[-1]:.1f}")
    table.add("beside MGETSEM of 1,000 with FILTER of 250 terms", "25,000", f"{beside[15]:.1f}", f"{beside[-1]:.1f}")
    report.figures["a search of another client"] = {"alone_ms": round(alone[15], 2), "beside_ms": round(beside[15], 2), "longest_ms": round(beside[-1], 2)}


def v(*numbers: float, dim: int = 0) -> list:
    numbers = [*numbers, *[0.0] * (dim - len(numbers))]
    return ["FP32", struct.pack(f"<{len(numbers)}f", *numbers)]


def at(n: int) -> list:
    return v(1, n % 97 / 97, n % 89 / 89)


def filled(host: Host, commands) -> None:
    with host.wire() as wire:
        for reply in wire.pipeline(commands):
            check(not isinstance(reply, Failure), f"the table of faults is filled: {reply}")


def answers(host: Host, count: int, prompt: bytes = b"", index: str = "FLAT") -> None:
    host("LLMCACHE.CREATE", "faq", "DIM", 3, "INDEX", index)
    filled(host, (
        ("LLMCACHE.SETSEM", "faq", "PROMPT", b"q%d " % n + prompt, "RESPONSE", "r", *at(n), "META", '{"n":%d}' % n)
        for n in range(count)
    ))  # fmt: skip


def documents(host: Host, count: int, meta: str) -> None:
    filled(host, (("RAG.ADD", "docs", f"d{n}", *at(n), "TEXT", "t", "META", meta) for n in range(count)))


TERMS = " and ".join(f".n != {-n}" for n in range(1, 251))
LONG_TEXT = "x" * 8_000


def questions(count: int, prompt: bytes = b"") -> list:
    return [part for n in range(count) for part in (*at(n), "PROMPT", b"asked %d " % n + prompt)]


def tokens(chunks: int, token: int | None = None) -> bytes:
    return b"".join(struct.pack("<I", n if token is None else token) * 16 for n in range(chunks))


def chain(host: Host, chunks: int, token: int | None = None) -> list[bytes]:
    host("KVCHUNK.CREATE", "ns", "CHUNK", 16)
    host("KVCHUNK.MPUT", "ns", "TOKENS", tokens(chunks, token), "PAYLOADS", chunks, *[1, "x"] * chunks)
    return host("KVCHUNK.DIGESTS", "ns", "TOKENS", tokens(chunks, token))


def equal_chunks(host: Host) -> None:
    digests = chain(host, 1_024, token=7)
    host("KVCHUNK.DEL", "ns", digests[0])


def session(host: Host, messages: int) -> None:
    parts = ["MSG", "user", "x"] * 1_000
    filled(host, (("SESSION.APPEND", "s", *parts) for _ in range(messages // 1_000)))


def pairs(host: Host) -> None:
    calls = ["MSG", "tool", "x", "CALL", "one"] * 1_000
    host("SESSION.APPEND", "s", *calls)
    host("SESSION.APPEND", "s", *["MSG", "tool", "x", "RESULT", "one"] * 1_000)


def dead_sessions(host: Host) -> None:
    host("SESSION.APPEND", "alive", "OWNER", "o", "MSG", "user", "x")
    filled(host, (("ZADD", "o", 10 + n, f"gone-{n}") for n in range(100_000)))


def embeddings(host: Host) -> None:
    host("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 1_536)
    vector = v(1, 2, dim=1_536)
    for first in range(0, 4_000, 1_000):
        host("EMBCACHE.MSET", "emb", 1_000, *(part for n in range(first, first + 1_000) for part in ("TEXT", f"t{n}", *vector)))


def long_vectors(host: Host) -> None:
    host("RAG.CREATE", "docs", "DIM", 16_384)
    filled(host, (("RAG.ADD", "docs", f"d{n}", *v(1, n, dim=16_384), "TEXT", "t") for n in range(1_000)))


def nothing(_: Host) -> None:
    pass


TEXTS = [f"t{n}" for n in range(4_000)]
BATCH = [(f"t{n}", *v(1, n, dim=16_384)) for n in range(1_000)]
CASES = [
    Case("GETSEM, FILTER of 250 terms, 5,000 rows", "126 ms", lambda h: answers(h, 5_000),
         lambda _: [["LLMCACHE.GETSEM", "faq", *at(1), "FILTER", TERMS]]),
    Case("MGETSEM of 100 so", "9 s", lambda h: answers(h, 5_000),
         lambda _: [["LLMCACHE.MGETSEM", "faq", 100, *questions(100), "FILTER", TERMS]]),
    Case("RAG.SEARCH, '\"x\" in .tags', 100,000 documents", "0.9 s", lambda h: documents(h, 100_000, '{"tags":["a","x"]}'),
         lambda _: [["RAG.SEARCH", "docs", *at(1), "FILTER", '"x" in .tags']]),
    Case("the same, META above 1 KiB, 10,000 documents", "0.9 s", lambda h: documents(h, 10_000, '{"tags":["a"],"t":"%s"}' % ("y" * 1_100)),
         lambda _: [["RAG.SEARCH", "docs", *at(1), "FILTER", '"x" in .tags']]),
    Case("MGETSEM of 1,000, 4 kB prompts, STRICT", "33 s", lambda h: answers(h, 5_000, b"p" * 4_000),
         lambda _: [["LLMCACHE.MGETSEM", "faq", 1_000, *questions(1_000, b"p" * 4_000), "GUARD", "STRICT", "THRESHOLD", -1]]),
    Case("RAG.SEARCH, FILTER with a text of 8 KB, 1,000 rows", "15 ms a row", lambda h: documents(h, 1_000, '{"t":"%s"}' % ("x" * 7_000 + "y")),
         lambda _: [["RAG.SEARCH", "docs", *at(1), "FILTER", f'"{LONG_TEXT}" in .t']]),
    Case("SESSION.WINDOW PAIRS, 1,000 calls and results of one id", "7.9 s", pairs, lambda _: [["SESSION.WINDOW", "s", "PAIRS"]]),
    Case("KVCHUNK.FIND, equal tokens, root deleted, 1,024 chunks", "5 s", equal_chunks,
         lambda _: [["KVCHUNK.FIND", "ns", "TOKENS", tokens(1_024, 7)]]),
    Case("KVCHUNK.FIND, 16,384 chunks", "", lambda h: chain(h, 16_384), lambda _: [["KVCHUNK.FIND", "ns", "TOKENS", tokens(16_384)]]),
    Case("KVCHUNK.TOUCH of a chain of 2,048", "1.7 s", lambda h: chain(h, 2_048), lambda d: [["KVCHUNK.TOUCH", "ns", *d]]),
    Case("KVCHUNK.MPUT of 8,192", "0.9 s", lambda h: h("KVCHUNK.CREATE", "ns", "CHUNK", 16),
         lambda _: [["KVCHUNK.MPUT", "ns", "TOKENS", tokens(8_192), "PAYLOADS", 8_192, *[1, "x"] * 8_192]]),
    Case("KVCHUNK.PIN … PREFIX, 4,096", "2.3 s", lambda h: chain(h, 4_096), lambda d: [["KVCHUNK.PIN", "ns", *d, "PREFIX"]]),
    Case("KVCHUNK.FETCH of 65,536 chunks", "", lambda h: chain(h, 65_536), lambda _: [["KVCHUNK.FETCH", "ns", "TOKENS", tokens(65_536)]]),
    Case("RAG.SEARCH COUNT 1000 MMR, 16,384 dimensions", "4.1 s", long_vectors,
         lambda _: [["RAG.SEARCH", "docs", *v(1, 2, dim=16_384), "COUNT", 1_000, "MMR", 0.5]]),
    Case("EMBCACHE.MGET of 4,000 x 1,536 AS VALUES", "3.9 s", embeddings, lambda _: [["EMBCACHE.MGET", "emb", "TEXTS", 4_000, *TEXTS, "AS", "VALUES"]]),
    Case("EMBCACHE.MGET of 4,000 x 1,536", "", embeddings, lambda _: [["EMBCACHE.MGET", "emb", "TEXTS", 4_000, *TEXTS]]),
    Case("EMBCACHE.MSET of 1,000 x 16,384", "", nothing,
         lambda _: [["EMBCACHE.MSET", "emb", 1_000, *(part for text, *vector in BATCH for part in ("TEXT", text, *vector)), "MODEL", "m"]]),
    Case("RAG.MADD of 1,000 x 16,384", "", nothing,
         lambda _: [["RAG.MADD", "docs", 1_000, *(part for text, *vector in BATCH for part in (text, *vector, "TEXT", "t"))]]),
    Case("SESSION.FORK of a million messages", "3.0 s", lambda h: session(h, 1_000_000), lambda _: [["SESSION.FORK", "s", "copy"]]),
    Case("SESSION.LOAD of 1,024 lines into 100,000 messages", "2.3 s", lambda h: session(h, 100_000),
         lambda _: [["SESSION.LOAD", "s", *('{"role":"user","content":"x"}' for _ in range(1_024))]]),
    Case("SESSION.LOAD of 1,024 lines of 500 B", "", nothing,
         lambda _: [["SESSION.LOAD", "s", *('{"role":"user","content":"%s"}' % ("x" * 470) for _ in range(1_024))]]),
    Case("SESSION.APPEND of 1,024 messages of 500 B", "", nothing, lambda _: [["SESSION.APPEND", "s", *["MSG", "user", "x" * 500] * 1_024]]),
    Case("RAG.MADD of 1,000 texts of 10 kB with META", "", nothing,
         lambda _: [["RAG.MADD", "docs", 1_000, *(part for n in range(1_000) for part in (f"d{n}", *at(n), "TEXT", "t" * 10_000, "META", '{"n":%d}' % n))]]),
    Case("SESSION.EXPORT of 10,000 of a million", "1.3 s", lambda h: session(h, 1_000_000), lambda _: [["SESSION.EXPORT", "s", "COUNT", 10_000]]),
    Case("DEL of a session of a million messages", "0.7 s", lambda h: session(h, 1_000_000), lambda _: [["DEL", "s"]]),
    Case("SESSION.LIST COUNT 10 past 100,000 that are gone", "0.1 s", dead_sessions, lambda _: [["SESSION.LIST", "o", "COUNT", 10]]),
    Case("DEL of a cache of 100,000", "", lambda h: answers(h, 100_000), lambda _: [["DEL", "faq"]]),
]  # fmt: skip


def many_containers(report: Report, table, host: Host, prober: Prober) -> None:
    """Containers that nobody uses: what an idle server does for them, and what their number costs others."""
    filled(host, (("KVCHUNK.CREATE", f"n{n}") for n in range(10_000)))
    host("CONFIG", "SET", "maxmemory", "4gb")
    add_idle(report, table, prober, "10,000 namespaces with maxmemory, idle", "505 ms (2,000)")
    filled(host, (("LLMCACHE.CREATE", f"c{n}") for n in range(100_000)))
    add_idle(report, table, prober, "100,000 caches more, idle", "")
    for what, then, command in (
        ("SET EX with 100,000 caches", "0.76 ms", ["SET", "plain", "x", "EX", 100]),
        ("INFO with 100,000 caches", "500 ms", ["INFO", "everything"]),
    ):
        wire = host.wire()
        took = []
        for _ in range(20):
            start = time.perf_counter()
            wire(*command)
            took.append((time.perf_counter() - start) * 1e3)
        stall = prober.beside(wire, encode(command))
        table.add(what, then, f"{stall.own_ms:.1f}", f"{stall.p99_ms:.2f}", f"{stall.whole_ms:.1f}", "", f"{sorted(took)[10]:.2f}", "done")
        report.figures[what] = {"then": then, "own_ms": round(stall.own_ms, 2), "took_ms": round(sorted(took)[10], 3)}


def add_idle(report: Report, table, prober: Prober, what: str, then: str, seconds: float = 5) -> None:
    owns, whole = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one, all_ = prober.ping()
        owns.append(one / 1e6)
        whole = max(whole, all_)
        time.sleep(0.0005)
    owns.sort()
    own, p99 = owns[-1], owns[len(owns) * 99 // 100]
    table.add(what, then, f"{own:.1f}", f"{p99:.2f}", f"{whole / 1e6:.1f}", "", "", "")
    report.figures[what] = {"then": then, "own_ms": round(own, 2), "p99_ms": round(p99, 3)}
