"""Fixtures of the integration tests: which server, which module, and a fresh server for each test."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.cache import Cache  # noqa: E402
from harness.server import Fleet, Server  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# What needs the real model is collected where `make model` has fetched it: nothing in this suite is skipped.
collect_ignore = [] if (ROOT / "models/all-MiniLM-L6-v2/model.safetensors").exists() else ["test_embed_quality.py"]
# Longer than any test takes; a test that hangs ends here instead of stalling the run.
DEADLINE_SECONDS = 400


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", help="the server binary to test on; default redis-server in PATH")
    parser.addoption("--module", help="the module to load; default target/release/libllmcache.so")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    def too_long(*_):
        raise TimeoutError(f"{item.nodeid} ran for {DEADLINE_SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(DEADLINE_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def _existing(text: str | None, what: str) -> Path:
    if not text or not Path(text).exists():
        raise pytest.UsageError(f"no {what} at {text!r}")
    # Not resolved: Debian's redis-server is a link whose name decides what the program does.
    return Path(text).absolute()


@pytest.fixture(scope="session")
def server_binary(pytestconfig: pytest.Config) -> Path:
    given = pytestconfig.getoption("--server") or os.environ.get("LLMCACHE_TEST_SERVER")
    return _existing(given or shutil.which("redis-server"), "server binary")


@pytest.fixture(scope="session")
def module_path(pytestconfig: pytest.Config) -> Path:
    given = pytestconfig.getoption("--module") or os.environ.get("LLMCACHE_MODULE")
    return _existing(given or str(ROOT / "target/release/libllmcache.so"), "module")


@pytest.fixture
def fleet(server_binary: Path, module_path: Path, tmp_path: Path):
    """Starts servers for this test: `fleet.launch(option=value)`."""
    fleet = Fleet(server_binary, module_path, tmp_path)
    yield fleet
    fleet.end()


@pytest.fixture
def server(fleet: Fleet) -> Server:
    """A server with default settings, for this test alone."""
    return fleet.launch()


@pytest.fixture(scope="module")
def lasting(server_binary: Path, module_path: Path, tmp_path_factory: pytest.TempPathFactory):
    fleet = Fleet(server_binary, module_path, tmp_path_factory.mktemp("lasting"))
    yield fleet
    fleet.end()


@pytest.fixture
def emptied(lasting: Fleet):
    """One server for all tests of a file, emptied before each.

    For files of many small tests that leave no settings behind; such a file says
    `def server(emptied): return emptied`.
    """
    if not lasting.servers or not lasting.servers[-1].alive:
        lasting.launch()
    server = lasting.servers[-1]
    with server.wire() as wire:
        assert wire("FLUSHALL") == "OK"
    yield server
    server.close_clients()
    server.check_log()


@pytest.fixture
def client(server: Server):
    """A redis-py client of `server`; replies are bytes."""
    return server.client()


@pytest.fixture
def cache(client) -> Cache:
    """The cache `faq` on `server`, not yet created."""
    return Cache(client)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def resp(request: pytest.FixtureRequest) -> int:
    """The protocol, one test run for each."""
    return request.param


@pytest.fixture
def cache_by(server: Server, resp: int) -> Cache:
    """The cache `faq` on `server`, by either protocol."""
    return Cache(server.client(resp))


@pytest.fixture
def redis_cli() -> str:
    found = shutil.which("redis-cli")
    if found is None:
        raise pytest.UsageError("no redis-cli in PATH")
    return found
