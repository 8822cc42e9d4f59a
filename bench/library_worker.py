"""Builds an index of SVS and measures searches of the widths it is told, a line of JSON for each.

    python bench/library_worker.py FOLDER ROWS

Owns: what core's example `graph … ask` does, for the other library. Run by bench/library.py alone, in the venv that has it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import svs

sys.path.insert(0, str(Path(__file__).resolve().parent))

import vectors  # noqa: E402

K = 10
# As many links as our lowest level; the window and alpha that its authors measure with.
PARAMETERS = {"alpha": 0.95, "graph_max_degree": 32, "window_size": 128}


def main() -> None:
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    base, queries = vectors.load(folder)
    base = base[:rows]
    truth = vectors.nearest(base, queries, K)
    narrow, asked = base.astype(np.float16), queries.astype(np.float16)
    held, start = resident(), time.process_time()
    parameters = svs.VamanaBuildParameters(**PARAMETERS)
    index = svs.Vamana.build(parameters, narrow, svs.DistanceType.MIP, num_threads=1)
    seconds = time.process_time() - start
    tell({"inserts_per_s": len(base) / seconds, "bytes": (resident() - held) / len(base)})
    for line in sys.stdin:
        index.search_window_size = int(line)
        start = time.process_time()
        found, _ = index.search(asked, K)
        us = (time.process_time() - start) * 1e6 / len(asked)
        hits = sum(len(set(row) & set(nearest)) for row, nearest in zip(found.tolist(), truth))
        tell({"recall": hits / (K * len(asked)), "us": us})


def tell(what: dict) -> None:
    print(json.dumps(what), flush=True)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
