/** Every family of commands, over both libraries and both protocols, on a server and on a cluster. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  BadFilter, BadVector, DimMismatch, LLMCache, LeaseLost, NoCache, type RedisClient, Session,
  WrongType, context,
} from "../src/index.js";
import { Documents } from "../src/documents.js";
import { Embeddings } from "../src/embeddings.js";
import { KINDS, clientOf, clusterClientOf, near, plain, fresh, serverAndCluster, type Made } from "./harness.js";

const [server, cluster] = serverAndCluster();

const places = KINDS.flatMap((kind) => [
  { name: `${kind}, server`, make: () => clientOf(kind, server.port) },
  { name: `${kind}, cluster`, make: () => clusterClientOf(kind, cluster) },
]);

describe.each(places)("$name", ({ make }) => {
  let made: Made;
  let client: RedisClient;
  beforeAll(async () => {
    made = await make();
    client = made.client;
  });
  afterAll(() => made.end());

  it("stores and finds answers, exactly and by meaning", async () => {
    const cache = new LLMCache(client, fresh("faq"));
    const id = await cache.set("Wie lange dauert das? ⏱", "Fünf Tage. 👍", {
      vector: near(0), tags: ["zeit"], meta: { lang: "de", n: 3 }, ttl: 60, tokens: 12, cost: 0.002,
    });
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(await cache.get("Wie lange dauert das? ⏱")).toBe("Fünf Tage. 👍");
    expect(await cache.get("other")).toBeNull();
    const hit = await cache.search("Wie lang dauert es?", { vector: near(0, 0.1), guard: "ON" });
    expect(hit).toMatchObject({ tier: "semantic", response: "Fünf Tage. 👍", tags: ["zeit"], meta: { lang: "de", n: 3 }, stale: false });
    expect(hit!.similarity).toBeGreaterThan(0.9);
    expect(hit!.similarity).toBeLessThan(1);
    expect(hit!.ttl).toBeGreaterThan(0);
    expect(hit!.ttl).toBeLessThanOrEqual(60);
    expect(await cache.search("x", { vector: near(4) })).toBeNull();
    expect(await cache.search("Wie lang dauert es?", { vector: near(0, 0.1), filter: ".lang == 'en'" })).toBeNull();
    expect(await cache.searchAll("Wie lang dauert es?", { vector: near(0, 0.1), count: 3 })).toHaveLength(1);
    expect(await cache.explain("x", { vector: near(4) })).toMatchObject({ status: "miss", hits: [] });
    expect((await cache.stats())["hits_semantic"]).toBe(2);
    expect((await cache.info())["dim"]).toBe(8);
    expect(await cache.invalidate({ tag: "zeit" }, { dryRun: true })).toBe(1);
    expect(await cache.invalidate({ tag: "zeit" })).toBe(1);
    expect(await cache.get("Wie lange dauert das? ⏱")).toBeNull();
    expect(await cache.drop()).toBe(true);
    expect(await cache.invalidate({ all: true })).toBe(0);
  });

  it("keeps bytes as bytes, scopes and contexts apart", async () => {
    const cache = new LLMCache(client, fresh("faq"), { context: context({ model: "m" }) });
    const bytes = Buffer.from([0, 255, 254, 10, 13, 0xc3]);
    await cache.set(bytes, bytes, { scope: "a" });
    expect(await cache.getBytes(bytes, { scope: "a" })).toEqual(bytes);
    expect(await cache.getBytes(bytes)).toBeNull();
    expect(await cache.getBytes(bytes, { scope: "a", context: context({ model: "n" }) })).toBeNull();
    expect((await cache.search(bytes, { scope: "a" }))!.body).toEqual(bytes);
  });

  it("gives one caller the lease, and lets the others wait beside other commands", async () => {
    const cache = new LLMCache(client, fresh("faq"));
    const lead = await cache.fetch("q", { vector: near(1) });
    expect(lead.status).toBe("LEAD");
    expect((await cache.fetch("q", { vector: near(1) })).status).toBe("BUSY");
    const waiter = cache.fetch("q", { vector: near(1), waitMs: 30_000 });
    // On one connection with the waiter this would not come through before the wait is over.
    await cache.set("q", "a", { vector: near(1), lease: lead.token! });
    expect(await waiter).toMatchObject({ status: "HIT", hit: { response: "a" } });
    await expect(cache.set("q", "b", { lease: lead.token! })).rejects.toBeInstanceOf(LeaseLost);
  });

  it("has a class for each error word", async () => {
    const cache = new LLMCache(client, fresh("faq"));
    await cache.set("q", "a", { vector: near(0) });
    const error = await cache.set("r", "a", { vector: [1, 0, 0] }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DimMismatch);
    expect(error).toMatchObject({ name: "DimMismatch", word: "DIMMISMATCH", cause: expect.any(Error) });
    await expect(cache.set("r", "a", { vector: new Float32Array(8) })).rejects.toBeInstanceOf(BadVector);
    await expect(cache.search("q", { vector: near(0), filter: ".a ==" })).rejects.toBeInstanceOf(BadFilter);
    await expect(cache.extend("0123456789abcdef", 1)).rejects.toBeInstanceOf(LeaseLost);
    await expect(new LLMCache(client, fresh("none")).info()).rejects.toBeInstanceOf(NoCache);
    await expect(new Session(client, cache.name).count()).rejects.toBeInstanceOf(WrongType);
  });

  it("keeps a conversation", async () => {
    const session = new Session(client, fresh("{u1}:chat"), { ttl: 600, owner: `{u1}:chats-${process.pid}` });
    const appended = await session.append([
      { role: "user", content: "Hällo 👋", id: "m1", tokens: 3, meta: { a: 1 } },
      { role: "assistant", content: "call", call: "t1" },
      { role: "tool", content: "sunny", result: "t1", pinned: true },
    ]);
    expect(appended).toEqual({ places: [1, 2, 3].map((seq) => ({ seq, isNew: true })), messages: 3, tokens: expect.any(Number) });
    expect((await session.append({ role: "user", content: "Hällo 👋", id: "m1", tokens: 3, meta: { a: 1 } }))!.places).toEqual([{ seq: 1, isNew: false }]);
    expect(await session.append({ role: "user", content: "x" }, { ifSeq: 1 })).toBeNull();
    const { messages, tokens } = await session.window({ last: 10, pairs: true });
    expect(messages.map((m) => [m.seq, m.role, m.content])).toEqual([
      [1, "user", "Hällo 👋"], [2, "assistant", "call"], [3, "tool", "sunny"],
    ]);
    expect(tokens).toBeGreaterThan(0);
    expect(messages[0]).toMatchObject({ id: "m1", meta: { a: 1 }, tokens: 3, pinned: false });
    expect(messages[2]).toMatchObject({ result: "t1", pinned: true });
    expect(await session.get({ id: "m1" })).toMatchObject({ seq: 1, content: "Hällo 👋", id: "m1", status: "whole" });
    expect(await session.edit({ id: "m1" }, "Hi")).toBe(true);
    expect((await session.messages("-", "+", { reverse: true, count: 1 }))[0]!.role).toBe("tool");
    expect((await session.sessions())[0]).toMatchObject({ session: session.key, messages: 3 });
    expect(await session.fork(`${session.key}-2`, 2)).toBe(2);
    expect(await session.compact(2, "they greeted")).toMatchObject({ removed: 2 });
    expect((await session.pop())[0]!.content).toBe("sunny");
    expect(await session.count()).toBe(1);
    expect(await session.drop()).toBe(true);
    expect(await session.get(1)).toBeNull();
    expect(await session.info()).toBeNull();
  });

  it("appends long messages in several commands", async () => {
    const session = new Session(client, fresh("chat"));
    const told = await session.append([
      { role: "user", content: "a" },
      ...[1, 2, 3].map((n) => ({ role: "assistant", content: `${n}` + "é".repeat(600 << 10) })),
      { role: "user", content: "b".repeat(3 << 20) },
    ]);
    expect(told?.messages).toBe(5);
    expect(told?.places.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5]);
  });

  it("recalls messages by meaning", async () => {
    const session = new Session(client, fresh("chat"));
    await session.append([0, 1, 2].map((axis) => ({ role: "user", content: `m${axis}`, vector: near(axis) })));
    const [found] = await session.recall(near(1, 0.1), { count: 1, around: 1 });
    expect(found).toMatchObject({ message: { content: "m1" }, before: [{ content: "m0" }], after: [{ content: "m2" }] });
    expect(found!.similarity).toBeGreaterThan(0.9);
  });

  it("writes a message while it is read", async () => {
    const session = new Session(client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1" });
    const read = (async () => {
      let text = "";
      for await (const part of session.text({ id: "a1" })) text += part;
      return text;
    })();
    for (const part of ["Grü", "ße ", "👋", "!"]) expect(await writer.write(part)).toBe(true);
    expect(await writer.end({ tokens: 4 })).toBe(Buffer.byteLength("Grüße 👋!"));
    expect(await read).toBe("Grüße 👋!");
    expect(await session.get({ id: "a1" })).toMatchObject({ status: expect.stringMatching(/done|whole/), tokens: 4 });
  });

  it("documents are found by words, by both, and kept without a vector", async () => {
    const documents = new Documents(client, fresh("words"), { embed: (text) => near(0, text.length / 100) });
    await documents.create({ words: "english" });
    const texts = { n1: "Error ERR-4711: the pump of the boiler is blocked.", n2: "Boilers with two pumps need more water.", TRUNCATE: "Nothing of it 👋." };
    const all = Object.entries(texts).map(([id, text]) => ({ id, text }));
    expect(await documents.add(all.slice(0, 2))).toBe(2);
    expect(await documents.add(all.slice(2), { embed: false })).toBe(1);
    const found = await documents.search(null, { words: "err-4711 pump", snippet: true });
    expect(found.map((one) => one.id)).toEqual(["n1", "n2"]);
    expect(found[0]!.score).toBeGreaterThan(found[1]!.score!);
    expect(found[0]!.snippet).toContain("<b>pump</b>");
    expect((await documents.search(null, { words: "pump -blocked", fields: ["id"] })).map((one) => one.id)).toEqual(["n2"]);
    expect((await documents.search(null, { words: "pump", offset: 1, snippet: 3, marks: ["[", "]"] }))[0]!.snippet).toMatch(/\[pumps?\]/);
    for (const fuse of [{ rrf: 10 }, { linear: 0.3 }, undefined]) {
      const both = await documents.search("boilers", { words: "nothing 👋", ...(fuse && { fuse }) });
      expect(both.map((one) => one.id)).toContain("TRUNCATE");
      expect(both.find((one) => one.id === "TRUNCATE")!.similarity).toBeNull();
      expect(both.find((one) => one.id === "n1")!.similarity).toBeGreaterThan(0);
    }
    await expect(documents.search(null)).rejects.toThrow(/vector/i);
  });

  it("stores documents and searches them", async () => {
    const documents = new Documents(client, fresh("docs"));
    expect(await documents.get("a")).toBeNull();
    expect(await documents.add([
      { id: "a", text: "returns", vector: near(0), meta: { lang: "en" }, tags: ["t"], tokens: 3 },
      { id: "TEXT", text: "an id that is a word of the command", vector: near(1) },
      { id: "FILTER", text: "an id that is a word of another command", vector: near(3) },
      { id: "b", text: "shipping ü", vector: near(2), meta: { lang: "de" } },
    ])).toBe(4);
    expect(await documents.delete("FILTER")).toBe(1);
    const found = await documents.search(near(0, 0.2), { k: 2, filter: "exists(.lang)" });
    expect(found.map((d) => d.id)).toEqual(["a", "b"]);
    expect(found[0]).toMatchObject({ text: "returns", meta: { lang: "en" }, tags: ["t"] });
    expect(await documents.get("b")).toMatchObject({ text: "shipping ü" });
    const ids: string[] = [];
    for await (const id of documents.ids()) ids.push(id);
    expect(ids.sort()).toEqual(["TEXT", "a", "b"]);
    expect(await documents.delete("a", "none")).toBe(1);
    expect(await documents.drop()).toBe(true);
  });

  it("keeps embeddings as Float32Array", async () => {
    const embeddings = new Embeddings(client, fresh("emb"), { model: "m" });
    await embeddings.create(8, { quant: "NONE" });
    const vector = new Float32Array([0.1, -2, 3e-5, 4, 5, 6, 7, 8.25]);
    await embeddings.set("täxt", vector);
    expect(await embeddings.get("täxt")).toEqual(vector);
    const asked: string[][] = [];
    const compute = (texts: string[]) => (asked.push(texts), texts.map((text) => near(text.length)));
    expect(await embeddings.embedMany(["täxt", "b", "cc", "b"], compute)).toEqual([vector, near(1), near(2), near(1)]);
    expect(asked).toEqual([["b", "cc"]]);
    expect(await embeddings.embedMany(["b", "cc"], compute)).toEqual([near(1), near(2)]);
    let calls = 0;
    const once = async () => (calls++, near(3));
    const all = await Promise.all(Array.from({ length: 20 }, () => embeddings.getOrCompute("new", once)));
    expect(all.every((one) => one[3] === 1)).toBe(true);
    expect(calls).toBe(1);
    await expect(new Embeddings(client, embeddings.name, { model: "n" }).set("x", near(0))).rejects.toMatchObject({ word: "MODELMISMATCH" });
    expect(await embeddings.delete("b", "none")).toBe(1);
  });
});

it.each(KINDS)("%s sends commands of a cluster to the node of their key", async (kind) => {
  const wires = await Promise.all(cluster.nodes.map((node) => plain(node.port)));
  const moved = async () => {
    let sum = 0;
    for (const wire of wires) sum += Number(/errorstat_MOVED:count=(\d+)/.exec(String(await wire.call("INFO", "errorstats")))?.[1] ?? 0);
    return sum;
  };
  const made = await clusterClientOf(kind, cluster);
  const before = await moved();
  for (let at = 0; at < 30; at++) {
    const cache = new LLMCache(made.client, fresh("faq"));
    await cache.set("q", "a");
    expect(await cache.get("q")).toBe("a");
  }
  expect((await moved()) - before).toBe(0);
  made.end();
  for (const wire of wires) wire.disconnect();
});
