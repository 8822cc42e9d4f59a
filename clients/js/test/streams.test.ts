/** Messages that are read while they are written: any reader, any place, few connections. */

import { fork } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LLMCache, LeaseLost, LlmcacheError, Session, StreamGone, StreamTaken } from "../src/index.js";
import {
  KINDS, Server, clientOf, clusterClientOf, connections, sleep, until, fresh, serverAndCluster, type Kind, type Made,
} from "./harness.js";

const [server, cluster] = serverAndCluster();

// Characters of one to four bytes, a character of several code points, a line break.
const TEXT = "aé漢😀 👩‍👩‍👧‍👦\nß!";
const BYTES = Buffer.from(TEXT);
const LIBRARIES: Kind[] = ["node-redis resp3", "ioredis resp2"];

async function read(session: Session, id: string, offset = 0): Promise<{ data: Buffer; text: string; status: string; end: number }> {
  const parts: Buffer[] = [];
  let [text, status, end] = ["", "", offset];
  for await (const part of session.follow({ id }, { offset, waitMs: 30_000 })) {
    parts.push(Buffer.from(part.data));
    text += part.text;
    status = part.status;
    expect(part.offset).toBe(end + part.data.length);
    end = part.offset;
  }
  return { data: Buffer.concat(parts), text, status, end };
}

describe.each(KINDS.flatMap((kind) => [
  { name: `${kind}, server`, make: () => clientOf(kind, server.port) },
  { name: `${kind}, cluster`, make: () => clusterClientOf(kind, cluster) },
]))("$name", ({ make }) => {
  let made: Made;
  beforeAll(async () => void (made = await make()));
  afterAll(() => made.end());

  it("is read from any byte on, while it is written in any parts", async () => {
    const session = new Session(made.client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1" });
    const readers = Array.from({ length: BYTES.length + 1 }, (_, at) => read(session, "a1", at));
    // Byte by byte: characters are cut everywhere.
    for (const byte of BYTES) await writer.write(Uint8Array.of(byte));
    await writer.end();
    const found = await Promise.all(readers);
    found.forEach((one, at) => {
      expect(one.data).toEqual(BYTES.subarray(at));
      expect(one.status).toBe("done");
    });
    expect(found[0]!.text).toBe(TEXT);
    // Afterwards too.
    expect((await read(session, "a1", 3)).data).toEqual(BYTES.subarray(3));
  });

  it("hands out whole characters, so that a reader can leave after any part and resume", async () => {
    const session = new Session(made.client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1" });
    let [text, offset] = ["", 0];
    const reader = (async () => {
      for (let over = false; !over; )
        for await (const part of session.follow({ id: "a1" }, { offset })) {
          text += part.text;
          offset = part.offset;
          over = part.status !== "open";
          break; // leaves
        }
    })();
    for (const unit of TEXT.split("")) await writer.write(unit); // halves of characters, as UTF-16 has them
    await writer.end();
    await reader;
    expect(text).toBe(TEXT);
  });
});

describe.each(LIBRARIES)("%s", (kind) => {
  let made: Made;
  beforeAll(async () => void (made = await clientOf(kind, server.port)));
  afterAll(() => made.end());

  it("serves 1,000 readers of 100 messages over at most 8 connections", async () => {
    const name = fresh("many").replaceAll("-", "");
    const own = await clientOf(kind, server.port, name);
    const ids = Array.from({ length: 100 }, (_, at) => `a${at}`);
    const sessions = ids.map(() => new Session(own.client, fresh("chat")));
    const writers = await Promise.all(sessions.map((session, at) => session.stream("assistant", { id: ids[at] })));
    const readers = Array.from({ length: 1_000 }, (_, at) => read(sessions[at % 100]!, ids[at % 100]!));
    let most = 0;
    for (const word of ["eins ", "zwei ", "drei 🎈"]) {
      await Promise.all(writers.map((writer) => writer.write(word)));
      most = Math.max(most, await connections(server.port, name));
      await sleep(100);
    }
    await Promise.all(writers.map((writer) => writer.end()));
    const found = await Promise.all(readers);
    most = Math.max(most, await connections(server.port, name));
    expect(new Set(found.map((one) => one.text))).toEqual(new Set(["eins zwei drei 🎈"]));
    expect(most).toBeGreaterThanOrEqual(2);
    expect(most).toBeLessThanOrEqual(8);
    own.end();
  });

  it("has one command wait for 1,000 readers of one message, beside an answer that is waited for", async () => {
    const session = new Session(made.client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1" });
    const readers = Array.from({ length: 1_000 }, () => read(session, "a1"));
    const cache = new LLMCache(made.client, fresh("faq"));
    const other = await clientOf(kind, server.port);
    const lead = await new LLMCache(other.client, cache.name).fetch("q");
    const waits = cache.getOrMake("q", () => "never");
    await writer.write("x".repeat(200_000));
    await new LLMCache(other.client, cache.name).set("q", "a", { lease: lead.token! });
    expect(await waits).toBe("a");
    await writer.end();
    expect((await Promise.all(readers)).every((one) => one.end === 200_000 && one.status === "done")).toBe(true);
    other.end();
  });

  it("is stopped from outside, at once for its producer's model call", async () => {
    const session = new Session(made.client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1" });
    await writer.write("so far");
    const reader = read(session, "a1");
    const stopped = new Promise((resolve) => writer.signal.addEventListener("abort", resolve));
    expect(await session.stop({ id: "a1" })).toBe(true);
    // The model is silent: the producer looks by itself.
    await stopped;
    expect(writer.stopped).toBe(true);
    expect(await writer.write("more")).toBe(false);
    await writer.end({ tokens: 2 });
    expect(await reader).toMatchObject({ text: "so far", status: "stopped" });
    expect(await session.stop({ id: "a1" })).toBe(false);
    expect(await session.stop({ id: "none" })).toBe(false);
  });

  it("keeps its lease while the model thinks, and loses it to who takes over", async () => {
    const session = new Session(made.client, fresh("chat"));
    const writer = await session.stream("assistant", { id: "a1", leaseMs: 3_000 });
    await expect(session.stream("assistant", { id: "a1" })).rejects.toBeInstanceOf(StreamTaken);
    await sleep(4_000);
    expect((await session.get({ id: "a1" }))!.status).toBe("open");
    expect(await writer.write("still here")).toBe(true);
    await writer.end();
    const abandoned = new Session(made.client, fresh("chat"));
    const begun = await abandoned.begin("assistant", { id: "a1", leaseMs: 50 });
    expect((await read(abandoned, "a1")).status).toBe("abandoned");
    const heir = await abandoned.stream("assistant", { id: "a1", takeover: true });
    await expect(abandoned.link.send(["SESSION.CHUNK", abandoned.key, "1", begun.token, "0", "x"])).rejects.toBeInstanceOf(LeaseLost);
    await heir.write("of the heir");
    await heir.end();
    expect((await read(abandoned, "a1")).text).toBe("of the heir");
  });

  it("tells readers that the producer was killed, and gives them what it wrote", async () => {
    const session = new Session(made.client, fresh("chat"));
    const child = fork(new URL("./producer.mjs", import.meta.url), [String(server.port), session.key], { silent: true });
    const seq = await new Promise((told) => child.once("message", told));
    expect(seq).toBe(1);
    const reader = read(session, "a1");
    child.kill("SIGKILL");
    expect(await reader).toMatchObject({ text: "Hallo 👋", status: "abandoned" });
    // Another process goes on from there.
    const heir = await session.stream("assistant", { id: "a1", takeover: true });
    expect(heir.offset).toBe(Buffer.byteLength("Hallo 👋"));
    await heir.write("!");
    await heir.end();
    expect((await read(session, "a1")).text).toBe("Hallo 👋!");
  });

  it("waits for a message that has not begun, and its session neither", async () => {
    const session = new Session(made.client, fresh("chat"));
    const reader = read(session, "later");
    await sleep(50);
    await session.pipe((async function* () { yield "at last"; })(), "assistant", { id: "later" });
    expect(await reader).toMatchObject({ text: "at last", status: "done" });
  });

  it("ends readers whose message goes, and those that are aborted", async () => {
    const session = new Session(made.client, fresh("chat"));
    await expect(session.follow({ id: "none" }).next()).rejects.toBeInstanceOf(StreamGone);
    await session.begin("assistant", { id: "a1" });
    const abort = new AbortController();
    const aborted = (async () => {
      for await (const _ of session.follow(1, { signal: abort.signal }));
    })();
    const gone = (async () => {
      for await (const _ of session.follow(1));
    })().catch((error: unknown) => error);
    await sleep(20);
    abort.abort(new Error("left"));
    await expect(aborted).rejects.toThrow("left");
    await session.drop();
    expect(await gone).toBeInstanceOf(StreamGone);
  });

  it("rides out a restart of the server", async () => {
    const mortal = await new Server({ appendonly: "yes", appendfsync: "always" }).start();
    const own = await clientOf(kind, mortal.port);
    const session = new Session(own.client, "chat");
    const writer = await session.stream("assistant", { id: "a1" });
    await writer.write("before ");
    const texts: string[] = [];
    const reader = (async () => {
      for await (const text of session.text({ id: "a1" })) texts.push(text);
    })();
    await until(() => texts.length, "it reads");
    await mortal.kill();
    const write = writer.write("after");
    await mortal.start();
    expect(await write).toBe(true);
    await writer.end();
    await reader;
    expect(texts.join("")).toBe("before after");
    own.end();
    await mortal.stop();
  });

  it("stores its text as an answer in the step that ends it", async () => {
    const session = new Session(made.client, fresh("{u}chat"));
    const cache = new LLMCache(made.client, fresh("{u}faq"));
    async function* model() {
      yield "Fünf ";
      yield "Tage.";
    }
    const writer = await session.stream("assistant", {});
    for await (const part of model()) void writer.write(part);
    await writer.end({ tokens: 3, cache: { name: cache.name, prompt: "q", ttl: 60 } });
    expect(await cache.get("q")).toBe("Fünf Tage.");
    expect(await session.pipe(model(), "assistant", { id: "b" })).toBe(true);
    expect((await session.get({ id: "b" }))!.content).toBe("Fünf Tage.");
    await expect(session.pipe((async function* () { yield "half"; throw new Error("broke"); })(), "assistant", { id: "c" })).rejects.toThrow("broke");
    expect(await session.get({ id: "c" })).toMatchObject({ content: "half", status: "error", meta: { error: "Error: broke" } });
    await expect(writer.write("x")).rejects.toBeInstanceOf(LlmcacheError);
  });
});
