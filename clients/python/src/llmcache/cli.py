"""The command `llmcache`: what a cache does, why it answers as it does, and which threshold suits a model.

llmcache stats faq                       llmcache explain faq "How do I ..." --embed mymodule:embed
llmcache near-misses faq                 llmcache calibrate pairs.jsonl --embed mymodule:embed --plot out.png
llmcache console redis://127.0.0.1:6379
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import calibrate as cal
from ._sync import LLMCache
from .console import serve
from .errors import LlmcacheError

_SHOWN = ("lookups", "hits", "hits_exact", "hits_semantic", "hit_ratio", "misses", "misses_empty", "misses_threshold",
          "misses_filter", "misses_expired", "misses_maxage", "misses_guard", "misses_unproven", "misses_filling",
          "stale", "lead", "busy", "coalesced", "negative", "open", "stores", "evicted",
          "tokens_saved", "ms_saved", "usd_saved")  # fmt: skip


def bar(done: int, all: int, width: int = 30) -> None:
    """A progress bar, on a terminal alone."""
    if sys.stderr.isatty():
        filled = width * done // max(1, all)
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (width - filled)}] {done}/{all}" + ("\n" if done >= all else ""))
        sys.stderr.flush()


def loaded(name: str) -> Callable[..., Any]:
    """`package.module:function`, from the working directory too."""
    module, _, function = name.partition(":")
    if not function:
        raise SystemExit(f"llmcache: {name!r} is no module:function")
    sys.path.insert(0, os.getcwd())
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"llmcache: {name}: {error}") from None
    return found


def _cache(options: argparse.Namespace) -> LLMCache:
    embed = loaded(options.embed) if getattr(options, "embed", None) else None
    return LLMCache(
        options.url, options.cache, embed=embed, scope=options.scope, context=options.context, shards=options.shards
    )


def stats(options: argparse.Namespace) -> int:
    cache = _cache(options)
    told = cache.stats(scope=options.scope or None)
    if options.json:
        print(json.dumps(told))
        return 0
    for name in _SHOWN:
        if name in told:
            value = told[name]
            print(f"{name:17} {value:.4f}" if isinstance(value, float) else f"{name:17} {value:,}")
    print("\nWhat part of the look-ups by meaning a threshold would serve:")
    for threshold, share in told["thresholds"]:
        print(f"  {float(threshold):.2f}  {'#' * round(40 * float(share)):40} {float(share):6.1%}")
    return 0


def explain(options: argparse.Namespace) -> int:
    told = _cache(options).explain(options.prompt, threshold=options.threshold)
    if options.json:
        print(json.dumps({**told.all, "nearest": told.nearest}))
        return 0
    print(f"{told.status}" + (f", because of {told.reason}" if told.reason else ""))
    print(f"threshold {told.threshold:.4f}" + (f", tier {told.tier}" if told.tier else ""))
    if told.nearest:
        print(f"nearest   {told.nearest['similarity']:.4f}  {told.nearest['prompt']}")
    if told.guard:
        print(f"refused by the guard for its {told.guard}")
    for hit in told.hits:
        print(f"answer    {hit.response}")
    return 0 if told.hits or told.status == "hit" else 1


def near_misses(options: argparse.Namespace) -> int:
    """What questions of a file would almost have been answered."""
    cache = _cache(options)
    text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    questions = [line.strip() for line in text.splitlines() if line.strip()]
    found = []
    for number, question in enumerate(questions, 1):
        told = cache.explain(question)
        if told.nearest and not told.hits:
            found.append((told.nearest["similarity"], told.reason or "", question, told.nearest["prompt"]))
        bar(number, len(questions))
    for similarity, reason, question, nearest in sorted(found, reverse=True)[: options.count]:
        print(f"{similarity:.4f}  {reason:16} {question}\n{'':25}{nearest}")
    return 0


def calibrate(options: argparse.Namespace) -> int:
    embed = loaded(options.embed)
    with Path(options.pairs).open(encoding="utf-8") as file:
        pairs = cal.read(file)
    if not pairs:
        raise SystemExit(f"llmcache: {options.pairs} holds no pairs")

    def many(texts: list[str]) -> Any:
        return embed(texts) if options.batch else [embed(text) for text in texts]

    found = cal.similarities(pairs, many, bar)
    rows = cal.table(pairs, found)
    repeats = sum(pair.same for pair in pairs)
    print(f"{repeats:,} repeats, {len(pairs) - repeats:,} other pairs\n")
    print("threshold  repeats served  others served  wrong of what is served")
    for row in rows:
        print(f"{row.threshold:9.2f} {row.served:15.1%} {row.wrong:14.1%} {row.wrong_of_served:24.1%}")
    best = cal.advised(rows, options.wrong)
    said = "no threshold keeps" if best is None else f"{best:.2f} is the lowest that keeps"
    print(f"\n{said} wrong answers to {options.wrong:.1%} of what is served (guards judge further)")
    if options.plot:
        plot(rows, best, options.plot)
        print(f"drawn in {options.plot}")
    return 0


def move(options: argparse.Namespace) -> int:
    cache = LLMCache(
        options.url, options.cache, shards=options.shards, shards_before=options.before, shard_by=options.by
    )
    moved = cache.move(progress=bar)
    print(f"{moved} answers moved to {options.shards} shards")
    return 0


def plot(rows: Sequence[cal.Row], best: float | None, path: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("llmcache: a plot needs matplotlib: pip install 'llmcache-client[plot]'") from None
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    at = [row.threshold for row in rows]
    axes.plot(at, [100 * row.served for row in rows], label="repeats served", color="#2a7f62", linewidth=2)
    axes.plot(at, [100 * row.wrong for row in rows], label="other questions served", color="#c0392b", linewidth=2)
    if best is not None:
        axes.axvline(best, color="#555555", linestyle="--", linewidth=1, label=f"advised: {best:.2f}")
    axes.set_xlabel("threshold (cosine similarity)")
    axes.set_ylabel("% of the pairs")
    axes.set_ylim(0, 101)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="llmcache", description="Look into llmcache.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help)
        made.set_defaults(run=run)
        return made

    def of_cache(made: argparse.ArgumentParser) -> None:
        made.add_argument("cache", help="its name")
        made.add_argument("--url", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), help="the server")
        made.add_argument("--scope", default="", help="a tenant")
        made.add_argument("--context", default="", help="the context")
        made.add_argument("--shards", type=int, default=1, help="into how many the cache is split")
        made.add_argument("--json", action="store_true", help="print JSON")

    of_cache(command("stats", stats, "hits, misses and what they saved"))
    asked = command("explain", explain, "why a question is answered, or is not")
    of_cache(asked)
    asked.add_argument("prompt")
    asked.add_argument("--embed", help="module:function that makes a vector of a text")
    asked.add_argument("--threshold", type=float)
    near = command("near-misses", near_misses, "which questions were almost answered")
    of_cache(near)
    near.add_argument("file", help="a question a line; - for the standard input")
    near.add_argument("--embed", help="module:function that makes a vector of a text")
    near.add_argument("--count", type=int, default=20)
    moving = command("move", move, "bring answers to another number of shards, while they are used")
    of_cache(moving)
    moving.add_argument("--before", type=int, required=True, help="into how many it was split")
    moving.add_argument("--by", choices=("scope", "question"), default="question", help="what says where an answer is")
    serve.arguments(command("console", serve.run, "a page that shows what the server does"))
    fit = command("calibrate", calibrate, "which threshold suits a model")
    fit.add_argument("pairs", help='lines of {"a": "...", "b": "...", "same": true}')
    fit.add_argument("--embed", required=True, help="module:function of a text, or with --batch of a list of texts")
    fit.add_argument("--batch", action="store_true", help="the function takes a list")
    fit.add_argument("--wrong", type=float, default=0.02, help="the share of wrong answers that is borne (0.02)")
    fit.add_argument("--plot", help="a PNG to draw into")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (LlmcacheError, OSError, ValueError) as error:
        print(f"llmcache: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
