"""The loader that copies a RediSearch index over hashes: whole, resumable, with a bar; the source is only read."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import redis
from harness.families import Documents
from harness.replies import fields
from harness.vectors import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))

import redisearch_to_rag as loader  # noqa: E402

COUNT = 500

# What FT.INFO of RediSearch 2.10.5 answers by RESP2, as far as it is read.
FT_INFO = [
    *(b"index_name", b"idx", b"index_options", []),
    *(b"index_definition", [b"key_type", b"HASH", b"prefixes", [b"doc:", b"page:"], b"default_score", b"1"]),
    b"attributes",
    [
        [b"identifier", b"content", b"attribute", b"content", b"type", b"TEXT", b"WEIGHT", b"1"],
        [b"identifier", b"genre", b"attribute", b"genre", b"type", b"TAG", b"SEPARATOR", b";"],
        [b"identifier", b"year", b"attribute", b"year", b"type", b"NUMERIC", b"SORTABLE", b"UNF"],
        [
            *(b"identifier", b"embedding", b"attribute", b"vec", b"type", b"VECTOR", b"algorithm", b"HNSW"),
            *(b"data_type", b"FLOAT64", b"dim", 4, b"distance_metric", b"COSINE", b"M", 16, b"ef_construction", 200),
        ],
    ],
    *(b"num_docs", b"2000", b"max_doc_id", b"2000"),
]


@pytest.fixture
def source(fleet):
    client = fleet.launch().client()
    pipe = client.pipeline()
    for i in range(COUNT):
        pipe.hset(f"doc:{i}", mapping=hash_of(i))
    pipe.hset("other:1", mapping=hash_of(1))
    pipe.hset("doc:no vector", mapping={"content": "x"})
    pipe.hset("doc:no text", mapping={"embedding": unit(1, 8).astype("<f4").tobytes()})
    pipe.set("doc:a string", "x")
    pipe.pexpire("doc:7", 500_000)
    pipe.execute()
    return client


def hash_of(i):
    vector = unit(i, 8).astype("<f4").tobytes()
    return {"content": f"text {i}", "embedding": vector, "year": 2000 + i % 10, "genre": "a;b", "price": "1.5", "zip": "01234"}


@pytest.fixture
def docs(client):
    return Documents(client, "docs")


def schema(**given):
    return loader.Schema(**{"prefixes": ["doc:"], "vector": "embedding", "numeric": {"year", "price"}, **given})


def options(tmp_path, **given):
    return loader.Options(**{"into": "docs", "text": "content", "state": tmp_path / "state.json", "batch": 20, **given})


def test_everything_is_copied(source, docs, tmp_path):
    before = source.dbsize(), source.hgetall("doc:3")
    done = loader.Loader(source, docs.client, schema(), options(tmp_path, tags="genre", tag_separator=";")).run()
    assert (done.copied, done.skipped) == (COUNT, 2)
    assert docs.info()["entries"] == COUNT and (source.dbsize(), source.hgetall("doc:3")) == before
    for i in range(0, COUNT, 50):
        got = docs.get(f"doc:{i}")
        assert got["text"] == f"text {i}".encode() and got["tags"] == [b"a", b"b"]
        assert json.loads(got["meta"]) == {"year": 2000 + i % 10, "price": 1.5, "zip": "01234", "genre": "a;b"}
        assert docs.ids(unit(i, 8), count=1) == [f"doc:{i}".encode()]
    assert abs(docs.get("doc:7")["ttl"] - source.pttl("doc:7")) < 5_000 and docs.get("doc:8")["ttl"] == -1
    assert len(docs.ids(unit(1, 8), count=100, filter=".year == 2003 and .zip == '01234'")) == COUNT // 10
    # The same again changes nothing but the moments of storing.
    assert loader.Loader(source, docs.client, schema(), options(tmp_path, state=None)).run().copied == COUNT
    assert docs.info()["entries"] == COUNT


def test_ids_without_prefix_and_several_prefixes(source, docs, tmp_path):
    loader.Loader(source, docs.client, schema(prefixes=["doc:", "other:"]), options(tmp_path, strip=True)).run()
    # Number 1 stands under both prefixes: the later one replaced the earlier.
    assert docs.info()["entries"] == COUNT and docs.get("3")["text"] == b"text 3"


@pytest.mark.parametrize("kind", loader.WIDTHS)
def test_vectors_of_every_type(client, docs, tmp_path, kind):
    dtype = {"FLOAT16": "<f2", "FLOAT32": "<f4", "FLOAT64": "<f8"}[kind]
    client.hset("doc:1", mapping={"content": "t", "embedding": unit(1, 8).astype(dtype).tobytes()})
    loader.Loader(client, client, schema(vector_type=kind), options(tmp_path)).run()
    assert docs.search(unit(1, 8))[0]["similarity"] == pytest.approx(1, abs=1e-3)


class Breaks:
    """A target whose connection is lost at the n-th command."""

    def __init__(self, client, after):
        self.client, self.left, self.documents = client, after, 0

    def execute_command(self, *arguments):
        if self.left == 0:
            raise redis.ConnectionError("lost")
        self.left -= 1
        self.documents += arguments[2]
        return self.client.execute_command(*arguments)


def test_a_copy_that_stopped_goes_on_where_it_was(source, docs, tmp_path):
    given = options(tmp_path)
    with pytest.raises(redis.ConnectionError):
        loader.Loader(source, Breaks(docs.client, 10), schema(), given).run()
    noted = json.loads(given.state.read_text())
    assert 0 < noted["copied"] <= docs.info()["entries"] < COUNT and noted["cursor"] != 0
    rest = Breaks(docs.client, COUNT)
    again = loader.Loader(source, rest, schema(), given)
    assert again.state.cursor == noted["cursor"]
    assert again.run().copied == COUNT
    assert docs.info()["entries"] == COUNT
    assert rest.documents == COUNT - noted["copied"], "what was noted is not copied again"


def test_cursors_of_another_life_of_the_source_are_not_used(source, docs, tmp_path):
    given = options(tmp_path)
    with pytest.raises(redis.ConnectionError):
        loader.Loader(source, Breaks(docs.client, 10), schema(), given).run()
    noted = json.loads(given.state.read_text())
    given.state.write_text(json.dumps(noted | {"run_id": "another"}))
    assert loader.Loader(source, docs.client, schema(), given).state.cursor == 0
    given.state.write_text(json.dumps(noted | {"into": "elsewhere"}))
    assert loader.Loader(source, docs.client, schema(), given).state.copied == 0


def test_what_ft_info_says():
    known = loader.schema_of(FT_INFO)
    assert (known.prefixes, known.vector, known.vector_type) == (["doc:", "page:"], "embedding", "FLOAT64")
    assert (known.numeric, known.documents) == ({"year"}, 2000)
    by_resp3 = {**fields(FT_INFO), "index_definition": fields(FT_INFO[5])}
    assert loader.schema_of(by_resp3) == known
    with pytest.raises(loader.LoadError, match="no vector field"):
        loader.schema_of(FT_INFO, "other")
    json_index = [*FT_INFO[:5], [b"key_type", b"JSON", b"prefixes", [b""]], *FT_INFO[6:]]
    with pytest.raises(loader.LoadError, match="not over hashes"):
        loader.schema_of(json_index)


def test_patterns_in_prefixes_are_characters(client, docs, tmp_path):
    for key in ("d[a]*:1", "da:1"):
        client.hset(key, mapping={"content": "t", "embedding": np.ones(8, "<f4").tobytes()})
    loader.Loader(client, client, schema(prefixes=["d[a]*:"]), options(tmp_path)).run()
    assert docs.scan_ids() == ["d[a]*:1"]


def test_the_command_line(source, server, docs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = [f"redis://127.0.0.1:{port}" for port in (source.connection_pool.connection_kwargs["port"], server.port)]
    command = ["--prefix", "doc:", "--vector", "embedding", "--into", "docs", "--text", "content", "--source", where[0], "--target", where[1]]
    assert loader.main(command) == 0
    told = capsys.readouterr()
    assert f"{COUNT} documents copied into docs, 2 hashes" in told.out and "copied," in told.err
    assert docs.info()["entries"] == COUNT and list(tmp_path.glob(".docs*")) == []
    assert loader.main([*command[:2], *command[4:]]) == 1 and "--prefix needs --vector" in capsys.readouterr().err
    docs.client.set("docs", "x")
    assert loader.main(command) == 1 and "WRONGTYPE" in capsys.readouterr().err


def test_the_bar_fills():
    out = io.StringIO()
    bar = loader.Bar(100, out)
    for copied in (0, 50, 100):
        bar(loader.State("r", "docs", [], copied=copied))
    bar.end()
    lines = out.getvalue().split("\r")
    assert "[" + "." * 30 + "]" in lines[1] and "#" * 15 + "." * 15 in lines[2] and " 50% 50 of 100" in lines[2]
    assert "#" * 30 in lines[3] and "100% 100 of 100" in lines[3]
