#!/usr/bin/env python3
"""Shows llmcache at work on real questions: exact hits, hits by meaning, misses, expiry, why a lookup
was refused, and what was saved. Starts a server of its own and stops it at the end. With the embedding model
(`make model`, which this asks for) the server embeds texts itself; without it the demo says so and goes on with the
vectors of its data.

    python demo/run.py [--server redis-server] [--module target/release/libllmcache.so]

Fails when the server's verdicts differ from brute force over the same embeddings.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import redis

from pairs import TRAPS, TRUE_REPEATS, Pair, load
from screen import Progress, command, heading, paint, reply, say
from server import CannotStart, Server

ROOT = Path(__file__).resolve().parent.parent
THRESHOLD = 0.90
MODEL = ROOT / "models" / "all-MiniLM-L6-v2"
# The data has questions and no answers, so what an answer costs is assumed: a short one of a mid-priced
# model. The demo says so where it prints what was saved.
TOKENS, COST_USD, LATENCY_MS = 250, "0.0025", 1_800
# Vectors are kept as f16, so a pair this close to the threshold may fall on the other side of it.
PAIRS_THAT_MAY_DIFFER = 1


def main() -> int:
    options = argparse.ArgumentParser(description="show llmcache at work on real questions")
    options.add_argument("--server", default="redis-server", help="server to start")
    module = ROOT / "target" / "release" / "libllmcache.so"
    options.add_argument("--module", type=Path, default=module, help="module to load")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        model = provide_model()
        with Server(chosen.server, chosen.module.resolve(), model) as server:
            try:
                return show(server.client(), model is not None)
            except redis.exceptions.ConnectionError:
                print("\nthe server went away; its last words:\n" + server.last_words(), file=sys.stderr)
    except CannotStart as reason:
        print(reason, file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted; the demo's server is stopped", file=sys.stderr)
    return 1


def provide_model() -> Path | None:
    """The folder of the embedding model, fetched once; none where it cannot be had."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "model.py"], capture_output=True, text=True)
    if done.returncode == 0:
        return MODEL
    print(f"{done.stderr.strip().splitlines()[-1]}\nsection 6, texts without vectors, is left out", file=sys.stderr)
    return None


def show(client: redis.Redis, embeds: bool) -> int:
    pairs = load()
    info = client.info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.get("valkey_version", info["redis_version"])
    print(paint("llmcache: answers found by their words and by their meaning", "bold"))
    say(
        f"A private {name}-server {version} with the module, {len(pairs)} pairs of real questions "
        "with embeddings of all-MiniLM-L6-v2 (384 dimensions). Data: fow-cache 0.1.0, CC BY 4.0."
    )
    store_first_questions(client, pairs)
    by_id = {pair.id: pair for pair in pairs}
    show_lookups(client, by_id)
    show_expiry(client, by_id["paraphrase-076"])
    agrees = show_table(client, pairs)
    show_saved(client)
    if embeds:
        show_texts(client, by_id["paraphrase-034"])
    print(f"\nSee it in a browser: {paint('make console', 'bold')} opens the console on these questions.")
    return 0 if agrees else 1


def store_first_questions(client: redis.Redis, pairs: list[Pair]) -> None:
    heading("1. Store answers: one command each, exact tier and meaning at once")
    command(
        'LLMCACHE.SETSEM faq PROMPT "Does the hotel have a pool?" RESPONSE "..." FP16 <768 bytes> '
        f"TOKENS {TOKENS} COST {COST_USD} LATENCY {LATENCY_MS}"
    )
    for pair in pairs:
        store(client, "faq", pair, f"(the answer to: {pair.first})")
    entries = client.execute_command("LLMCACHE.INFO", "faq")[b"entries"]
    memory = client.execute_command("LLMCACHE.INFO", "faq")[b"bytes"]
    reply("OK", f"{entries} different questions in one cache, {memory / entries:,.0f} bytes each", "green")


def show_lookups(client: redis.Redis, by_id: dict[str, Pair]) -> None:
    pool, route = by_id["paraphrase-034"], by_id["entity_swap-023"]
    dose, order = by_id["number_date-007"], "Where is the nearest tram stop?"

    heading("2. Ask: a hit by words, a hit by meaning, a miss, a refusal, a trap")
    command(f'LLMCACHE.GET faq PROMPT "{pool.first}"')
    answer = client.execute_command("LLMCACHE.GET", "faq", "PROMPT", pool.first)
    reply("HIT", f"exact, no vector needed: {answer.decode()}", "green")

    command(f'LLMCACHE.GETSEM faq PROMPT "{pool.second}" FP16 <768 bytes>')
    hit = look_up(client, "faq", pool.second, pool.second_vector)
    matched = hit[b"prompt"].decode()
    reply("HIT", f'{hit[b"tier"].decode()}, similarity {hit[b"similarity"]:.3f} to "{matched}"', "green")

    command(f'LLMCACHE.GET faq PROMPT "{order}"')
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", order) is None
    reply("MISS", "null: nobody asked this; generate the answer, then SETSEM it", "yellow")

    command(f'LLMCACHE.GETSEM faq PROMPT "{route.second}" FP16 <768 bytes> EXPLAIN')
    why = look_up(client, "faq", route.second, route.second_vector, "EXPLAIN")
    nearest = why[b"nearest"]
    reply(
        "MISS",
        f"reason {why[b'reason'].decode()}: the nearest of {why[b'candidates']} scores "
        f"{nearest[b'similarity']:.3f}, threshold {why[b'threshold']:.2f}: "
        f'"{nearest[b"prompt"].decode()}"',
        "yellow",
    )

    command(f'LLMCACHE.GETSEM faq PROMPT "{dose.second}" FP16 <768 bytes> EXPLAIN')
    why = look_up(client, "faq", dose.second, dose.second_vector, "EXPLAIN")
    nearest = why[b"nearest"]
    reply(
        "MISS",
        f"reason {why[b'reason'].decode()}, by {why[b'guard'].decode()}: "
        f'{nearest[b"similarity"]:.3f} to "{nearest[b"prompt"].decode()}" is near and another question. '
        "Section 4 counts what similarity alone would serve.",
        "yellow",
    )


def show_expiry(client: redis.Redis, pair: Pair) -> None:
    heading("3. Expiry: each entry is a Redis key with a TTL of its own")
    life_ms = 2_000
    command(f'LLMCACHE.SETSEM news PROMPT "{pair.first}" RESPONSE "..." FP16 <768 bytes> PX {life_ms}')
    stored = time.monotonic()
    store(client, "news", pair, "Germany.", "PX", life_ms)
    hit = look_up(client, "news", pair.second, pair.second_vector)
    reply("HIT", f'"{pair.second}" finds it; {hit[b"ttl"]} ms to live', "green")
    while look_up(client, "news", pair.second, pair.second_vector):
        time.sleep(0.01)
    lived = time.monotonic() - stored
    keys = sum(1 for _ in client.scan_iter("{news}:*"))
    reply("MISS", f"{lived:.2f} s after it was stored no lookup finds it; keys left: {keys}", "yellow")


def show_table(client: redis.Redis, pairs: list[Pair]) -> bool:
    heading(f"4. {len(pairs)} pairs, each in a scope of its own, threshold {THRESHOLD:.2f}")
    client.config_resetstat()
    client.execute_command("LLMCACHE.CREATE", "pairs", "GUARD", "OFF")
    storing = Progress("first questions", len(pairs))
    for pair in pairs:
        store(client, "pairs", pair, pair.id, "SCOPE", pair.id)
        storing.step()
    times_us, served, guarded, differing = [], Counter(), Counter(), 0
    asking = Progress("second questions", len(pairs))
    for pair in pairs:
        start = time.perf_counter()
        asked = ("pairs", pair.second, pair.second_vector, "SCOPE", pair.id, "THRESHOLD", THRESHOLD)
        hit = look_up(client, *asked)
        times_us.append((time.perf_counter() - start) * 1e6)
        served[pair.category] += hit is not None
        guarded[pair.category] += look_up(client, *asked, "GUARD", "ON") is not None
        differing += (hit is not None) != (pair.similarity() >= THRESHOLD)
        asking.step()
    print_table(pairs, served, guarded)
    print_times(client, times_us)
    agrees = differing <= PAIRS_THAT_MAY_DIFFER
    verdict = "agrees with" if agrees else "DIFFERS from"
    print(
        f"  {verdict} brute force over the same embeddings on {len(pairs) - differing} of "
        f"{len(pairs)} pairs"
    )
    return agrees


def print_table(pairs: list[Pair], served: Counter, guarded: Counter) -> None:
    totals = Counter(pair.category for pair in pairs)

    def line(label: str, categories: tuple[str, ...], *style: str) -> None:
        hits, total = sum(served[c] for c in categories), sum(totals[c] for c in categories)
        share, kept = hits / total, sum(guarded[c] for c in categories) / total
        bar = "#" * round(24 * kept) + "." * (round(24 * share) - round(24 * kept))
        print(paint(f"  {label:18} {hits:4} of {total:3}  {share:6.1%}   {kept:6.1%}  ", *style) + bar)

    print()
    print(paint(f"  {'':18} {'served, GUARD OFF':>20} {'ON':>7}", "dim"))
    line("true repeats", TRUE_REPEATS, "bold", "green")
    for category in TRUE_REPEATS:
        line(f"  {category}", (category,))
    line("traps", TRAPS, "bold", "red")
    for category in TRAPS:
        line(f"  {category}", (category,))
    print()
    say(
        "The traps read like the first question and want another answer. Their rate is what plain "
        "similarity gives with this embedding model, in any cache that checks nothing else (GUARD "
        "OFF); ON, the default, compares numbers, opposites and order first. A higher THRESHOLD serves "
        "fewer traps and fewer true repeats."
    )


def print_times(client: redis.Redis, times_us: list[float]) -> None:
    times_us.sort()
    p50, p99 = (times_us[int(share * (len(times_us) - 1))] for share in (0.50, 0.99))
    stats = {name.lower(): entry for name, entry in client.info("commandstats").items()}
    spread = {name.lower(): entry for name, entry in client.info("latencystats").items()}
    print()
    print(f"  {'a lookup, seen by the client':32} p50 {p50:6.0f} us   p99 {p99:6.0f} us")
    for label, name in (("a lookup", "getsem"), ("a store", "setsem")):
        median = spread[f"latency_percentiles_usec_llmcache.{name}"]["p50"]
        mean = stats[f"cmdstat_llmcache.{name}"]["usec_per_call"]
        print(f"  {label + ', inside the server':32} p50 {float(median):6.0f} us  mean {mean:6.0f} us")


def show_saved(client: redis.Redis) -> None:
    heading("5. What was saved: LLMCACHE.STATS pairs")
    stats = client.execute_command("LLMCACHE.STATS", "pairs")
    seconds = stats[b"ms_saved"] / 1_000
    print(f"  lookups {stats[b'lookups']}, hits {stats[b'hits']}, hit ratio {stats[b'hit_ratio']:.1%}")
    print(f"  tokens  {stats[b'tokens_saved']:,} not generated again")
    print(f"  time    {seconds / 60:.1f} minutes not waited")
    print(f"  money   {stats[b'usd_saved'].decode()} USD not spent")
    print()
    say(
        f"Each answer counts as {TOKENS} tokens, {COST_USD} USD and {LATENCY_MS / 1_000} s: an "
        "assumption of this demo, given with each SETSEM. The traps that were served are counted "
        "too: the server cannot know."
    )


def show_texts(client: redis.Redis, pool: Pair) -> None:
    heading("6. Text in, answer out: the server embeds the question itself")
    asked = [
        ("How do I get my money back?", "How can I get my money back?"),
        (pool.first, pool.second),
    ]
    command("LLMCACHE.CREATE texts EMBED minilm")
    client.execute_command("LLMCACHE.CREATE", "texts", "EMBED", "minilm")
    for stored, question in asked:
        command(f'LLMCACHE.SETSEM texts PROMPT "{stored}" RESPONSE "..."')
        client.execute_command("LLMCACHE.SETSEM", "texts", "PROMPT", stored, "RESPONSE", f"(the answer to: {stored})")
        command(f'LLMCACHE.GETSEM texts PROMPT "{question}" EXPLAIN')
        told = client.execute_command("LLMCACHE.GETSEM", "texts", "PROMPT", question, "EXPLAIN")
        similarity = told[b"nearest"][b"similarity"]
        cost = f"{told[b'tokens']} tokens, embedded in {told[b'embed_us'] / 1_000:.1f} ms"
        colour = "green" if told[b"status"] == b"hit" else "yellow"
        reply(told[b"status"].decode().upper(), f"similarity {similarity:.3f}; {cost}", colour)


def store(client: redis.Redis, cache: str, pair: Pair, answer: str, *extra) -> None:
    client.execute_command(
        *("LLMCACHE.SETSEM", cache, "PROMPT", pair.first, "RESPONSE", answer),
        *("FP16", pair.first_vector),
        *("TOKENS", TOKENS, "COST", COST_USD, "LATENCY", LATENCY_MS),
        *extra,
    )


def look_up(client: redis.Redis, cache: str, prompt: str, vector: bytes, *extra):
    return client.execute_command("LLMCACHE.GETSEM", cache, "PROMPT", prompt, "FP16", vector, *extra)


if __name__ == "__main__":
    sys.exit(main())
