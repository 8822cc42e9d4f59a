"""Loading the module by whatever way: what is misspelt is refused by name, the server lives on, and the next
attempt finds nothing of the one before."""

import subprocess

import pytest
from harness.server import Server
from harness.waiting import wait_until
from harness.wire import Failure

MISSPELT = [
    ("CONFIG", "llmcache.nosuch", "5"),
    ("CONFIG", "llmcache.ttl", "no number"),
    ("CONFIG", "llmcache.ttl", "-1"),
    ("CONFIG", "llmcache.threshold", "7"),
    ("CONFIG", "llmcache.quant", "q9"),
    ("CONFIG", "ttl", "5"),
    ("CONFIG", "llmcache.ttl", "5", "CONFIG", "llmcache.nosuch", "5"),
    ("CONFIG", "llmcache.nosuch", "5", "CONFIG", "llmcache.ttl", "no number"),
    ("CONFIG", "llmcache.ttl", "5", "ARGS", "ttl", "5"),
    ("ARGS", "ttl", "5"),
    ("ARGS", "ttl"),
]


@pytest.fixture
def bare(server_binary, tmp_path):
    """A server without the module."""
    server = Server(server_binary, None, tmp_path / "bare", {"enable-module-command": "yes"})
    server.start()
    yield server
    server.stop()
    server.check_log()


def modules(wire):
    listed = [dict(zip(one[::2], one[1::2])) for one in wire("MODULE", "LIST")]
    return {one[b"name"] for one in listed}


def loadex(wire, module_path, *arguments):
    return wire("MODULE", "LOADEX", module_path, *arguments)


@pytest.mark.parametrize("given", MISSPELT, ids=" ".join)
def test_a_misspelt_setting_is_refused_and_nothing_is_left(bare, module_path, given):
    with bare.wire() as wire:
        before = modules(wire)
        for _ in range(3):
            reply = loadex(wire, module_path, *given)
            assert isinstance(reply, Failure) and "Error loading the extension" in reply.text
            assert modules(wire) == before
            assert isinstance(wire("LLMCACHE.INFO", "faq"), Failure)
    # Time for whatever had been begun to run into what is no more.
    end = int(bare.info("server")["uptime_in_seconds"]) + 1
    wait_until(lambda: int(bare.info("server")["uptime_in_seconds"]) >= end, "a second passed")
    with bare.wire() as wire:
        assert loadex(wire, module_path, "CONFIG", "llmcache.ttl", "50") == "OK"
        assert modules(wire) == before | {b"llmcache"}
        assert wire("CONFIG", "GET", "llmcache.ttl") == [b"llmcache.ttl", b"50"]
        assert wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")
        assert wire("LLMCACHE.GET", "faq", "PROMPT", "p") == b"r"
        assert 0 < wire("PTTL", wire("KEYS", "{faq}*")[0]) <= 50_000


def test_the_background_runs_after_a_load_by_command(bare, module_path):
    """What is begun only once the load has succeeded is begun then."""
    with bare.wire() as wire:
        assert loadex(wire, module_path, "CONFIG", "llmcache.sweep-interval-ms", "20") == "OK"
        for n in range(100):
            assert wire("LLMCACHE.SET", "faq", "PROMPT", f"p{n}", "RESPONSE", "r")
        assert wire("LLMCACHE.DROP", "faq") == 1
        wait_until(lambda: wire("DBSIZE") == 0, "the reaper removed the entries")
        assert isinstance(loadex(wire, module_path), Failure), "it is loaded already"
        assert wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")


def test_arguments_of_loadmodule_are_refused_by_name(server_binary, module_path, tmp_path):
    folder = tmp_path / "arguments"
    folder.mkdir()
    for given, line in (
        (("ttl", "5"), "llmcache.ttl 5"),
        (("ttl", "5", "quant", "q8"), "llmcache.quant q8"),
        (("llmcache.ttl", "5"), "llmcache.ttl 5"),
    ):
        config = folder / "redis.conf"
        config.write_text(f"port 0\nunixsocket {folder}/socket\nloadmodule {module_path} {' '.join(given)}\n")
        run = subprocess.run([server_binary, config], cwd=folder, capture_output=True, text=True, timeout=30)
        assert run.returncode != 0
        assert line in run.stdout, run.stdout[-2_000:]


def test_settings_of_other_modules_do_not_disturb_a_start(server_binary, module_path, tmp_path):
    """At a start the server still holds the settings of modules that come later; none of them is misspelt."""
    server = Server(server_binary, module_path, tmp_path / "start", {"llmcache.ttl": "50"})
    server.start()
    with server.wire() as wire:
        assert wire("CONFIG", "GET", "llmcache.ttl") == [b"llmcache.ttl", b"50"]
        assert b"llmcache" in modules(wire)
    server.stop()
    server.check_log()
