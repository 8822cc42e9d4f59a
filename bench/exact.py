"""An exact hit beside plain GET of the same bytes, at pipelines of 1 and 16."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contest import Contender, cpu_ratio, rate_ratio, rates
from host import Host
from report import Report, check, number
from wire import encode, learn

PROMPT_BYTES = 100
RESPONSE_BYTES = 600
KEYS = (1, 10_000)
DEPTHS = (1, 16)
CONNECTIONS = {1: 16, 16: 4}
TARGET = 0.8

TEXT = """`LLMCACHE.GET` of a prompt of 100 bytes whose response has 600, against plain `GET` of the
same 600 bytes on the same server. Ratio of throughput, and of the server's CPU time a command
(above 1: less than `GET` needs); median of the rounds, lowest and highest in brackets.

"No cache" is the same command with the same arguments for a cache that does not exist: four arguments
of 150 bytes are parsed, the module is called, one absent key is looked up, null is answered. What it
costs beside `GET` is the server's price of calling a module, which a hit pays before it hashes the
prompt (2 blocks of SHA-256), builds and opens the entry's key (55 bytes), compares the prompt and
answers 600 bytes. At a pipeline of 1 the system calls outweigh all that; at 16 they do not.

By instructions (callgrind, redis-7.0, 10,000 keys; SHA-256 left out, which such a count does in software) `GET` takes 4,500, and a
hit 9,100: 4,100 of the server, which reads four arguments of 150 bytes, and 5,100 in the module. About 2,500 of these are the
server's functions that a module calls to open a key and answer: a string made and freed (500), the key opened and closed (930),
the reply (660), arguments and dispatch (400). So a module that did nothing else of its own would reach 4,500 / 6,600, or 0.68 of
`GET` by CPU; the other 2,600 name the entry, prove it and count the hit."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float


def prompt(number: int) -> bytes:
    return (b"How do I change the delivery address of order %08d? " % number).ljust(PROMPT_BYTES, b".")


def response(number: int) -> bytes:
    return (b"Open order %08d, choose Delivery, then Change address. " % number).ljust(RESPONSE_BYTES, b".")


def run(servers: list, module: Path, folder: Path, plan: Plan) -> Report:
    report = Report("Exact hit against GET", TEXT)
    table = report.table(
        *("server", "keys", "pipeline", "GET/s", "LLMCACHE.GET/s", "throughput", "no cache"),
        *("GET CPU us", "ours CPU us", "no cache CPU us", "CPU"),
    )
    for server in servers:
        with Host(server.name, server.path, folder / f"exact-{server.name}", module) as host:
            store(host)
            for keys in KEYS:
                for depth in DEPTHS:
                    measure(report, table, host, keys, depth, plan)
    return report


def store(host: Host) -> None:
    for number in range(max(KEYS)):
        check(len(prompt(number)) == PROMPT_BYTES, "a prompt has 100 bytes")
    commands = []
    for number in range(max(KEYS)):
        commands.append(encode(["SET", f"answer:{number:08d}", response(number)]))
        commands.append(encode(["LLMCACHE.SET", "faq", "PROMPT", prompt(number), "RESPONSE", response(number)]))
    replies = host.control.pipeline(commands)
    check(replies[0] == "OK" and isinstance(replies[1], bytes), f"stored: {replies[:2]}")


def measure(report: Report, table, host: Host, keys: int, depth: int, plan: Plan) -> None:
    # A stride that is coprime with the number of keys: every key comes once, none near the last.
    order = [(at * 7_919) % keys for at in range(max(keys, depth))]

    def right(at: int, reply: object) -> None:
        check(reply == response(order[at]), f"{host.name} answered {reply!r}")

    def absent(_: int, reply: object) -> None:
        check(reply is None, f"{host.name} answered {reply!r} without a cache")

    def contender(name: str, commands: list[bytes], verdict=right) -> Contender:
        return Contender(name, host, learn(host.control, commands, depth, verdict), CONNECTIONS[depth])

    get = contender("GET", [encode(["GET", f"answer:{n:08d}"]) for n in order])
    ours = contender("LLMCACHE.GET", [encode(["LLMCACHE.GET", "faq", "PROMPT", prompt(n)]) for n in order])
    floor = contender("no cache", [encode(["LLMCACHE.GET", "none", "PROMPT", prompt(n)]) for n in order], absent)
    rates([get, ours, floor], plan.rounds, plan.seconds)
    ratio, cpu, most = rate_ratio(ours, get), cpu_ratio(ours, get), rate_ratio(floor, get)
    table.add(
        *(host.name, f"{keys:,}", depth, number(get.rate()), number(ours.rate()), ratio, most),
        *(f"{get.cpu():.2f}", f"{ours.cpu():.2f}", f"{floor.cpu():.2f}", cpu),
    )
    report.figures[f"{host.name}/keys {keys}/pipeline {depth}"] = {
        "get_per_s": round(get.rate()),
        "ours_per_s": round(ours.rate()),
        "throughput_ratio": ratio.raw(),
        "no_cache_ratio": most.raw(),
        "no_cache_cpu_us": round(floor.cpu(), 3),
        "get_cpu_us": round(get.cpu(), 3),
        "ours_cpu_us": round(ours.cpu(), 3),
        "cpu_ratio": cpu.raw(),
    }
    report.add_target(
        f"exact hit, {host.name}, {keys:,} {'keys' if keys > 1 else 'key'}, pipeline {depth}", f">= {TARGET} x GET", f"{ratio}", ratio.median >= TARGET
    )
