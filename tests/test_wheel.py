"""The wheel `llmcache-server`, installed into an empty folder: it carries the module and starts a server with it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(module_path, tmp_path_factory) -> Path:
    """Where the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts/wheel.py"), str(module_path), platform.machine(), str(folder / "dist")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wheel = made.stdout.strip()
    assert "-py3-none-manylinux_2_" in wheel
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(target), wheel], check=True)
    return target


def python(installed: Path, server_binary: Path, code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "LLMCACHE_SERVER": str(server_binary)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_it_serves_and_ends_with_its_block(installed, server_binary):
    said = python(installed, server_binary, """
import os, socket
from llmcache_server import module, serve
with serve(maxmemory="50mb", llmcache__auto_create="yes") as one, serve() as other:
    client = one.client()
    client.execute_command("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")
    print(client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "p"), other.client().dbsize(), one.port != other.port)
    print(client.config_get("maxmemory")["maxmemory"], one.url.startswith("redis://127.0.0.1:"), os.access(module(), os.X_OK))
print(one.process.poll() is not None, one.folder.exists(), other.folder.exists())
""")  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == ["b'r' 0 True", "52428800 True True", "True False False"]


def test_it_ends_with_the_interpreter(installed, server_binary):
    said = python(installed, server_binary, "from llmcache_server import serve; s = serve(); print(s.process.pid, s.folder)")
    assert said.returncode == 0, said.stderr
    pid, folder = said.stdout.split()
    assert not Path(f"/proc/{pid}").exists() and not Path(folder).exists()


def test_what_it_saves_in_a_folder_stays(installed, server_binary, tmp_path):
    code = f"""
from llmcache_server import serve
with serve(folder={str(tmp_path / "kept")!r}, appendonly="yes") as server:
    server.client().execute_command("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")
with serve(folder={str(tmp_path / "kept")!r}, appendonly="yes") as server:
    print(server.client().execute_command("LLMCACHE.GET", "faq", "PROMPT", "p"))
"""
    said = python(installed, server_binary, code)
    assert said.stdout.strip() == "b'r'", said.stderr


def test_it_says_why_there_is_no_server(installed, server_binary):
    said = python(installed, server_binary, "from llmcache_server import serve; serve(maxmemory='x')")
    assert "CannotStart" in said.stderr and "maxmemory" in said.stderr
    said = python(installed, Path("/no/such/server"), "from llmcache_server import serve; serve()")
    assert "no /no/such/server in PATH" in said.stderr


def test_a_module_that_lost_its_mode_is_loaded_all_the_same(installed, server_binary, tmp_path):
    code = """
import os
from llmcache_server import module, serve
os.chmod(module(), 0o644)
try:
    with serve() as server:
        print(server.client().execute_command("LLMCACHE.CREATE", "faq"))
finally:
    os.chmod(module(), 0o755)
"""
    said = python(installed, server_binary, code)
    assert said.stdout.strip() == "b'OK'", said.stderr
