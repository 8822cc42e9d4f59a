"""Fixtures of the client's tests: a real server with the module, clients of each kind, a fake model.

Stands on the harness of the repository's own tests (`tests/harness`); `LLMCACHE_TEST_SERVER` and `LLMCACHE_MODULE`
choose server and module as there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLIENT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CLIENT / "src"), str(CLIENT / "tests"), str(ROOT / "tests")]

import redis  # noqa: E402
import redis.asyncio  # noqa: E402
from harness.server import Fleet, Server  # noqa: E402

DEADLINE_SECONDS = 400


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
    return Path(text).absolute()


@pytest.fixture(scope="session")
def new_fleet(tmp_path_factory: pytest.TempPathFactory):
    """Makes fleets of servers; whatever happens, all end."""
    binary = _existing(os.environ.get("LLMCACHE_TEST_SERVER") or shutil.which("redis-server"), "server binary")
    module = _existing(os.environ.get("LLMCACHE_MODULE") or str(ROOT / "target/release/libllmcache.so"), "module")
    fleets: list[Fleet] = []

    def make() -> Fleet:
        fleets.append(Fleet(binary, module, tmp_path_factory.mktemp("fleet")))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


@pytest.fixture(scope="session")
def lasting(new_fleet) -> Server:
    return new_fleet().launch()


@pytest.fixture
def server(lasting: Server):
    """One server for all tests, emptied before each."""
    with lasting.wire() as wire:
        assert wire("FLUSHALL") == "OK"
        assert wire("CONFIG", "RESETSTAT") == "OK"
    return lasting


@pytest.fixture
def fleet(new_fleet):
    """Servers of this test's own: `fleet.launch(option=value)`."""
    fleet = new_fleet()
    yield fleet
    fleet.end()


@pytest.fixture
def r(server: Server):
    """The client as an application makes it."""
    with redis.Redis(port=server.port) as client:
        yield client


@pytest.fixture(params=["resp2", "resp3", "resp2-decoded", "resp3-decoded"])
def any_r(server: Server, request: pytest.FixtureRequest):
    """The client in each form that an application may have it."""
    protocol = 2 if "resp2" in request.param else 3
    with redis.Redis(port=server.port, protocol=protocol, decode_responses="decoded" in request.param) as client:
        yield client


@pytest.fixture
def loop_run(server: Server):
    """Runs `work(client)` in an event loop of its own, with a client of asyncio."""

    def run(work, **options):
        async def main():
            async with redis.asyncio.Redis(port=server.port, **options) as client:
                return await work(client)

        return asyncio.run(main())

    return run
