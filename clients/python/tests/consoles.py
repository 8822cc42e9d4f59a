"""A console in a process of its own, on a port that the system gives."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

CLIENT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(CLIENT.parents[1] / "demo"))
# `make console-test` sees to it that they are there.
CHROMIUM = shutil.which("chromium")
HAS_BROWSER = CHROMIUM is not None and importlib.util.find_spec("playwright") is not None


@dataclass
class Console:
    """What a test asks."""

    port: int
    token: str | None
    process: subprocess.Popen[str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def raw(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        status, _, body = self.raw("GET", f"/api/{path}?{urlencode(query)}")
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, body: Any, status: int = 200, **query: Any) -> Any:
        headers = {"content_type": "application/json", "x_llmcache_console": "1"}
        got, _, said = self.raw("POST", f"/api/{path}?{urlencode(query)}", json.dumps(body).encode(), **headers)
        assert got == status, said
        return json.loads(said)

    @contextlib.contextmanager
    def events(self, path: str) -> Iterator[Iterator[Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()

        def told() -> Iterator[Any]:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

        try:
            yield told()
        finally:
            connection.close()


@contextlib.contextmanager
def consoles(server) -> Iterator[Callable[..., Console]]:
    """Starts consoles on a server; all end."""
    with contextlib.ExitStack() as ends:

        def start(*options: str, url: str | None = None) -> Console:
            command = [
                sys.executable,
                "-m",
                "llmcache.cli",
                "console",
                url or f"redis://127.0.0.1:{server.port}",
                "--port",
                "0",
                *options,
            ]
            environment = {**os.environ, "PYTHONPATH": str(CLIENT / "src")}
            environment.pop("LLMCACHE_CONSOLE_TOKEN", None)
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            ends.callback(process.wait)
            ends.callback(process.terminate)
            said = process.stdout.readline()
            found = re.search(r"http://[^:]*:(\d+)/(?:\?token=(\S+))?", said)
            assert found, said + process.stdout.read()
            return Console(int(found[1]), found[2], process)

        yield start
