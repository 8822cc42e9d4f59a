/** LangGraph's own validation of checkpoint savers, over both libraries; and what it does not look at. */

import { emptyCheckpoint, uuid6 } from "@langchain/langgraph-checkpoint";
import { validate } from "@langchain/langgraph-checkpoint-validation";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RedisClient } from "../src/index.js";
import { LlmcacheSaver } from "../src/langgraph.js";
import { type Made, Server, TestCluster, clientOf, clusterClientOf, plain } from "./harness.js";

let server: Server;
beforeAll(async () => void (server = await new Server().start()));
afterAll(() => server.stop());

let count = 0;

for (const kind of ["node-redis resp3", "ioredis resp2"] as const) {
  let made: Made;
  describe(kind, () => {
    beforeAll(async () => void (made = await clientOf(kind, server.port)));
    afterAll(() => made.end());
    validate({
      checkpointerName: "llmcache",
      createCheckpointer: () => new LlmcacheSaver(made.client, { prefix: `lg-${count++}` }),
    });
  });
}

const metadata = { source: "loop" as const, step: 1, parents: {} };
const step = (saver: LlmcacheSaver, thread: string, id: string, parent?: string) =>
  saver.put({ configurable: { thread_id: thread, checkpoint_ns: "", ...(parent && { checkpoint_id: parent }) } }, { ...emptyCheckpoint(), id, channel_values: { c: id }, channel_versions: { c: id } }, metadata, { c: id });

it("keeps a thread in one slot of a cluster, with one deadline, and removes it whole", async () => {
  const cluster = await new TestCluster().start();
  const made = await clusterClientOf("ioredis resp2", cluster);
  const saver = new LlmcacheSaver(made.client, { ttl: 600 });
  const thread = "user/1 {x} ü";
  const [one, two] = [uuid6(0), uuid6(1)];
  await step(saver, thread, one);
  await saver.putWrites({ configurable: { thread_id: thread, checkpoint_ns: "", checkpoint_id: one } }, [["c", { a: "👋" }]], "task-1", "path");
  await step(saver, thread, two, one);
  const latest = await saver.getTuple({ configurable: { thread_id: thread } });
  expect(latest).toMatchObject({ checkpoint: { id: two }, parentConfig: { configurable: { checkpoint_id: one } } });
  const first = await saver.getTuple({ configurable: { thread_id: thread, checkpoint_id: one } });
  expect(first!.pendingWrites).toEqual([["task-1", "c", { a: "👋" }]]);
  let keys: string[] = [];
  for (const node of cluster.nodes) {
    const wire = await plain(node.port);
    const here = (await wire.keys("*")) as string[];
    for (const key of here) expect(await wire.ttl(key)).toBeGreaterThan(0);
    keys = keys.concat(here);
    wire.disconnect();
  }
  expect(keys).toHaveLength(2);
  await expect((async () => { for await (const _ of saver.list({})); })()).rejects.toThrow("by thread");
  await saver.deleteThread(thread);
  expect(await saver.getTuple({ configurable: { thread_id: thread } })).toBeUndefined();
  made.end();
  await cluster.stop();
});

it("reads threads of more steps than fit a page", async () => {
  const made = await clientOf("node-redis resp2", server.port);
  const saver = new LlmcacheSaver(made.client as RedisClient, { prefix: "long" });
  const ids = Array.from({ length: 450 }, (_, at) => uuid6(at));
  for (const id of ids) {
    await step(saver, "t", id);
    await saver.putWrites({ configurable: { thread_id: "t", checkpoint_ns: "", checkpoint_id: id } }, [["c", id]], "task");
  }
  const listed: string[] = [];
  for await (const tuple of saver.list({ configurable: { thread_id: "t" } })) {
    listed.push(tuple.checkpoint.id);
    expect(tuple.pendingWrites).toEqual([["task", "c", tuple.checkpoint.id]]);
    expect(tuple.checkpoint.channel_values).toEqual({ c: tuple.checkpoint.id });
  }
  expect(listed).toEqual([...ids].sort().reverse());
  expect((await saver.getTuple({ configurable: { thread_id: "t", checkpoint_id: ids[0]! } }))!.pendingWrites).toEqual([["task", "c", ids[0]]]);
  made.end();
});
