#!/usr/bin/env python3
"""Checks packaging/ without Docker: that every file it names is there, and that its parts agree.

Of the Dockerfile: known instructions, pinned base images, sources of COPY that exist, packages that are installed without
their lists being kept, the module at the one place where every part looks for it. Of the compose file: that it builds that
Dockerfile, publishes on the loopback alone and keeps data in a volume. Of the settings: that the server's defaults
in redis.conf have every `llmcache.*` name that the container sets.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "/usr/lib/redis/modules/libllmcache.so"
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD", "ENV", "ARG", "USER", "ENTRYPOINT"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def wrong_in_dockerfile(text: str, has_module: bool = True) -> list[str]:
    wrong, stages = [], set()
    for word, rest in instructions(text):
        if word not in INSTRUCTIONS:
            wrong.append(f"unknown instruction {word}")
        elif word == "FROM":
            image, _, stage = rest.partition(" AS ")
            stages.add(stage.strip())
            if ":" not in image or image.endswith(":latest"):
                wrong.append(f"{image} is not pinned to a version")
        elif word == "COPY":
            *sources, target = [part for part in rest.split() if not part.startswith("--")]
            stage = re.search(r"--from=(\S+)", rest)
            if stage and stage[1] not in stages:
                wrong.append(f"no stage {stage[1]}")
            missing = [] if stage else [source for source in sources if not (ROOT / source).exists()]
            wrong += [f"COPY of {source}, which is not there" for source in missing]
            if len(sources) > 1 and not target.endswith("/"):
                wrong.append(f"several files are copied to {target}, which is no folder")
        elif word == "RUN" and "apt-get install" in rest:
            if "rm -rf /var/lib/apt/lists" not in rest or "--no-install-recommends" not in rest:
                wrong.append("apt-get install keeps its lists or installs recommendations")
    if has_module and f"{MODULE}\n" not in text:
        wrong.append(f"the module is not put to {MODULE}")
    return [f"Dockerfile: {line}" for line in wrong]


def wrong_in_compose(text: str) -> list[str]:
    wanted = {
        "dockerfile: packaging/Dockerfile": "does not build packaging/Dockerfile",
        '"127.0.0.1:6379:6379"': "publishes to more than the loopback",
        "data:/data": "keeps no data in a volume",
    }
    wrong = [f"compose.yaml: {what}" for line, what in wanted.items() if line not in text]
    published = re.findall(r'^      - "([\d.:]+:\d+:\d+|\d+:\d+)"$', text, re.MULTILINE)
    wrong += [f"compose.yaml: {port} is published to more than the loopback" for port in published if not port.startswith("127.0.0.1:")]
    wrong += [f"compose.yaml: no {path}" for path in re.findall(r"^      - \./([^:]+):", text, re.MULTILINE) if not (ROOT / "packaging" / path).exists()]
    wrong += [f"compose.yaml: no {path}" for path in re.findall(r"dockerfile: (\S+)", text) if not (ROOT / path).exists()]
    own = ("llmcache", "llmcache-console")
    images = [image for image in re.findall(r"^    image: (\S+)", text, re.MULTILINE) if image not in own]
    wrong += [f"compose.yaml: {image} is not pinned" for image in images if ":" not in image or image.endswith(":latest")]
    return wrong + (["compose.yaml: tabs"] if "\t" in text else [])


def wrong_in_settings(text: str, known: str) -> list[str]:
    names = re.findall(r"^(llmcache\.[\w-]+)", text, re.MULTILINE)
    wrong = [f"server.conf: no setting {name}" for name in names if not re.search(rf"^{re.escape(name)} ", known, re.MULTILINE)]
    return wrong + ([] if f"loadmodule {MODULE}" in text else [f"server.conf: does not load {MODULE}"])


def wrong_in_monitoring(folder: Path) -> list[str]:
    """Names that rules and dashboard ask for and the exporter's script does not tell; tests/monitoring asks them of a server."""
    script = (folder / "llmcache.lua").read_text()
    told = set(re.findall(r"'([a-z_]+)'", script))
    wrong = []
    for file in ("alerts.yml", "dashboard.json"):
        for name in set(re.findall(r"\bllmcache_([a-z_]+)\b", (folder / file).read_text())):
            if not name.startswith("server_") and name not in told and name.removesuffix("_total") not in told:
                wrong.append(f"{file}: llmcache.lua tells no llmcache_{name}")
    return wrong


def main() -> int:
    folder = ROOT / "packaging"
    wrong = wrong_in_dockerfile((folder / "Dockerfile").read_text())
    wrong += wrong_in_dockerfile((folder / "console.Dockerfile").read_text(), has_module=False)
    wrong += wrong_in_monitoring(folder / "monitoring")
    wrong += wrong_in_compose((folder / "compose.yaml").read_text())
    wrong += wrong_in_settings((folder / "server.conf").read_text(), (ROOT / "redis.conf").read_text())
    if f"$root{MODULE}" not in (ROOT / "scripts/dist.sh").read_text():
        wrong.append(f"dist.sh: does not package {MODULE}")
    for file in ("scripts/dist.sh", "Makefile"):
        installs = re.findall(r"install -D -m (\d+) .*libllmcache", (ROOT / file).read_text())
        if installs != ["755"]:
            wrong.append(f"{file}: a server loads only a module that may be executed (mode 755)")
    for line in wrong:
        print(f"check_packaging: {line}", file=sys.stderr)
    if not wrong:
        print("packaging: Dockerfiles, compose.yaml, server.conf, monitoring and dist.sh agree")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
