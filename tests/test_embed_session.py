"""A session whose messages are embedded: APPEND and EDIT by text, RECALL by text."""

from __future__ import annotations

import pytest
import redis
from harness.model import models_option, write_model
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.kv import fields_of

SAID = ["ab cd ef gh", "mm nn oo", "qq rr ss tt"]
LONG = " ".join(["ab"] * 90)


@pytest.fixture(scope="session")
def option(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    small = write_model(folder / "small", threshold=0.8)
    other = write_model(folder / "other", seed=2)
    return {"llmcache.embed-models": models_option(small=small, other=other)}


@pytest.fixture
def server(fleet, option):
    return fleet.launch(**option, **{"llmcache.embed-memo": 0})


@pytest.fixture
def run(server):
    return server.client().execute_command


def said(*texts: str) -> list[str]:
    return [part for text in texts for part in ("MSG", "user", text)]


def vectors(run, key="chat") -> int:
    return fields_of(run("SESSION.INFO", key))[b"vectors"]


def found(reply) -> list[bytes]:
    return [message[2] for _, message in reply]


def test_what_was_said_is_found_by_text(run):
    assert run("SESSION.APPEND", "chat", "EMBED", "small", *said(*SAID))[-2] == 3
    assert fields_of(run("SESSION.INFO", "chat"))[b"model"].startswith(b"small@")
    for text in SAID:
        ((similarity, message),) = run("SESSION.RECALL", "chat", "TEXT", f"{text}?")
        assert message[2] == text.encode() and float(similarity) > 0.7
    assert float(run("SESSION.RECALL", "chat", "TEXT", SAID[0])[0][0]) == pytest.approx(1, abs=1e-3)
    # The session keeps its model.
    run("SESSION.APPEND", "chat", *said("uu vv ww"))
    assert found(run("SESSION.RECALL", "chat", "TEXT", "uu vv ww", "COUNT", 2, "ROLES", 1, "user"))[0] == b"uu vv ww"
    assert vectors(run) == 4


def test_a_message_has_the_vector_that_any_other_way_gives(run):
    run("EMBCACHE.CREATE", "emb", "EMBED", "small", "QUANT", "NONE")
    blob = run("EMBCACHE.GET", "emb", "TEXT", SAID[0])
    run("SESSION.APPEND", "chat", "EMBED", "small", *said(*SAID))
    run("SESSION.APPEND", "same", "MSG", "user", SAID[0], "FP32", blob)
    assert run("SESSION.RECALL", "chat", "FP32", blob) == run("SESSION.RECALL", "same", "FP32", blob)


def test_what_is_given_is_used_and_what_is_not_read_has_no_vector(run):
    run("EMBCACHE.CREATE", "emb", "EMBED", "small")
    far = run("EMBCACHE.GET", "emb", "TEXT", "zz yy xx")
    parts = ["MSG", "user", SAID[0], "FP32", far, "MSG", "user", SAID[1], "NOVECTOR", "MSG", "tool", b"\xff\xfe", "MSG", "user", " "]
    run("SESSION.APPEND", "chat", "EMBED", "small", *parts)
    assert vectors(run) == 1
    assert found(run("SESSION.RECALL", "chat", "TEXT", "zz yy xx", "SIMILARITY", 0.99)) == [SAID[0].encode()]
    # Of a long message the beginning is embedded, all of it is kept.
    run("SESSION.APPEND", "chat", *said(f"qq rr {LONG * 500}"))
    assert vectors(run) == 2
    for text in (LONG, " "):
        with pytest.raises(redis.ResponseError, match="not embedded"):
            run("SESSION.RECALL", "chat", "TEXT", text)


def test_edit_embeds_what_is_said_now(run):
    run("SESSION.APPEND", "chat", "EMBED", "small", "MSG", "user", SAID[0], "ID", "a")
    assert run("SESSION.EDIT", "chat", "ID", "a", SAID[1]) == 1
    assert float(run("SESSION.RECALL", "chat", "TEXT", SAID[1])[0][0]) == pytest.approx(1, abs=1e-3)
    assert run("SESSION.EDIT", "chat", 1, SAID[2], "NOVECTOR") == 1
    assert run("SESSION.RECALL", "chat", "TEXT", SAID[2]) == []
    before = run("INFO", "llmcache")["llmcache_texts_embedded"]
    assert run("SESSION.EDIT", "chat", 7, SAID[2]) == run("SESSION.EDIT", "nowhere", 1, SAID[2]) == 0
    assert run("INFO", "llmcache")["llmcache_texts_embedded"] == before


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["APPEND", "EMBED", "nosuch", *said("x")], "NOMODEL"),
        (["APPEND", "EMBED", "other", *said("x")], "MODELMISMATCH"),
        (["APPEND", "EMBED", "small", "EMBED", "small", *said("x")], "EMBED"),
        (["APPEND", *said("x"), "NOVECTOR", "VALUES", 2, 1, 0], "NOVECTOR"),
        (["APPEND", *said("x"), "VALUES", 2, 1, 0], "DIMMISMATCH"),
        (["EDIT", 1, "x", "NOVECTOR", "VALUES", 2, 1, 0], "NOVECTOR"),
        (["RECALL", "TEXT", "x", "VALUES", 2, 1, 0], "TEXT"),
        (["RECALL", "COUNT", 1], "vector or TEXT"),
    ],
)
def test_what_is_refused_changes_nothing(run, command, error):
    run("SESSION.APPEND", "chat", "EMBED", "small", *said(*SAID))
    before = run("DEBUG", "DIGEST")
    with pytest.raises(redis.ResponseError, match=error):
        run(f"SESSION.{command[0]}", "chat", *command[1:])
    assert run("DEBUG", "DIGEST") == before


def test_without_a_model_a_vector_is_needed(run):
    run("SESSION.APPEND", "plain", "MSG", "user", "hi", "VALUES", 2, 1, 0)
    assert b"model" not in fields_of(run("SESSION.INFO", "plain"))
    with pytest.raises(redis.ResponseError, match="a vector is needed"):
        run("SESSION.RECALL", "plain", "TEXT", "hi")
    assert run("SESSION.RECALL", "nowhere", "TEXT", "hi") == []
    # Of another dimension than the model's.
    with pytest.raises(redis.ResponseError, match="DIMMISMATCH"):
        run("SESSION.APPEND", "plain", "EMBED", "small", *said(SAID[0]))
    assert vectors(run, "plain") == 1
    # Where nothing was embedded yet, a session may change its model.
    run("SESSION.APPEND", "new", "EMBED", "other", "MSG", "user", "x", "NOVECTOR")
    run("SESSION.APPEND", "new", "EMBED", "small", *said(SAID[0]))
    assert fields_of(run("SESSION.INFO", "new"))[b"model"].startswith(b"small@")


def test_multi_and_scripts_embed_at_once(server, run):
    pipeline = server.client().pipeline(transaction=True)
    pipeline.execute_command("SESSION.APPEND", "chat", "EMBED", "small", *said(*SAID))
    pipeline.execute_command("SESSION.RECALL", "chat", "TEXT", SAID[1])
    _, recalled = pipeline.execute()
    assert found(recalled) == [SAID[1].encode()]
    script = "return redis.call('SESSION.RECALL', KEYS[1], 'TEXT', ARGV[1])"
    assert found(server.client().eval(script, 1, "chat", SAID[2])) == [SAID[2].encode()]
    with pytest.raises(redis.ResponseError, match="EMBEDLONG"):
        server.client().eval(script, 1, "chat", " ".join(["ab"] * 40))


def test_the_vector_and_the_model_are_replicated_and_saved(fleet, option):
    both = pair(fleet, appendonly="yes", **option)
    primary, replica = both.primary.client(), both.replica.client()
    primary.execute_command("SESSION.APPEND", "chat", "EMBED", "small", "TTL", 1_000, *said(*SAID))
    primary.execute_command("SESSION.EDIT", "chat", 2, "zz yy")
    primary.execute_command("SESSION.FORK", "chat", "branch")
    primary.execute_command("SESSION.APPEND", "branch", *said("uu vv ww"))
    primary.execute_command("SESSION.CLEAR", "branch")
    primary.execute_command("SESSION.APPEND", "branch", *said("kk ll"))
    both.assert_equal()
    assert found(replica.execute_command("SESSION.RECALL", "chat", "TEXT", "zz yy")) == [b"zz yy"]
    digest = both.primary.digest()
    primary.execute_command("DEBUG", "LOADAOF")
    assert both.primary.digest() == digest
    primary.execute_command("BGREWRITEAOF")
    wait_for_rewrite(primary)
    both.primary.restart()
    assert both.primary.digest() == digest
    primary = both.primary.client()
    dump = primary.dump("branch")
    primary.restore("again", 0, dump)
    assert found(primary.execute_command("SESSION.RECALL", "again", "TEXT", "kk ll")) == [b"kk ll"]
    primary.execute_command("COPY", "chat", "copy")
    assert found(primary.execute_command("SESSION.RECALL", "copy", "TEXT", "zz yy")) == [b"zz yy"]


def test_without_its_model_a_session_goes_on_by_vectors(fleet, option):
    server = fleet.launch(appendonly="yes", **option)
    client = server.client()
    client.execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small")
    blob = client.execute_command("EMBCACHE.GET", "emb", "TEXT", SAID[0])
    client.execute_command("SESSION.APPEND", "chat", "EMBED", "small", *said(*SAID))
    server.stop()
    del server.options["llmcache.embed-models"]
    server.start()
    run = server.client().execute_command
    assert found(run("SESSION.RECALL", "chat", "FP32", blob)) == [SAID[0].encode()]
    for command in (["RECALL", "chat", "TEXT", "x"], ["APPEND", "chat", *said("x")], ["EDIT", "chat", 1, "x"]):
        with pytest.raises(redis.ResponseError, match="NOMODEL"):
            run(f"SESSION.{command[0]}", *command[1:])
    run("SESSION.APPEND", "chat", "MSG", "user", "x", "FP32", blob, "MSG", "user", "y", "NOVECTOR")
    assert vectors(run) == 4


def test_a_large_session_is_compared_in_slices(server, run):
    """More vectors than a second run compares: the question is embedded at once and the client waits for the search."""
    run("EMBCACHE.CREATE", "emb", "EMBED", "small")
    blob = run("EMBCACHE.GET", "emb", "TEXT", SAID[0])
    run("SESSION.APPEND", "chat", "EMBED", "small", *said("kk"))
    client = server.client()
    for _ in range(50):
        pipeline = client.pipeline(transaction=False)
        part = [word for _ in range(1_000) for word in ("MSG", "user", "x", "FP16", b"\x00\x3c" + bytes(126))]
        pipeline.execute_command("SESSION.APPEND", "chat", *part)
        pipeline.execute()
    run("SESSION.APPEND", "chat", "MSG", "user", SAID[0], "FP32", blob)
    assert found(run("SESSION.RECALL", "chat", "TEXT", SAID[0])) == [SAID[0].encode()]
    with pytest.raises(redis.ResponseError, match="EMBEDLONG"):
        run("SESSION.RECALL", "chat", "TEXT", " ".join(["ab"] * 40))
