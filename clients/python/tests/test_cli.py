"""The command `llmcache` as a person types it, and the arithmetic of thresholds."""

from __future__ import annotations

import importlib.util
import json

import pytest
from words import embed

from llmcache import LLMCache, calibrate, cli


@pytest.fixture
def url(server):
    return f"redis://127.0.0.1:{server.port}"


def run(capsys, *arguments: str) -> tuple[int, str]:
    status = cli.main(arguments)
    told = capsys.readouterr()
    return status, told.out + told.err


def test_stats_and_explain(r, url, capsys, tmp_path):
    cache = LLMCache(r, "faq", embed=embed, threshold=0.9)
    cache.set("how do I get my money back", "so", tokens=7)
    cache.search("how can I get my money back")
    cache.search("how do I get my money back")
    status, said = run(capsys, "stats", "faq", "--url", url)
    assert status == 0
    assert "hits_exact        1" in said
    assert "hit_ratio         0.5000" in said
    assert json.loads(run(capsys, "stats", "faq", "--url", url, "--json")[1])["lookups"] == 2
    status, said = run(capsys, "explain", "faq", "how can I get my money back", "--url", url, "--embed", "words:embed")
    assert status == 1
    assert "below-threshold" in said
    assert "how do I get my money back" in said
    status, said = run(capsys, "explain", "faq", "how do I get my money back", "--url", url)
    assert (status, "answer    so" in said) == (0, True)
    assert "nearest" in json.loads(
        run(capsys, "explain", "faq", "x y", "--url", url, "--embed", "words:embed", "--json")[1]
    )
    questions = tmp_path / "q.txt"
    questions.write_text("how can I get my money back\nnothing of this\n")
    said = run(capsys, "near-misses", "faq", str(questions), "--url", url, "--embed", "words:embed")[1]
    assert said.splitlines()[0].endswith("how can I get my money back")
    status, said = run(capsys, "stats", "absent", "--url", url)
    assert (status, "NOCACHE" in said) == (2, True)
    with pytest.raises(SystemExit, match="module:function"):
        cli.main(["explain", "faq", "x", "--url", url, "--embed", "words"])
    with pytest.raises(SystemExit, match="no_such"):
        cli.main(["explain", "faq", "x", "--url", url, "--embed", "words:no_such"])


def test_a_cache_is_moved_to_more_shards(r, url, capsys):
    before = LLMCache(r, "faq", shards=2)
    for n in range(30):
        before.set(f"q{n}", f"a{n}")
    status, said = run(capsys, "move", "faq", "--url", url, "--shards", "5", "--before", "2")
    assert status == 0
    assert "answers moved to 5 shards" in said
    assert [LLMCache(r, "faq", shards=5).get(f"q{n}") for n in range(30)] == [f"a{n}" for n in range(30)]
    status, said = run(capsys, "move", "faq", "--url", url, "--shards", "0", "--before", "2")
    assert (status, "shards are" in said) == (2, True)


def test_a_threshold_is_found(capsys, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"a": "how do I get my money back", "b": "how can I get my money back", "same": True},
        {"query": "where is my parcel", "candidate": "where is my parcel now", "label": 1},
        {"a": "where is my parcel", "b": "how tall is the tower", "same": False},
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    drawn = tmp_path / "out.png"
    plots = importlib.util.find_spec("matplotlib") is not None
    arguments = [
        "calibrate",
        str(pairs),
        "--embed",
        "words:embed_many",
        "--batch",
        *(["--plot", str(drawn)] if plots else []),
    ]
    status, said = run(capsys, *arguments)
    assert status == 0
    assert "2 repeats, 1 other pairs" in said
    assert "is the lowest that keeps wrong answers to 2.0%" in said
    assert drawn.exists() == plots
    assert run(capsys, "calibrate", str(pairs), "--embed", "words:embed")[0] == 0
    pairs.write_text("{}\n")
    assert "line 1 is no pair" in run(capsys, "calibrate", str(pairs), "--embed", "words:embed")[1]
    pairs.write_text("")
    with pytest.raises(SystemExit, match="no pairs"):
        cli.main(["calibrate", str(pairs), "--embed", "words:embed"])


def test_the_table_of_thresholds():
    pairs = [calibrate.Pair("a", "b", True)] * 4 + [calibrate.Pair("c", "d", False)] * 4
    rows = calibrate.table(pairs, [0.95, 0.9, 0.8, 0.6, 0.85, 0.5, 0.4, 0.3], [0.7, 0.88, 0.99])
    assert [(row.served, row.wrong) for row in rows] == [(0.75, 0.25), (0.5, 0.0), (0.0, 0.0)]
    assert rows[0].wrong_of_served == pytest.approx(0.25)
    assert calibrate.advised(rows) == 0.88
    assert calibrate.advised(rows[2:]) is None
    assert calibrate.cosine([0.0], [1.0]) == 0.0
