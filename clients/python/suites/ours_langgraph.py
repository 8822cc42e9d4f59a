"""`langgraph-checkpoint-conformance` over llmcache: prints one line for each capability, and the sum."""

import asyncio
import os
import sys

import redis.asyncio
from langgraph.checkpoint.conformance import checkpointer_test, validate

from llmcache.integrations.langgraph import LlmcacheSaver

PORT = int(os.environ["SUITE_PORT"])


@checkpointer_test(name="llmcache")
async def factory():
    async with redis.asyncio.Redis(port=PORT) as client:
        await client.flushall()
        yield LlmcacheSaver(client)


async def main() -> int:
    report = await validate(factory)
    passed = failed = 0
    for name, result in report.results.items():
        passed += result.tests_passed
        failed += result.tests_failed
        print(f"{name}: {result.tests_passed} passed, {result.tests_failed} failed")
        for failure in result.failures:
            print(f"  {failure}")
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()) > 0)
