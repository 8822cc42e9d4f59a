"""Conversations beside what clients do with lists, hashes, streams and channels of the same server."""

from __future__ import annotations

import itertools
import json
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contest import Contender, Spread, cpu_ratio, rate_ratio, rates, spread
from host import Host
from report import Report, check, number
from wire import Wire, encode, learn

CONVERSATIONS = Path(__file__).resolve().parent.parent / "tests" / "data" / "conversations.jsonl"
BUDGET = 4_000
DELTAS = 500
SERVER_TIME_TARGET = 1.3
MEMORY_TARGET = 0.8

TEXT = """Messages of real conversations (`tests/data`, {average} bytes on average), one client, one connection, one
server. A ratio above 1 is in our favour; median of the rounds, lowest and highest in brackets. Round trips
are counted, server time is the CPU time of the server's process.

*Append*: two messages and the deadline, in one step. The list of the OpenAI Agents SDK takes `WATCH`, three times `TYPE`,
`TIME` and a transaction; most other clients take `RPUSH` and `EXPIRE`, which is not atomic.
*Window*: the newest messages of {budget:,} tokens. Without tokens in the server a client reads the whole list and counts
(here by bytes / 4, far cheaper than a tokeniser); the same bytes by `LRANGE` is the floor, of a client that
knows how many messages it needs.
*Stream*: an answer of {deltas} parts, each kept and told to readers, against `XADD` and `PUBLISH`.
Of one message of the list `LRANGE` makes one part of its reply, `WINDOW` five (array, place, role, text, tokens), which is
what its server time is beside short messages; the 5,001 are twelve times as long. `JSON` makes one string of all.
*Memory*: what a message takes beside a list of JSON of the same fields, without keys' own overhead counted apart."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float


@dataclass
class Way:
    """One way to do something in several round trips."""

    name: str
    steps: Callable[[], Iterator[list[list]]]
    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    trips: int = 0
    commands: int = 0


def texts() -> list[dict]:
    rows = [json.loads(line) for line in CONVERSATIONS.read_text().splitlines()]
    return [message for row in rows for side in ("a", "b") for message in row[side]]


def run(server, module: Path, folder: Path, plan: Plan) -> Report:
    messages = texts()
    average = sum(len(m["content"].encode()) for m in messages) // len(messages)
    report = Report("Conversations", TEXT.format(average=average, budget=BUDGET, deltas=DELTAS))
    with Host(server.name, server.path, folder / "session", module) as host:
        append(report, host, messages, plan)
        window(report, host, messages, plan)
        stream(report, host, plan)
        memory(report, host, messages)
    return report


def as_json(message: dict, **more) -> str:
    return json.dumps({**more, "role": message["role"], "content": message["content"]}, ensure_ascii=False)


def race(host: Host, ways: list[Way], plan: Plan, each: int) -> None:
    """`each` turns of every way in each round, in turn; the wall and the server's time of one turn."""
    with Wire(host.port) as wire:
        for round_ in range(-1, plan.rounds):
            for way in ways:
                prepared = [[b"".join(map(encode, trip)) for trip in turn] for turn in itertools.islice(way.steps(), each)]
                sizes = [[len(trip) for trip in turn] for turn in itertools.islice(way.steps(), 1)][0]
                way.trips, way.commands = len(sizes), sum(sizes)
                cpu, start = host.cpu_seconds(), time.perf_counter()
                for turn in prepared:
                    for trip, size in zip(turn, sizes):
                        wire.socket.sendall(trip)
                        for _ in range(size):
                            wire.read()
                wall, cpu = time.perf_counter() - start, host.cpu_seconds() - cpu
                if round_ >= 0:
                    way.wall_us.append(wall / each * 1e6)
                    way.cpu_us.append(cpu / each * 1e6)


def against(ours: Way, theirs: Way) -> tuple[Spread, Spread]:
    """Their wall time and server time over ours."""
    return (
        spread([b / a for a, b in zip(ours.wall_us, theirs.wall_us)]),
        spread([b / a for a, b in zip(ours.cpu_us, theirs.cpu_us)]),
    )


def append(report: Report, host: Host, messages: list[dict], plan: Plan) -> None:
    turns = list(zip(messages[::2], messages[1::2]))
    names = itertools.count()

    def pairs() -> Iterator[tuple[str, tuple[dict, dict]]]:
        for at, turn in enumerate(itertools.cycle(turns)):
            # Twenty turns a conversation.
            if at % 20 == 0:
                name = f"{next(names):08d}"
            yield name, turn

    def ours() -> Iterator[list[list]]:
        for name, turn in pairs():
            parts = [part for m in turn for part in ("MSG", m["role"], m["content"], "TOKENS", 40)]
            yield [[["SESSION.APPEND", f"a{name}", "TTL", 3_600, *parts]]]

    def agents() -> Iterator[list[list]]:
        for name, turn in pairs():
            keys = [f"session:{{{name}}}{part}" for part in ("", ":messages", ":counter")]
            at_ms = int(time.time() * 1_000) + 3_600_000
            yield [
                [["WATCH", *keys]],
                *([["TYPE", key]] for key in keys),
                [["TIME"]],
                [
                    ["MULTI"],
                    ["HSET", keys[0], "session_id", name],
                    ["HSETNX", keys[0], "created_at", "1763740303"],
                    ["RPUSH", keys[1], *map(as_json, turn)],
                    ["HSET", keys[0], "updated_at", "1763740303"],
                    *(["PEXPIREAT", key, at_ms] for key in keys),
                    ["EXEC"],
                ],
            ]

    def simple() -> Iterator[list[list]]:
        for name, turn in pairs():
            yield [[["RPUSH", f"l{name}", *map(as_json, turn)]], [["EXPIRE", f"l{name}", 3_600]]]

    ways = [Way("SESSION.APPEND", ours), Way("OpenAI Agents' sequence", agents), Way("RPUSH, EXPIRE", simple)]
    race(host, ways, plan, each=2_000)
    table = report.table("append of two messages", "round trips", "commands", "us", "server us", "time", "server time")
    check(ways[0].trips == 1 and ways[1].trips == 6, "one round trip against six")
    for way in ways:
        wall, cpu = against(ways[0], way)
        row = (statistics.median(way.wall_us), statistics.median(way.cpu_us))
        table.add(way.name, way.trips, way.commands, number(row[0]), number(row[1]), wall, cpu)
        report.figures[f"append/{way.name}"] = {
            **{"round_trips": way.trips, "us": round(row[0], 2), "server_us": round(row[1], 2)},
            **{"time_ratio": wall.raw(), "server_time_ratio": cpu.raw()},
        }
    report.add_target("append of two messages with TTL", "1 round trip (6 today)", f"{ways[0].trips}", ways[0].trips == 1)
    host("FLUSHALL")


def window(report: Report, host: Host, messages: list[dict], plan: Plan) -> None:
    table = report.table(
        *("messages", "way", "messages answered", "bytes answered", "client us", "server us", "server time of WINDOW over it", "client time"),
    )
    whole = [{"role": m["role"], "content": m["content"] * 12} for m in messages]
    for size, source in ((500, messages), (5_000, messages), (5_001, whole)):
        # The last: answers as models write them, of a thousand bytes.
        talk = list(itertools.islice(itertools.cycle(source), size))
        host("SESSION.APPEND", f"s{size}", "MSG", talk[0]["role"], talk[0]["content"])
        for at in range(1, size, 500):
            parts = [part for m in talk[at : at + 500] for part in ("MSG", m["role"], m["content"])]
            host("SESSION.APPEND", f"s{size}", *parts)
        host("RPUSH", f"l{size}", *map(as_json, talk))
        ask = ["SESSION.WINDOW", f"s{size}", "TOKENS", BUDGET]
        tokens, _, _, answered = host(*ask)
        check(0 < tokens <= BUDGET and len(answered) < size, f"a window of {tokens} tokens, {len(answered)} messages")
        newest = [m["content"].encode() for m in talk[-len(answered) :]]
        check([m[2] for m in answered] == newest, "the newest messages")
        contenders = [
            ("SESSION.WINDOW", ask),
            ("SESSION.WINDOW JSON", [*ask, "JSON"]),
            ("LRANGE of as many messages", ["LRANGE", f"l{size}", -len(answered), -1]),
            ("LRANGE of all", ["LRANGE", f"l{size}", 0, -1]),
        ]
        each = [Contender(name, host, learn(host.control, [encode(command)], 1), 1) for name, command in contenders]
        rates(each, plan.rounds, plan.seconds)
        clients = client_times(host, contenders, plan)
        ours = each[0]
        for contender, (name, _) in zip(each, contenders):
            # The server's time of WINDOW over theirs: below 1 where WINDOW takes less.
            over = cpu_ratio(contender, ours)
            wall = spread([b / a for a, b in zip(clients["SESSION.WINDOW"], clients[name])])
            count = size if name.endswith("all") else len(answered)
            table.add(
                *(f"{size:,}", name, f"{count:,}", f"{contender.batches[0].reply_bytes:,}"),
                *(number(statistics.median(clients[name])), f"{contender.cpu():.2f}", over, wall),
            )
            report.figures[f"window/{size}/{name}"] = {
                **{"bytes": contender.batches[0].reply_bytes, "server_us": round(contender.cpu(), 3)},
                **{"client_us": round(statistics.median(clients[name]), 2), "server_time_ratio": over.raw(), "client_ratio": wall.raw()},
                "rate_ratio": rate_ratio(ours, contender).raw(),
            }
        what = f"window of {BUDGET:,} tokens of {size:,} messages"
        for form, which in (("", ours), (" as JSON", each[1])):
            # The server's time of WINDOW over that of LRANGE.
            over = cpu_ratio(each[2], which)
            report.add_target(f"{what}{form}, server time over LRANGE of the same", f"<= {SERVER_TIME_TARGET} x", f"{over}", over.median <= SERVER_TIME_TARGET)
        wall = spread([b / a for a, b in zip(clients["SESSION.WINDOW"], clients["LRANGE of all"])])
        report.add_target(f"{what}, against reading all and counting", "> 1 x faster", f"{wall}", wall.median > 1)
    host("FLUSHALL")


def client_times(host: Host, contenders: list, plan: Plan) -> dict[str, list[float]]:
    """Microseconds until the client holds the messages it will send to a model, round by round."""

    def newest(reply: list) -> list:
        if isinstance(reply[0], int):
            return reply[3] if isinstance(reply[3], list) else json.loads(reply[3])
        kept: list = []
        left = BUDGET
        for text in reversed(reply):
            message = json.loads(text)
            left -= -(-len(message["content"].encode()) // 4)
            if left < 0:
                break
            kept.append(message)
        return kept[::-1]

    times: dict[str, list[float]] = {name: [] for name, _ in contenders}
    with Wire(host.port) as wire:
        for round_ in range(-1, plan.rounds):
            for name, command in contenders:
                best = float("inf")
                for _ in range(20):
                    start = time.perf_counter()
                    kept = newest(wire(*command))
                    best = min(best, time.perf_counter() - start)
                check(len(kept) > 1, "messages for a model")
                if round_ >= 0:
                    times[name].append(best * 1e6)
    return times


def stream(report: Report, host: Host, plan: Plan) -> None:
    part = b"token and "
    names = itertools.count()

    def ours() -> Iterator[list[list]]:
        while True:
            name = f"t{next(names)}"
            seq, token, _ = host("SESSION.BEGIN", name, "assistant")
            parts = [[["SESSION.CHUNK", name, seq, token, at * len(part), part]] for at in range(DELTAS)]
            yield [*parts, [["SESSION.END", name, seq, token]]]

    def pairs() -> Iterator[list[list]]:
        while True:
            name = f"x{next(names)}"
            steps = []
            for at in range(DELTAS):
                steps.append([["XADD", name, "*", "seq", at, "delta", part]])
                steps.append([["PUBLISH", f"c{name}", part]])
            yield [*steps, [["XADD", name, "*", "end", 1]], [["PUBLISH", f"c{name}", "end"]], [["EXPIRE", name, 3_600]]]

    def together() -> Iterator[list[list]]:
        for steps in pairs():
            two = [steps[at][:] + steps[at + 1] for at in range(0, 2 * DELTAS, 2)]
            yield [*two, [command for step in steps[2 * DELTAS :] for command in step]]

    ways = [Way("CHUNK", ours), Way("XADD, PUBLISH", pairs), Way("XADD and PUBLISH in one trip", together)]
    race(host, ways, plan, each=6)
    table = report.table(f"stream of {DELTAS} parts", "round trips", "commands", "us a part", "server us a part", "time", "server time")
    for way in ways:
        wall, cpu = against(ways[0], way)
        row = (statistics.median(way.wall_us) / DELTAS, statistics.median(way.cpu_us) / DELTAS)
        table.add(way.name, f"{way.trips:,}", f"{way.commands:,}", number(row[0]), number(row[1]), wall, cpu)
        report.figures[f"stream/{way.name}"] = {
            **{"round_trips": way.trips, "us": round(row[0], 2), "server_us": round(row[1], 2)},
            **{"time_ratio": wall.raw(), "server_time_ratio": cpu.raw()},
        }
    wall, _ = against(ways[0], ways[1])
    report.add_target(f"stream of {DELTAS} parts against XADD, PUBLISH", "> 1 x", f"{wall}", wall.median > 1)
    host("FLUSHALL")


def memory(report: Report, host: Host, messages: list[dict]) -> None:
    """Five hundred conversations of forty messages each, in both forms."""
    talks = [list(itertools.islice(itertools.cycle(messages), at * 7 % len(messages), at * 7 % len(messages) + 40)) for at in range(500)]
    count = sum(map(len, talks))
    namespace = uuid.UUID(int=7)

    def id_of(at: int, place: int) -> str:
        return str(uuid.uuid5(namespace, f"{at} {place}"))

    def tokens(message: dict) -> int:
        return -(-len(message["content"].encode()) // 4)

    def langchain(message: dict, id_: str) -> str:
        kind = "human" if message["role"] == "user" else "ai"
        data = {"content": message["content"], "additional_kwargs": {}, "response_metadata": {}, "type": kind, "name": None, "id": id_}
        return json.dumps({"type": kind, "data": data}, ensure_ascii=False)

    forms = {
        "role and content": (lambda m, _: as_json(m), False),
        "id, role, content, tokens": (lambda m, id_: as_json(m, id=id_, tokens=tokens(m)), True),
        "LangChain's message": (langchain, True),
    }
    table = report.table("fields", "payload bytes", "SESSION, bytes a message", "list of JSON, bytes a message", "ratio")
    payload = sum(len(m["content"].encode()) for talk in talks for m in talk) / count
    for name, (form, with_id) in forms.items():
        host("FLUSHALL")
        before = host.used_memory()
        for at, talk in enumerate(talks):
            for place, message in enumerate(talk):
                more = ["ID", id_of(at, place), "TOKENS", tokens(message)] if with_id else []
                host("SESSION.APPEND", f"s{at:06d}", "MSG", message["role"], message["content"], *more)
        ours = (host.used_memory() - before) / count
        host("FLUSHALL")
        before = host.used_memory()
        for at, talk in enumerate(talks):
            for place, message in enumerate(talk):
                host("RPUSH", f"s{at:06d}", form(message, id_of(at, place)))
        theirs = (host.used_memory() - before) / count
        ratio = ours / theirs
        table.add(name, f"{payload:.0f}", f"{ours:.0f}", f"{theirs:.0f}", f"{ratio:.2f}")
        report.figures[f"memory/{name}"] = {"payload": round(payload), "ours": round(ours, 1), "list": round(theirs, 1), "ratio": round(ratio, 3)}
        if with_id:
            report.add_target(f"memory of a message, {name}", f"<= {MEMORY_TARGET} x a list of JSON", f"{ratio:.2f}", ratio <= MEMORY_TARGET)
    host("FLUSHALL")
