"""Who decides when a session ends: its TTL, its user's EXPIRE and PERSIST, SESSION.EXPIRE."""

import pytest
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.session import Session, msg

TTL_MS = 1_000_000


def sliding(client) -> Session:
    session = Session(client)
    session.append(msg("user", "hi"), ttl=TTL_MS // 1_000)
    return session


def pttl(session) -> int:
    return session.client.pttl(session.name)


GROWS = {
    "append": lambda s: s.say("more"),
    "edit": lambda s: s.run("EDIT", 1, "other"),
    "begin": lambda s: s.begin(),
    "load": lambda s: s.run("LOAD", '{"role":"user","content":"x"}'),
    "compact": lambda s: s.run("COMPACT", "UPTO", 1, "short"),
    "a use": lambda s: s.run("EXPIRE"),
}


@pytest.mark.parametrize("grow", GROWS.values(), ids=GROWS)
@pytest.mark.parametrize("by_script", [False, True], ids=["plain", "script"])
def test_what_the_user_sets_is_not_undone(server, grow, by_script):
    client = server.client()

    def call(*command):
        if by_script:
            return client.eval("return redis.call(unpack(ARGV))", 1, "s", *command)
        return client.execute_command(*command)

    session = sliding(client)
    grow(session)
    assert pttl(session) > TTL_MS - 100_000, "a use moves the deadline"
    call("PERSIST", "s")
    grow(session)
    assert pttl(session) == -1 and session.info()["ttl"] == 0
    session.append(msg("user", "again"), ttl=TTL_MS // 1_000)
    assert pttl(session) > TTL_MS - 100_000, "a TTL that is given counts again"
    call("EXPIRE", "s", 5_000)
    grow(session)
    assert 4_000_000 < pttl(session) <= 5_000_000


def test_replica_aof_and_a_transaction_agree(fleet):
    both = pair(fleet, appendonly="yes")
    client = both.primary.client()
    session, other, third = sliding(client), Session(client, "kept"), Session(client, "third")
    for each in (other, third):
        each.append(msg("user", "hi"), ttl=77)
    client.execute_command("SESSION.FORK", "kept", "fork")
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command("PERSIST", "s")
        pipe.execute_command("SESSION.APPEND", "s", *msg("user", "more"))
        pipe.execute_command("EXPIRE", "third", 5_000)
        pipe.execute()
    both.assert_equal()
    replica = both.replica.client()
    for source in (client, replica):
        assert source.pttl("s") == -1
        assert [Session(source, name).info()["ttl"] for name in ("s", "kept", "third", "fork")] == [0, 77, 0, 77]
    for rewrite in (False, True):
        if rewrite:
            client = both.primary.client()
            client.bgrewriteaof()
            wait_for_rewrite(client)
        both.primary.restart()
        client = both.primary.client()
        assert [Session(client, name).info()["ttl"] for name in ("s", "kept", "third", "fork")] == [0, 77, 0, 77]
        Session(client).say("later")
        assert client.pttl("s") == -1


def test_plain_rewrite_keeps_the_rule(fleet):
    """An AOF of commands writes the deadline behind the session: that is no EXPIRE of a user."""
    server = fleet.launch(appendonly="yes", aof_use_rdb_preamble="no")
    session = sliding(server.client())
    server.client().bgrewriteaof()
    wait_for_rewrite(server.client())
    server.restart()
    assert Session(server.client()).info()["ttl"] == TTL_MS // 1_000


def test_session_expire(client):
    session = Session(client)
    assert session.run("EXPIRE") == session.run("EXPIRE", "TTL", 5) == 0
    assert not client.exists("s")
    session.say("hi")
    assert session.run("EXPIRE") == 1 and pttl(session) == -1, "a session without TTL has none to move to"
    assert session.run("EXPIRE", "TTL", 1_000) == 1
    assert pttl(session) > 900_000 and session.info()["ttl"] == 1_000
    client.execute_command("SESSION.APPEND", "s", *msg("user", "x"))
    assert session.run("EXPIRE", "TTL", 0) == 1
    assert pttl(session) == -1 and session.info()["ttl"] == 0
    assert session.info()["messages"] == 2


def test_session_expire_is_replicated(fleet):
    both = pair(fleet)
    session = Session(both.primary.client())
    session.say("hi")
    session.run("EXPIRE", "TTL", 1_000)
    both.assert_equal()
    assert both.replica.client().pttl("s") > 900_000
    assert both.replica.client().pexpiretime("s") == both.primary.client().pexpiretime("s")
