"""Rounds of torture on a machine that stalls: the harness, a server, or a child that saves, stands still for up to 5 s.

    python tests/torture/stalls.py --stall-seed N [arguments of run.py]

What is found here is a fault of the module, or a comparison of the harness's own that depends on time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

RUN = Path(__file__).resolve().parent / "run.py"
BETWEEN_SECONDS = (0.02, 0.1, 0.3, 1)
# Most stalls are short; the long ones are those that a busy machine has now and then.
SHORT_SECONDS = 0.05
STALL_SECONDS = (0.005, 0.02, 0.1, 0.3, 1, 2, 5)


def children(pid: int) -> list[int]:
    """Processes that one started and that are still there."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def victims(rng: random.Random, harness: int) -> list[int]:
    """What stands still next."""
    servers = children(harness)
    match rng.choice(("harness", "one server", "one server", "all servers", "what saves")):
        case "harness":
            return [harness]
        case "all servers":
            return servers
        case "what saves":
            return [child for server in servers for child in children(server)]
    return [rng.choice(servers)] if servers else []


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """They stand still meanwhile; one that ended by then is no matter."""
    pids = list(pids)
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stall-seed", type=int, default=int(time.time()))
    given, others = parser.parse_known_args()
    rng = random.Random(given.stall_seed)
    print(f"stalls: seed {given.stall_seed}", flush=True)
    with subprocess.Popen([sys.executable, RUN, *others]) as harness:
        while harness.poll() is None:
            time.sleep(rng.choice(BETWEEN_SECONDS))
            length = rng.choice(STALL_SECONDS) if rng.random() < 0.5 else SHORT_SECONDS
            with stopped(victims(rng, harness.pid)):
                time.sleep(length)
    return harness.returncode


if __name__ == "__main__":
    sys.exit(main())
