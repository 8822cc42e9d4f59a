/** One answer for all who ask: over processes, with leases that are extended, failures that are told, and no server. */

import { fork } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BreakerOpen, LLMCache, MakingFailed, ServerAway } from "../src/index.js";
import {
  Server, TestCluster, clientOf, clusterClientOf, connections, near, plain, sleep, until, fresh, type Kind, type Made,
} from "./harness.js";

let server: Server;
// A failure is remembered for longer than any test takes.
const LONG = { "llmcache.backoff": 60_000 };
beforeAll(async () => void (server = await new Server(LONG).start()));
afterAll(() => server.stop());

const LIBRARIES: Kind[] = ["node-redis resp3", "ioredis resp2"];

describe.each(LIBRARIES)("%s", (kind) => {
  let made: Made;
  beforeAll(async () => void (made = await clientOf(kind, server.port)));
  afterAll(() => made.end());
  const quiet = { onWarning: () => {} };

  it("has one of 100 askers make the answer, in two commands", async () => {
    const wire = await plain(server.port);
    const calls = async () => Number(/llmcache.fetch:calls=(\d+)/i.exec(String(await wire.call("INFO", "commandstats")))?.[1] ?? 0);
    const cache = new LLMCache(made.client, fresh("faq"));
    const before = await calls();
    let calledTimes = 0;
    const make = async () => (calledTimes++, await sleep(50), "Fünf Tage");
    const all = await Promise.all(Array.from({ length: 100 }, () => cache.getOrMake("q", make, { vector: near(0) })));
    expect(new Set(all)).toEqual(new Set(["Fünf Tage"]));
    expect(calledTimes).toBe(1);
    expect((await calls()) - before).toBe(1);
    expect(await cache.getOrMake("q", make)).toBe("Fünf Tage");
    expect(calledTimes).toBe(1);
    wire.disconnect();
  });

  it("has one of two clients make the answer while the other waits, beside its other commands", async () => {
    const other = await clientOf(kind, server.port);
    const name = fresh("faq");
    const [a, b] = [new LLMCache(made.client, name), new LLMCache(other.client, name)];
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    let calledTimes = 0;
    const first = a.getOrMake("q", async () => (calledTimes++, await gate, "a"));
    await until(() => calledTimes === 1, "the first makes");
    const second = b.getOrMake("q", async () => (calledTimes++, "b"));
    // Not held up by the FETCH that waits.
    expect(await b.get("other")).toBeNull();
    release();
    expect([await first, await second]).toEqual(["a", "a"]);
    expect(calledTimes).toBe(1);
    other.end();
  });

  it("extends the lease while the answer is made", async () => {
    const other = await clientOf(kind, server.port);
    const name = fresh("faq");
    const [a, b] = [new LLMCache(made.client, name, { leaseMs: 3_000 }), new LLMCache(other.client, name)];
    const acquired = await a.acquire("q");
    expect(acquired.how).toBe("lead");
    await until(() => acquired.making!.beats >= 4, "four times a third of the lease");
    // A lease of 3 s would have lapsed: this caller would be told to lead.
    expect((await b.fetch("q")).status).toBe("BUSY");
    await acquired.making!.store({ text: "late but kept", tokens: 7 });
    expect(await b.get("q")).toBe("late but kept");
    other.end();
  });

  it("tells who waits that making failed, and throws the maker's error", async () => {
    const cache = new LLMCache(made.client, fresh("faq"));
    const failing = cache.getOrMake("q", async () => {
      await sleep(20);
      throw new Error("model overloaded 😵");
    });
    const waiting = cache.getOrMake("q", () => "never");
    await expect(failing).rejects.toThrow("model overloaded");
    const error = await waiting.catch((e: unknown) => e);
    expect(error).toBeInstanceOf(MakingFailed);
    expect((error as MakingFailed).message).toContain("model overloaded 😵");
    expect((error as MakingFailed).retryMs).toBeGreaterThan(0);
  });

  it("opens the breaker after many failures", async () => {
    const cache = new LLMCache(made.client, fresh("faq"));
    let error: unknown;
    for (let at = 0; at < 30 && !(error instanceof BreakerOpen); at++)
      error = await cache.getOrMake(`q${at}`, () => Promise.reject(new Error("down"))).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(BreakerOpen);
  });

  it("lets the next one make it when the first is aborted", async () => {
    const cache = new LLMCache(made.client, fresh("faq"));
    const abort = new AbortController();
    let seen: AbortSignal | undefined;
    const first = cache.getOrMake("q", ({ signal }) => ((seen = signal), new Promise<string>(() => {})), { signal: abort.signal });
    await until(() => seen, "the first makes");
    const second = cache.getOrMake("q", () => "second");
    abort.abort(new Error("gone"));
    await expect(first).rejects.toThrow("gone");
    expect(await second).toBe("second");
    expect(seen!.aborted).toBe(true);
  });

  it("leaves a wait at once when it is aborted, and hands on the lease that it is given then", async () => {
    const other = await clientOf(kind, server.port);
    const name = fresh("faq");
    const [a, b] = [new LLMCache(made.client, name), new LLMCache(other.client, name)];
    const lead = await a.fetch("q");
    const abort = new AbortController();
    const waiting = b.getOrMake("q", () => "b", { signal: abort.signal, waitMs: 60_000 });
    await sleep(20);
    abort.abort(new Error("gone"));
    await expect(waiting).rejects.toThrow("gone");
    // The one that left is the oldest who waits: the server gives the lease to it, and it gives it back.
    await a.extend(lead.token!, 1);
    await until(async () => {
      const next = await a.fetch("q", { leaseMs: 60_000 });
      return next.status === "LEAD";
    }, "somebody who is there has the lease", 20_000);
    other.end();
  });

  it("asks for the exact answer before it embeds, and returns a stale answer while a new one is made", async () => {
    let embedded = 0;
    const cache = new LLMCache(made.client, fresh("faq"), { embed: () => (embedded++, near(0)) });
    await cache.create({ grace: 600, dim: 8 });
    expect(await cache.getOrMake("q", () => ({ text: "old", meta: { n: 1 }, tags: ["t"] }))).toBe("old");
    expect(embedded).toBe(1);
    expect(await cache.getOrMake("q", () => "never")).toBe("old");
    expect(embedded).toBe(1);
    expect(await cache.invalidate({ all: true }, { soft: true })).toBe(1);
    expect(await cache.getOrMake("q", () => "new", { refreshAside: true })).toBe("old");
    await until(async () => (await cache.search("q"))?.response === "new", "it is renewed");
  });

  it("does not store what it is told not to, and keeps what comes too late out", async () => {
    const cache = new LLMCache(made.client, fresh("faq"), quiet);
    expect(await cache.getOrMake("q", () => ({ text: "secret", store: false }))).toBe("secret");
    expect(await cache.get("q")).toBeNull();
    const acquired = await cache.acquire("r");
    await cache.invalidate({ all: true });
    await acquired.making!.store({ text: "of before" });
    expect(await cache.get("r")).toBeNull();
  });

  it("makes the answer by itself where the other does not come in time", async () => {
    const cache = new LLMCache(made.client, fresh("faq"), quiet);
    const lead = await cache.fetch("q");
    expect(lead.status).toBe("LEAD");
    expect(await cache.getOrMake("q", () => "own", { waitMs: 50 })).toBe("own");
  });

  it("keeps no more than its connections, whatever waits", async () => {
    const name = fresh("conn").replaceAll("-", "");
    const own = await clientOf(kind, server.port, name);
    const cache = new LLMCache(own.client, fresh("faq"));
    const leads = await Promise.all(Array.from({ length: 40 }, (_, at) => cache.fetch(`q${at}`, { leaseMs: 60_000 })));
    const waiters = leads.map((_, at) => cache.fetch(`q${at}`, { waitMs: 60_000 }));
    await until(async () => (await connections(server.port, name)) >= 7, "the lanes are open");
    expect(await connections(server.port, name)).toBeLessThanOrEqual(8);
    await Promise.all(leads.map((lead, at) => cache.set(`q${at}`, `a${at}`, { lease: lead.token! })));
    expect((await Promise.all(waiters)).map((one) => one.hit?.response)).toEqual(leads.map((_, at) => `a${at}`));
    own.end();
  });
});

describe.each(LIBRARIES)("%s without a server", (kind) => {
  it("fails open, rests, and comes back", async () => {
    const mortal = await new Server().start();
    const made = await clientOf(kind, mortal.port);
    const warnings: string[] = [];
    const options = { commandMs: 300, onWarning: (message: string) => void warnings.push(message) };
    const cache = new LLMCache(made.client, "faq", options);
    const strict = new LLMCache(made.client, "faq", { failOpen: false, onWarning: () => {} });
    expect(await cache.getOrMake("q", () => "a")).toBe("a");
    await mortal.kill();
    let calledTimes = 0;
    const make = async () => (calledTimes++, await sleep(20), "open");
    const all = await Promise.all(Array.from({ length: 50 }, () => cache.getOrMake("q", make)));
    expect(new Set(all)).toEqual(new Set(["open"]));
    // Those of one process still share one answer.
    expect(calledTimes).toBe(1);
    expect(warnings.length).toBe(1);
    const rested = cache.link.resting;
    expect(await cache.getOrMake("r", make)).toBe("open");
    // Nobody asks the server as long as it rests.
    if (rested && cache.link.resting) expect(warnings.length).toBe(1);
    await expect(strict.getOrMake("s", make)).rejects.toBeInstanceOf(ServerAway);
    await mortal.start();
    await until(async () => (await cache.getOrMake("t", () => "back", {})) && (await cache.get("t").catch(() => null)), "the cache is used again");
    made.end();
    await mortal.stop();
  });

  it("fails open where the server refuses", async () => {
    const full = await new Server({ maxmemory: "1", "maxmemory-policy": "noeviction" }).start();
    const made = await clientOf(kind, full.port);
    const cache = new LLMCache(made.client, "faq", { onWarning: () => {} });
    expect(await cache.getOrMake("q", () => "a")).toBe("a");
    await expect(cache.set("q", "a")).rejects.toMatchObject({ word: "OOM" });
    made.end();
    await full.stop();
  });
});

it.each(LIBRARIES)("%s: waits at the right node of a cluster", async (kind) => {
  const cluster = await new TestCluster().start();
  const [one, two] = [await clusterClientOf(kind, cluster), await clusterClientOf(kind, cluster)];
  for (let at = 0; at < 9; at++) {
    const name = fresh("faq");
    const [a, b] = [new LLMCache(one.client, name), new LLMCache(two.client, name)];
    let calledTimes = 0;
    const make = async () => (calledTimes++, await sleep(30), "made");
    expect(await Promise.all([a.getOrMake("q", make), b.getOrMake("q", make)])).toEqual(["made", "made"]);
    expect(calledTimes).toBe(1);
  }
  one.end();
  two.end();
  await cluster.stop();
});

it("hands the lease of a process that was killed to who waits", async () => {
  const made = await clientOf("node-redis resp3", server.port);
  const name = fresh("faq");
  const child = fork(new URL("./leader.mjs", import.meta.url), [String(server.port), name], { silent: true });
  const cache = new LLMCache(made.client, name);
  expect(await new Promise((told) => child.once("message", told))).toBe("LEAD");
  const waiting = cache.getOrMake("q", () => "of the heir", { waitMs: 60_000 });
  child.kill("SIGKILL");
  expect(await waiting).toBe("of the heir");
  made.end();
});
