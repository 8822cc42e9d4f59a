"""These tests need redis_exporter, Prometheus and promtool: `make monitoring` fetches Debian's packages into `.servers/`.
They are not collected where the programs are not there."""

from __future__ import annotations

import shutil
from pathlib import Path

FETCHED = Path(__file__).resolve().parents[2] / ".servers" / "monitoring" / "usr" / "bin"
NEEDED = ("prometheus-redis-exporter", "prometheus", "promtool")


def program(name: str) -> str | None:
    return shutil.which(name, path=str(FETCHED)) or shutil.which(name)


collect_ignore_glob = [] if all(program(name) for name in NEEDED) else ["test_*.py"]
