"""APPEND … UPSERT and … CLEAR, DEL and EDIT by ID, POP … OLDEST."""

import pytest
from harness.replication import pair
from harness.session import Message, Session, msg
from harness.vectors import fp32, unit
from redis.exceptions import ResponseError


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def session(client):
    return Session(client)


def outcomes(reply):
    return [tuple(outcome) for outcome in reply[:-2]]


def run(session, *parts):
    return session.run("APPEND", *parts)


def test_upsert_replaces_where_the_message_stands(session):
    session.append(msg("user", "one", id="a", meta='{"v":1}', tokens=5), msg("user", "two", id="b"), msg("user", "three"))
    reply = run(session, "UPSERT", *msg("assistant", "ONE", id="a", tokens=7), *msg("user", "two", id="b"), *msg("user", "new", id="c"))
    assert outcomes(reply) == [(1, 2), (2, 0), (4, 1)] and reply[-2] == 4
    assert session.payloads() == [b"ONE", b"two", b"three", b"new"]
    first = session.get(1)
    assert (first["role"], first["tokens"], first["meta"], first["id"]) == (b"assistant", 7, None, b"a")
    assert session.info()["tokens"] == sum(message.tokens for message in session.range())
    # The same again changes nothing.
    before = session.client.execute_command("DEBUG", "DIGEST-VALUE", "s")
    assert outcomes(run(session, "UPSERT", *msg("assistant", "ONE", id="a", tokens=7))) == [(1, 0)]
    assert session.client.execute_command("DEBUG", "DIGEST-VALUE", "s") == before
    with pytest.raises(ResponseError, match="says something else"):
        run(session, *msg("user", "other", id="a"))


def test_every_part_of_a_message_counts(session):
    plain = dict(id="a", tokens=5)
    session.append(msg("user", "one", **plain))
    vector = dict(zip(["fp32"], [fp32(unit(1))[1]]))
    for number, change in enumerate([dict(tokens=6), dict(meta="{}"), dict(call="x"), dict(result="x"), vector, dict(pin=True), {}]):
        assert outcomes(run(session, "UPSERT", *msg("user", "one", **{**plain, **change}))) == [(1, 2)], change
        assert outcomes(run(session, "UPSERT", *msg("user", "one", **{**plain, **change}))) == [(1, 0)], change
    assert outcomes(run(session, "UPSERT", *msg("tool", "one", **plain))) == [(1, 2)]
    assert session.info()["vectors"] == session.info()["pinned"] == 0


def test_the_last_of_one_id_in_a_request_counts(session):
    reply = run(session, "UPSERT", *msg("user", "1", id="a"), *msg("user", "2", id="a"), *msg("user", "3", id="b"))
    assert [seq for seq, _ in outcomes(reply)] == [1, 1, 2]
    assert session.payloads() == [b"2", b"3"]


def test_upsert_leaves_a_message_that_is_being_written(session):
    session.begin(id="a")
    with pytest.raises(ResponseError, match="still being written"):
        run(session, "UPSERT", *msg("user", "x", id="a"))
    seq, token, _ = session.begin(id="b")
    session.run("END", seq, token)
    assert outcomes(run(session, "UPSERT", *msg("user", "x", id="b"))) == [(2, 2)]
    # It is no stream any more, so its former producer has nothing to say.
    with pytest.raises(ResponseError, match="LEASELOST"):
        session.run("END", seq, token, "TOKENS", 5)


def test_clear_replaces_everything_in_one_step(session):
    session.append(msg("user", "old", id="a", pin=True), msg("user", "older"), ttl=1_000)
    request = ["CLEAR", *msg("system", "sum", id="s1"), *msg("user", "old", id="a")]
    assert run(session, *request) == [[3, 1], [4, 1], 2, session.info()["tokens"]]
    assert session.payloads() == [b"sum", b"old"] and session.info()["pinned"] == 0
    assert session.client.ttl("s") > 900
    digest = session.client.execute_command("DEBUG", "DIGEST-VALUE", "s")
    assert outcomes(run(session, *request)) == [(3, 0), (4, 0)], "the same request sent again"
    assert session.client.execute_command("DEBUG", "DIGEST-VALUE", "s") == digest
    assert outcomes(run(session, "CLEAR", *msg("user", "x"))) == [(5, 1)]
    assert outcomes(run(session, "CLEAR", *msg("user", "x"))) == [(6, 1)], "without an ID nobody can tell"


def test_conditions_and_refusals_clear_nothing(session):
    session.append(msg("user", "one", id="a"), msg("user", "x" * 10))
    assert run(session, "CLEAR", "IFSEQ", 1, *msg("user", "new")) is None
    assert run(session, "CLEAR", "NX", *msg("user", "new")) is None
    with pytest.raises(ResponseError):
        run(session, "CLEAR", *msg("user", "1", id="n"), *msg("user", "2", id="n"))
    assert len(session.payloads()) == 2
    assert outcomes(run(session, "CLEAR", "IFSEQ", 2, *msg("user", "new"))) == [(3, 1)]
    assert outcomes(Session(session.client, "fresh").run("APPEND", "CLEAR", *msg("user", "new"))) == [(1, 1)]


def test_del_and_edit_by_id(session):
    session.append(*(msg("user", f"m{n}", id=f"i{n}") for n in range(6)))
    assert session.run("EDIT", "ID", "i2", "edited", "TOKENS", 9) == 1
    assert session.get(3)["payload"] == b"edited" and session.get(3)["tokens"] == 9
    assert session.run("EDIT", "id", "nobody", "edited") == 0
    assert session.run("DEL", "ID", "i0", "i3", "nobody") == 2
    assert session.run("DEL", 2, 3) == 2
    assert session.payloads() == [b"m4", b"m5"]
    for bad in (("DEL", "ID"), ("DEL", 5, "ID", "i4"), ("EDIT", "ID", "i4")):
        with pytest.raises(ResponseError):
            session.run(*bad)
    assert session.run("DEL", "ID", "6") == 0, "an ID that looks like a place is an ID"


def test_pop_oldest(session):
    session.append(msg("user", "a", pin=True), *(msg("user", text) for text in "bcde"))
    assert [Message.of(m).payload for m in session.run("POP", "OLDEST", "COUNT", 2)] == [b"a", b"b"]
    assert [Message.of(m).payload for m in session.run("POP", "OLDEST")] == [b"c"]
    assert [Message.of(m).payload for m in session.run("POP", "COUNT", 9)] == [b"e", b"d"]
    assert session.run("POP", "OLDEST") == []


def test_replicas_and_aof_hold_the_same(fleet):
    both = pair(fleet, appendonly="yes")
    session = Session(both.primary.client())
    session.append(*(msg("user", f"m{n}", id=f"i{n}", meta='{"n":1}') for n in range(200)), ttl=900)
    for step in (
        ("APPEND", "UPSERT", "TTL", 800, *msg("tool", "new", id="i7"), *msg("user", "more", id="x"), *msg("user", "M9" * 2_000, id="i9")),
        ("EDIT", "ID", "i3", "edited"),
        ("DEL", "ID", "i4", "i5"),
        ("POP", "OLDEST", "COUNT", 3),
        ("APPEND", "CLEAR", "TTL", 700, *msg("user", "1", id="a"), *msg("user", "2", id="b")),
        ("APPEND", "CLEAR", "UPSERT", *msg("user", "3", id="a")),
        ("EXPIRE", "TTL", 600),
    ):
        session.run(*step)
        both.assert_equal()
    digest = both.primary.digest()
    both.primary.restart()
    assert both.primary.digest() == digest
