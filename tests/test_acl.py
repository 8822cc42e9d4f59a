"""ACL: key patterns and categories decide who may do what to which cache."""

import pytest
from harness.vectors import fp32, unit
from harness.wire import Failure, Wire

READS = [
    ("LLMCACHE.GETSEM", "{}", "PROMPT", "a"),
    ("LLMCACHE.GET", "{}", "PROMPT", "a"),
    ("LLMCACHE.ENTRY", "{}", "x"),
    ("LLMCACHE.SCAN", "{}", 0),
    ("LLMCACHE.INFO", "{}"),
    ("LLMCACHE.STATS", "{}"),
]
WRITES = [
    ("LLMCACHE.CREATE", "{}"),
    ("LLMCACHE.SETSEM", "{}", "PROMPT", "a", "RESPONSE", "A", *fp32(unit(1))),
    ("LLMCACHE.SET", "{}", "PROMPT", "a", "RESPONSE", "A"),
    ("LLMCACHE.EXPIRE", "{}", "x", "EX", 5),
    ("LLMCACHE.DEL", "{}", "x"),
    ("LLMCACHE.CONFIG", "{}", "SET", "THRESHOLD", "0.5"),
]
INTERNAL = [
    ("LLMCACHE._CREATE", "{}", "blob"),
    ("LLMCACHE._ENTRY", "{}", "blob"),
    ("LLMCACHE._CONFIG", "{}", "THRESHOLD", "0.5"),
]


def on(command, key):
    return [key if part == "{}" else part for part in command]


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def as_user(server):
    """Connects as a user with these rules."""
    wires: list[Wire] = []

    def connect(*rules):
        with server.wire() as admin:
            reply = admin("ACL", "SETUSER", "app", "reset", "on", ">secret", *rules)
            assert reply == "OK", reply
        wire = server.wire()
        wires.append(wire)
        assert wire("AUTH", "app", "secret") == "OK"
        return wire

    yield connect
    for wire in wires:
        wire.close()


def refused(reply):
    return isinstance(reply, Failure) and reply.word == "NOPERM"


@pytest.mark.parametrize("command", READS + WRITES, ids=lambda c: c[0])
def test_a_key_pattern_is_the_fence(as_user, command):
    wire = as_user("~faq", "+@all")
    assert not refused(wire(*on(command, "faq")))
    assert refused(wire(*on(command, "other")))
    assert refused(wire(*on(command, "{faq}:x")))


def test_the_pattern_of_the_cache_covers_its_entries(as_user):
    """The entries of a cache are its own: whoever may use the cache needs no pattern for them."""
    wire = as_user("~faq", "+@all")
    assert wire("LLMCACHE.SETSEM", "faq", "PROMPT", "a", "RESPONSE", "A", *fp32(unit(1))) is not None
    assert wire("LLMCACHE.GETSEM", "faq", *fp32(unit(1)), "RETURN", 1, "response") == [b"response", b"A"]


def test_a_pattern_of_entry_keys_does_not_open_the_cache(as_user, cache):
    cache.set("a", "A")
    wire = as_user("~{faq}:*", "+@all")
    assert refused(wire("LLMCACHE.GET", "faq", "PROMPT", "a"))
    assert refused(wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "B"))


@pytest.mark.parametrize("command", READS, ids=lambda c: c[0])
def test_a_read_pattern_suffices_to_read(as_user, command):
    wire = as_user("%R~faq", "+@all")
    assert not refused(wire(*on(command, "faq")))


@pytest.mark.parametrize("command", WRITES, ids=lambda c: c[0])
def test_a_read_pattern_does_not_suffice_to_write(as_user, command):
    wire = as_user("%R~faq", "+@all")
    assert refused(wire(*on(command, "faq")))


# Before 7.2 a server puts no command of any module into a category, so there nothing follows from one.


@pytest.mark.parametrize("command", READS, ids=lambda c: c[0])
def test_reads_are_in_the_category_read(server, as_user, command):
    granted = not refused(as_user("~*", "-@all", "+@read")(*on(command, "faq")))
    assert granted == server.gives_modules_categories
    assert refused(as_user("~*", "-@all", "+@write")(*on(command, "faq")))


@pytest.mark.parametrize("command", WRITES, ids=lambda c: c[0])
def test_writes_are_in_the_category_write(server, as_user, command):
    granted = not refused(as_user("~*", "-@all", "+@write")(*on(command, "faq")))
    assert granted == server.gives_modules_categories
    assert refused(as_user("~*", "-@all", "+@read")(*on(command, "faq")))


@pytest.mark.parametrize("command", INTERNAL, ids=lambda c: c[0])
def test_internal_commands_are_dangerous(server, as_user, command):
    """Where a server has no categories for them, the handler refuses: see test_access_matrix.py."""
    del server
    assert refused(as_user("~*", "+@all", "-@dangerous")(*on(command, "faq")))
    assert refused(as_user("~*", "+@all")(*on(command, "faq")))
    assert refused(as_user("~*", "+@all", f"-{command[0].lower()}")(*on(command, "faq")))


@pytest.mark.parametrize("command", INTERNAL, ids=lambda c: c[0])
def test_internal_commands_obey_key_patterns(as_user, command):
    assert refused(as_user("~other", "+@all")(*on(command, "faq")))


@pytest.mark.parametrize("command", READS + WRITES, ids=lambda c: c[0])
def test_the_public_commands_are_not_dangerous(as_user, command):
    assert not refused(as_user("~*", "+@all", "-@dangerous", "-@admin")(*on(command, "faq")))


def test_single_commands_can_be_granted(as_user):
    wire = as_user("~faq", "-@all", "+llmcache.get")
    assert wire("LLMCACHE.GET", "faq", "PROMPT", "a") is None
    assert refused(wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A"))


def test_scripts_are_held_to_the_same_fence(as_user):
    wire = as_user("~faq", "+@all")
    script = "return redis.call('LLMCACHE.SET', ARGV[1], 'PROMPT', 'a', 'RESPONSE', 'A')"
    assert not isinstance(wire("EVAL", script, 0, "faq"), Failure)
    reply = wire("EVAL", script, 0, "other")
    assert isinstance(reply, Failure)
    # Servers word it differently, with NOPERM or without.
    assert "can't access at least one of the keys" in reply.text or "permission" in reply.text


def test_acl_dryrun_agrees(server, as_user):
    as_user("~faq", "+@all")
    with server.wire() as admin:
        assert admin("ACL", "DRYRUN", "app", "LLMCACHE.GET", "faq", "PROMPT", "a") == "OK"
        denied = admin("ACL", "DRYRUN", "app", "LLMCACHE.GET", "other", "PROMPT", "a")
        assert b"permissions" in denied


def test_nothing_of_a_refused_command_is_done(server, as_user):
    wire = as_user("~faq", "+@all")
    wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A")
    before = server.digest()
    for command in WRITES:
        assert refused(wire(*on(command, "other")))
    assert server.digest() == before
