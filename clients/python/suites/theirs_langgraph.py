"""`langgraph-checkpoint-conformance` over `langgraph-checkpoint-redis`, the existing implementation."""

import asyncio
import os
import sys

import redis.asyncio
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.redis.aio import AsyncRedisSaver

PORT = int(os.environ["SUITE_PORT"])


@checkpointer_test(name="langgraph-checkpoint-redis")
async def factory():
    async with redis.asyncio.Redis(port=PORT) as client:
        await client.flushall()
    async with AsyncRedisSaver.from_conn_string(f"redis://127.0.0.1:{PORT}") as saver:
        await saver.asetup()
        yield saver


async def main() -> int:
    report = await validate(factory)
    passed = sum(result.tests_passed for result in report.results.values())
    failed = sum(result.tests_failed for result in report.results.values())
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()) > 0)
