"""A region of dogpile.cache whose values are made once for all threads and processes that ask for them.

pip install 'llmcache-client[dogpile]'
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import redis
from dogpile.cache import make_region

import llmcache.integrations.dogpile  # noqa: F401  registers the backend


def main(url: str) -> tuple[set[str], int]:
    """The values that twenty threads got, and how often one was made."""
    region = make_region().configure(
        "llmcache", expiration_time=300, arguments={"client": redis.from_url(url), "name": "prices"}
    )
    made: list[str] = []
    begin = threading.Barrier(20)

    @region.cache_on_arguments()
    def price(article: str) -> str:
        made.append(article)
        time.sleep(0.2)  # a slow source
        return f"{article} costs 4.90 EUR"

    def ask(_: int) -> str:
        begin.wait()
        return price("a lamp")

    with ThreadPoolExecutor(20) as threads:
        values = set(threads.map(ask, range(20)))
    return values, len(made)


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")))
