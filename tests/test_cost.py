"""Every command with arguments as bad as it allows, compared with what its page says of its cost.

`llmcache.check-work yes` has the server count keys opened, steps of walks and bytes of the reply of each command,
and note where a command did more than `src/command/table/cost.rs` states. Sizes are scaled so that the suite stays
short; the counts are what gates, not the time.
"""

from __future__ import annotations

import pytest
from harness.wire import Failure
from harness.worst import LONGEST_RUN, SMALL, World, tokens, worst


@pytest.fixture
def server(fleet):
    return fleet.launch(llmcache__check_work="yes")


def counted(server) -> tuple[int, int, int, int]:
    info = server.info()
    names = ("bounds_broken", "last_command_keys", "last_command_steps", "last_command_reply_bytes")
    return tuple(int(info[f"llmcache_{name}"]) for name in names)


def test_every_command_does_what_its_page_says_at_most(server):
    with server.wire() as wire:
        known = {name.decode().upper() for name in wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")}
        commands = worst(World(wire, SMALL))
        public = {name for name in known if "._" not in name}
        assert public == {name for name, _ in commands}, "a command has no worst arguments in harness/worst.py"
        assert counted(server)[0] == 0, "filling broke a bound"
        for name, arguments in commands:
            reply = wire(name, *arguments)
            broken, *did = counted(server)
            longest = int(server.info()["llmcache_last_command_longest_run"])
            assert longest <= LONGEST_RUN, f"{name} did {longest} steps in one piece"
            assert broken == 0, f"{name} broke its bound: {did}, see the server's log"
            # What goes on in slices may do nothing in its own call.
            assert sum(did) + longest > 0, f"{name} was not watched"
            if isinstance(reply, Failure):
                assert reply.word in {"TOOBIG", "LEASELOST"}, f"{name}: {reply.text}"


def at_once(wire, *command):
    """In a transaction nothing is left to a later slice, which the clock begins: the command's own call does, and counts, all."""
    wire("MULTI")
    wire(*command)
    (reply,) = wire("EXEC")
    assert not isinstance(reply, Failure), reply.text
    return reply


def test_twice_as_many_things_cost_no_more_than_twice_as_much(server):
    """What was n^2: the steps of twice as much are about twice the steps."""
    with server.wire() as wire:
        steps = {}
        for chunks in (200, 400):
            name = f"ns{chunks}"
            wire("KVCHUNK.CREATE", name, "CHUNK", 16)
            at_once(wire, "KVCHUNK.MPUT", name, "TOKENS", tokens(chunks), "PAYLOADS", chunks, *[1, "x"] * chunks)
            put = sum(counted(server)[1:3])
            at_once(wire, "KVCHUNK.FIND", name, "TOKENS", tokens(chunks))
            find = sum(counted(server)[1:3])
            digests = wire("KVCHUNK.DIGESTS", name, "TOKENS", tokens(chunks))
            at_once(wire, "KVCHUNK.TOUCH", name, *digests)
            touch = sum(counted(server)[1:3])
            at_once(wire, "KVCHUNK.PIN", name, *digests, "PREFIX")
            pin = sum(counted(server)[1:3])
            session = f"s{chunks}"
            parts = []
            for at in range(chunks):
                parts += ["MSG", "tool", "x", "CALL" if at < chunks // 2 else "RESULT", "one"]
            wire("SESSION.APPEND", session, *parts)
            at_once(wire, "SESSION.WINDOW", session, "PAIRS")
            window = sum(counted(server)[1:3])
            steps[chunks] = {"MPUT": put, "FIND": find, "TOUCH": touch, "PIN": pin, "WINDOW": window}
        for name, once in steps[200].items():
            twice = steps[400][name]
            assert 0 < twice <= 2.5 * once + 100, f"{name}: {once} steps, and {twice} for twice as much"


def test_messages_cost_the_same_wherever_they_go(server):
    """Each message was looked for in its block once it was stored, and a block was written for each that was replaced."""
    with server.wire() as wire:
        def run(*command):
            reply = at_once(wire, *command)
            return reply, int(server.info()["llmcache_last_command_longest_run"])

        for count in (256, 1_024):
            lines = ['{"role":"user","content":"x"}'] * count
            run("SESSION.LOAD", "s", *lines)
            parts = [part for at in range(count) for part in ("MSG", "user", f"a{at}", "ID", f"{count}-{at}")]
            run("SESSION.APPEND", "s", *parts)
            others = [part.replace("a", "b") if part.startswith("a") else part for part in parts]
            reply, steps = run("SESSION.APPEND", "s", "UPSERT", *others)
            assert [row[1] for row in reply[:-2]] == [2] * count
            assert 0 < steps <= 8 * count, steps
