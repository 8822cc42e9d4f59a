/** What goes beyond the cases of resumable-stream: other processes, dead producers, stops, finished streams, clusters. */

import { fork } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisClient, StreamAbandoned } from "../src/index.js";
import { createResumableStreamContext } from "../src/resumable-stream.js";
import { KINDS, clientOf, clusterClientOf, until, fresh, serverAndCluster, type Made } from "./harness.js";

const [server, cluster] = serverAndCluster();

const TEXT = ["Grü", "ße 👋", " — 漢字", " \ud83d", "\ude00 Ende"];
const ALL = TEXT.join("");

/** A source that is written by hand. */
function source() {
  let controller!: ReadableStreamDefaultController<string>;
  let cancelled = false;
  const stream = new ReadableStream<string>({ start: (c) => void (controller = c), cancel: () => void (cancelled = true) });
  return { stream, write: (text: string) => controller.enqueue(text), close: () => controller.close(), fail: (e: Error) => controller.error(e), get cancelled() { return cancelled; } };
}

async function textOf(stream: ReadableStream<string> | null | undefined): Promise<string> {
  let text = "";
  for await (const part of stream as unknown as AsyncIterable<string>) text += part;
  return text;
}

describe.each(KINDS.flatMap((kind) => [
  { name: `${kind}, server`, make: () => clientOf(kind, server.port) },
  { name: `${kind}, cluster`, make: () => clusterClientOf(kind, cluster) },
]))("$name", ({ make }) => {
  let here: Made;
  let there: Made;
  beforeAll(async () => {
    here = await make();
    there = await make();
  });
  afterAll(() => {
    here.end();
    there.end();
  });
  const contexts = (more: object = {}) => {
    const keyPrefix = fresh("rs");
    const of = (client: RedisClient) => createResumableStreamContext({ waitUntil: null, client, keyPrefix, ...more });
    return [of(here.client), of(there.client)] as const;
  };

  it("is read by another process from any character on, however it was cut", async () => {
    const [a, b] = contexts({ replayFinished: true });
    const written = source();
    const first = textOf(await a.createNewResumableStream("s", () => written.stream));
    const readers = await Promise.all(Array.from({ length: ALL.length + 2 }, (_, skip) => b.resumeExistingStream("s", skip)));
    const texts = readers.map(textOf);
    TEXT.forEach(written.write);
    written.close();
    expect(await first).toBe(ALL);
    (await Promise.all(texts)).forEach((text, skip) => expect(text).toBe(ALL.slice(skip)));
    expect(await b.hasExistingStream("s")).toBe("DONE");
    expect(await textOf(await b.resumableStream("s", () => { throw new Error("never"); }, 3))).toBe(ALL.slice(3));
  });

  it("has one of many make the stream", async () => {
    const [a, b] = contexts();
    let made = 0;
    const written = source();
    const streams = await Promise.all(Array.from({ length: 20 }, (_, at) => (at % 2 ? a : b).resumableStream("s", () => (made++, written.stream))));
    const texts = streams.map(textOf);
    TEXT.forEach(written.write);
    written.close();
    expect(new Set(await Promise.all(texts))).toEqual(new Set([ALL]));
    expect(made).toBe(1);
    expect(await a.resumableStream("s", () => written.stream)).toBeNull();
  });

  it("goes on when its first reader goes, and ends with its source's error", async () => {
    const [a, b] = contexts();
    const written = source();
    const first = (await a.createNewResumableStream("s", () => written.stream))!;
    await first.cancel();
    TEXT.forEach(written.write);
    const reader = (await b.resumeExistingStream("s"))!.getReader();
    let text = "";
    await until(async () => (text += (await reader.read()).value) === ALL, "all is read");
    expect(written.cancelled).toBe(false);
    written.fail(new Error("the model broke"));
    expect((await reader.read()).done).toBe(true);
    expect(await b.hasExistingStream("s")).toBe("DONE");
    expect(await b.hasExistingStream("none")).toBeNull();
    expect(await b.resumeExistingStream("none")).toBeUndefined();
  });

  it("is stopped from elsewhere, also while its source is silent", async () => {
    const [a, b] = contexts();
    const written = source();
    let stopped = 0;
    const first = textOf(await a.createNewResumableStream("s", () => written.stream, 0, { onStop: () => stopped++ }));
    written.write("half");
    await until(() => b.hasExistingStream("s"), "it is there");
    const second = textOf(await b.resumeExistingStream("s"));
    expect(await b.stop("s")).toBe(true);
    expect([await first, "half".startsWith(await second)]).toEqual(["half", true]);
    expect([stopped, written.cancelled]).toEqual([1, true]);
    expect(await b.stop("s")).toBe(false);
  });
});

it("gives what a dead producer wrote, tells of it, and begins the stream again", async () => {
  const made = await clientOf("node-redis resp3", server.port);
  const keyPrefix = fresh("rs");
  const child = fork(new URL("./producer.mjs", import.meta.url), [String(server.port), `${keyPrefix}:rs:s`, "stream"], { silent: true });
  await new Promise((told) => child.once("message", told));
  const context = createResumableStreamContext({ waitUntil: null, client: made.client, keyPrefix });
  const reader = (await context.resumeExistingStream("s"))!.getReader();
  child.kill("SIGKILL");
  let text = "";
  const ended = await (async () => {
    for (;;) text += (await reader.read()).value;
  })().catch((error: unknown) => error);
  expect(ended).toBeInstanceOf(StreamAbandoned);
  expect(text).toBe("Hallo 👋");
  const again = source();
  const stream = await context.resumableStream("s", () => again.stream);
  again.write("anew");
  again.close();
  expect(await textOf(stream)).toBe("anew");
  made.end();
});

it("keeps the process alive while it writes, and says what client it needs", async () => {
  const made = await clientOf("ioredis resp2", server.port);
  const kept: Promise<unknown>[] = [];
  const context = createResumableStreamContext({ waitUntil: (promise) => void kept.push(promise), publisher: made.client, keyPrefix: fresh("rs") });
  const written = source();
  const stream = await context.resumableStream("s", () => written.stream);
  expect(kept).toHaveLength(1);
  written.close();
  await kept[0];
  expect(await textOf(stream)).toBe("");
  expect(await context.hasExistingStream("s")).toBe("DONE");
  expect(() => createResumableStreamContext({ waitUntil: null, publisher: { publish() {} } })).toThrow("pub/sub alone");
  made.end();
});
