"""Commands and round trips of one lookup, one miss, one store: counted by the server, asserted.

What other libraries need for the same is documented, not measured here: the counts come from
reading the published packages, versions in the table, with the embedding call left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vectors
from host import Host
from report import Report, check
from wire import Wire, encode

TEXT = """Commands are what the server's `INFO commandstats` and `MONITOR` counted, round trips what the client
waited for; both are asserted to be 1. The rows below ours are sequential round trips of the packages as
published, the embedding call left out; where a range is given it depends on the settings (TTL, costs,
statistics)."""

PEERS = (
    ("RedisVL SemanticCache 0.28", "1 to 2", "1", "1"),
    ("langchain-redis 0.2.6, exact", "1", "1", "2"),
    ("betterdb-semantic-cache 0.13", "4 to 7", "4 to 5", "2 to 3"),
    ("GPTCache 0.1.44, all in Redis", "5 to 6", "1 and more", "4"),
    ("vector set and a key for the answer", "2", "1", "1"),
)


def run(server, module: Path, folder: Path, base: np.ndarray) -> Report:
    report = Report("Round trips", TEXT)
    table = report.table("what", "hit", "miss", "store")
    a, b = vectors.blob(base[0]), vectors.blob(-base[0])
    store = ["LLMCACHE.SETSEM", "faq", "PROMPT", "one", "RESPONSE", "1", "FP32", a, "SCOPE", "s", "EX", 60]
    exact = ["LLMCACHE.GETSEM", "faq", "PROMPT", "one", "SCOPE", "s"]
    both = ["LLMCACHE.GETSEM", "faq", "PROMPT", "uno", "FP32", a, "SCOPE", "s", "RETURN", 1, "response"]
    miss = ["LLMCACHE.GETSEM", "faq", "PROMPT", "two", "FP32", b, "SCOPE", "s", "EXPLAIN"]
    with Host(server.name, server.path, folder / "trips", module) as host:
        host("LLMCACHE.CREATE", "faq", "MAXENTRIES", 1_000)
        stored = count(host, store)
        check(len(stored[1]) == 32, "a store answers its id")
        again = count(host, store)
        by_words = count(host, exact)
        check(field(by_words[1], b"tier") == b"exact", "the same words are an exact hit")
        by_meaning = count(host, both)
        check(field(by_meaning[1], b"response") == b"1", "another wording is a hit by meaning")
        missed = count(host, miss)
        check(field(missed[1], b"status") == b"miss", "the opposite vector is a miss")
        plain = count(host, ["LLMCACHE.GET", "faq", "PROMPT", "one", "SCOPE", "s"])
        check(plain[1] == b"1", "GET answers the response")
    for name, (commands, _) in {
        "store": stored, "store again": again, "exact hit": by_words, "semantic hit": by_meaning, "miss": missed, "GET": plain
    }.items():
        check(commands == 1, f"{name} took {commands} commands")
        report.figures[name] = {"commands": commands, "round_trips": 1}
    table.add("llmcache, exact and semantic", "**1**", "**1**", "**1**")
    for peer in PEERS:
        table.add(*peer)
    report.add_target("lookup, miss, store", "1 round trip and 1 command each", "1 and 1", True)
    return report


def count(host: Host, command: list) -> tuple[int, object]:
    """How many commands the server ran for one request and one reply, and the reply."""
    before = calls(host)
    with Wire(host.port) as monitor, Wire(host.port) as client:
        check(monitor("MONITOR") == "OK", "MONITOR starts")
        client.socket.sendall(encode(command))
        reply = client.read()
        client.socket.sendall(encode(["ECHO", "end"]))
        check(client.read() == b"end", "one request had one reply")
        seen = []
        while b'"end"' not in (line := monitor.file.readline()):
            seen.append(line)
    after = calls(host)
    ran = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    own = {name.lower(): n for name, n in ran.items() if name.lower() not in ("info", "monitor", "echo")}
    check(list(own) == [command[0].lower()], f"commandstats saw {own}")
    check(sum(own.values()) == len(seen), f"MONITOR saw {len(seen)} commands, commandstats {own}")
    return len(seen), reply


def calls(host: Host) -> dict[str, int]:
    stats = host.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): int(rest.split("calls=")[1].split(",")[0]) for name, rest in stats.items()
    }


def field(flat: object, name: bytes) -> object:
    check(isinstance(flat, list), f"wanted a map, got {flat!r}")
    return dict(zip(flat[::2], flat[1::2])).get(name)
