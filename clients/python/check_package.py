#!/usr/bin/env python3
"""Builds wheel and sdist, installs each into a fresh environment, and runs the README's example there as it stands.

    python clients/python/check_package.py PORT     (a server with the module loaded)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAID = ["In 5 days.", "In 5 days.", "m says: What is new?", "3", "['Where is my parcel?', 'On its way.']"]


def example() -> str:
    """The first block of Python of the README."""
    found = re.search(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    if found is None:
        raise SystemExit("the README shows no Python")
    return found[1]


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(port: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        builder = Path(folder) / "builder"
        venv.create(builder, with_pip=True)
        run(builder / "bin" / "python", "-m", "pip", "install", "--quiet", "build")
        run(builder / "bin" / "python", "-m", "build", "--outdir", f"{folder}/dist", HERE)
        built = sorted(Path(folder, "dist").iterdir())
        if [path.suffix for path in built] != [".whl", ".gz"] and [path.suffix for path in built] != [".gz", ".whl"]:
            raise SystemExit(f"a wheel and an sdist were to be built, not {built}")
        for number, package in enumerate(built):
            fresh = Path(folder) / f"fresh-{number}"
            venv.create(fresh, with_pip=True)
            python = fresh / "bin" / "python"
            run(python, "-m", "pip", "install", "--quiet", package)
            code = example().replace("redis.Redis()", f"redis.Redis(port={int(port)})")
            run(python, "-c", f"import redis; redis.Redis(port={int(port)}).flushall()")
            said = run(python, "-c", code).splitlines()
            if said != SAID:
                raise SystemExit(f"the README's example said {said}, not {SAID}")
            run(fresh / "bin" / "llmcache", "stats", "faq", "--url", f"redis://127.0.0.1:{int(port)}")
            run(python, "-c", "import llmcache, pathlib; assert (pathlib.Path(llmcache.__file__).parent / 'py.typed').exists()")
            print(f"{package.name}: installed, and the README's example runs")


if __name__ == "__main__":
    main(sys.argv[1])
