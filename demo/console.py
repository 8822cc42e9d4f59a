#!/usr/bin/env python3
"""Opens the console on a server of its own, with the demo's questions, documents, conversations and chunks, and with
look-ups that go on. Ends on Ctrl-C.

    python demo/console.py [--port 8077] [--server redis-server] [--module target/release/libllmcache.so]
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pairs import load
from seed import fill, go_on
from server import CannotStart, Server

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    options = argparse.ArgumentParser(description="open the console on the demo's data")
    options.add_argument("--server", default="redis-server", help="server to start")
    options.add_argument("--module", type=Path, default=ROOT / "target/release/libllmcache.so", help="module to load")
    options.add_argument("--port", type=int, default=8077, help="the console's port; 0 for any")
    options.add_argument("--python", default=sys.executable, help="a Python that has the client with its extra `console`")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ended = threading.Event()
    try:
        with Server(chosen.server, chosen.module.resolve()) as server:
            pairs = load()
            client = server.client()
            fill(client, pairs)
            going = threading.Thread(target=go_on, args=(client, pairs, ended))
            going.start()
            try:
                print("Ctrl-C ends it. What it shows is made of the demo's questions; judging near misses is allowed.", flush=True)
                command = [chosen.python, "-m", "llmcache.cli", "console", f"unix://{server.socket}"]
                return subprocess.run([*command, "--port", str(chosen.port), "--allow-write"]).returncode
            finally:
                ended.set()
                going.join()
    except CannotStart as reason:
        print(reason, file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
