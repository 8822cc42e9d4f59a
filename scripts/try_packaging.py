#!/usr/bin/env python3
"""Tries what `make dist` and packaging/ would give a user, without Docker.

    scripts/try_packaging.py            the Debian package of this machine's architecture, from dist/
    scripts/try_packaging.py --image    also every step of packaging/Dockerfile, which takes a full build
    scripts/try_packaging.py --clean    also by apt in a Debian made by debootstrap: as root, with the network, minutes

The package is installed by dpkg into an empty root. Of the Dockerfile, each stage gets a folder as its root: COPY copies
into it from the repository or from another stage, RUN runs in its working folder, so that a source the build needs and
nobody copies is found. Steps that install Debian packages only have the names of these looked up. Of both, a
redis-server loads the module from where it was put, with the settings of the image for the image, stores an answer and
finds it exactly and by similarity.
"""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from check_packaging import MODULE, ROOT, instructions  # noqa: E402

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
START_SECONDS = 60


def below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Path]:
    """A server that listens on a socket alone."""
    with tempfile.TemporaryDirectory() as folder:
        socket, log = Path(folder) / "socket", Path(folder) / "log"
        own = ["--port", "0", "--unixsocket", str(socket), "--logfile", str(log), "--daemonize", "no"]
        server = subprocess.Popen(["redis-server", *options, *own], cwd=folder)
        try:
            end = time.monotonic() + START_SECONDS
            while subprocess.run(["redis-cli", "-s", socket, "ping"], capture_output=True).stdout != b"PONG\n":
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"try_packaging: the server did not start\n{log.read_text() if log.exists() else ''}")
                time.sleep(0.05)
            yield socket
        finally:
            server.terminate()
            server.wait()


def ask(socket: Path, *command: str) -> str:
    return subprocess.run(["redis-cli", "-s", socket, *command], capture_output=True, text=True, check=True).stdout.strip()


def check_hits(*options: str) -> None:
    asked = "How do I get my money back?"
    with serving(*options) as socket:
        ask(socket, "LLMCACHE.SETSEM", "faq", "PROMPT", asked, "RESPONSE", "In 5 days.", "VALUES", "2", "0.9", "0.4")
        exact = ask(socket, "LLMCACHE.GET", "faq", "PROMPT", asked)
        near = ask(socket, "LLMCACHE.GETSEM", "faq", "VALUES", "2", "0.88", "0.42", "RETURN", "1", "response")
        if exact != "In 5 days." or near.splitlines()[-1] != "In 5 days.":
            raise SystemExit(f"try_packaging: no hit: {exact!r}, {near!r}")


def try_package(root: Path) -> None:
    """Installs the package into an empty root, loads it from there, and removes it."""
    machine = ARCHITECTURES[platform.machine()]
    [package] = (ROOT / "dist").glob(f"llmcache_*_{machine}.deb")
    for folder in ("info", "updates"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    # The root has no other package, so its dependencies are named and not installed.
    dpkg = ["dpkg", f"--root={root}", "--force-depends", "--force-not-root", "--log=/dev/null"]
    subprocess.run([*dpkg, "--install", package], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    check_hits("--loadmodule", str(below(root, MODULE)), "--save", "")
    subprocess.run([*dpkg, "--purge", "llmcache"], check=True, stdout=subprocess.DEVNULL)
    if below(root, MODULE).exists():
        raise SystemExit("try_packaging: the package leaves its module behind")
    print(f"{package.name}: installed, loaded, a hit, removed")


def try_clean(root: Path) -> None:
    """Installs the package by apt beside Debian's redis-server, in a root that has nothing else, and loads it there."""
    debian = root / "debian"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", debian], check=True, stdout=subprocess.DEVNULL)
    machine = ARCHITECTURES[platform.machine()]
    [package] = (ROOT / "dist").glob(f"llmcache_*_{machine}.deb")
    shutil.copy(package, debian / "tmp" / package.name)
    # Nothing is started: the root has no init.
    (debian / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (debian / "usr/sbin/policy-rc.d").chmod(0o755)
    shutil.copy("/etc/resolv.conf", debian / "etc/resolv.conf")
    steps = f"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get install -q -y --no-install-recommends redis-server /tmp/{package.name} >/dev/null
dpkg -s llmcache | grep -q '^Status: install ok installed'
redis-server --port 0 --unixsocket /tmp/s --save '' --loadmodule {MODULE} --daemonize yes >/dev/null
for _ in $(seq 100); do redis-cli -s /tmp/s ping >/dev/null 2>&1 && break; sleep 0.1; done
redis-cli -s /tmp/s LLMCACHE.SET faq PROMPT p RESPONSE r
redis-cli -s /tmp/s LLMCACHE.GET faq PROMPT p
redis-cli -s /tmp/s shutdown nosave
apt-get purge -q -y llmcache >/dev/null
test ! -e {MODULE}"""
    said = subprocess.run(["chroot", debian, "sh", "-c", steps], capture_output=True, text=True)
    if said.returncode != 0 or said.stdout.split()[-1:] != ["r"]:
        raise SystemExit(f"try_packaging: apt in a clean root: {said.stdout}{said.stderr}")
    print(f"{package.name}: installed by apt beside Debian's redis-server, loaded, a hit, purged")


def packages(command: str) -> list[str]:
    """The Debian packages that a RUN installs."""
    installed = re.search(r"apt-get install ([^&]*)", command)
    return [word for word in (installed[1].split() if installed else []) if not word.startswith("-")]


def try_image(root: Path) -> None:
    """Runs the Dockerfile's steps, each stage in a folder."""
    stages: dict[str, Path] = {}
    stage = workdir = root
    for word, rest in instructions((ROOT / "packaging/Dockerfile").read_text()):
        if word == "FROM":
            name = rest.partition(" AS ")[2].strip() or "image"
            stage = stages[name] = workdir = root / name
            stage.mkdir()
        elif word == "WORKDIR":
            workdir = below(stage, rest.strip())
            workdir.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            of_stage = re.search(r"--from=(\S+)", rest)
            *sources, target = [part for part in rest.split() if not part.startswith("--")]
            to = below(stage, target) if target.startswith("/") else workdir / target
            for source in sources:
                came = below(stages[of_stage[1]], source) if of_stage else ROOT / source
                place = to / came.name if target.endswith("/") else to
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(came, place, dirs_exist_ok=True) if came.is_dir() else shutil.copy(came, place)
        elif word == "RUN" and packages(rest):
            subprocess.run(["apt-cache", "show", *packages(rest)], check=True, stdout=subprocess.DEVNULL)
        elif word == "RUN":
            subprocess.run(rest, shell=True, check=True, cwd=workdir)
        elif word == "CMD":
            settings = re.findall(r'"([^"]+\.conf)"', rest)[0]
    # Paths of the image are below its folder here.
    config = below(stages["image"], settings)
    text = config.read_text().replace(MODULE, str(below(stages["image"], MODULE)))
    data = below(stages["image"], "/data")
    data.mkdir()
    config.write_text(re.sub(r"^dir .*", f"dir {data}", text, flags=re.MULTILINE))
    check_hits(str(config))
    print("Dockerfile: every step ran, its settings load the module, a hit")


def main() -> int:
    asked = [attempt for option, attempt in (("--image", try_image), ("--clean", try_clean)) if option in sys.argv[1:]]
    for attempt in [try_package, *asked]:
        with tempfile.TemporaryDirectory() as root:
            attempt(Path(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
