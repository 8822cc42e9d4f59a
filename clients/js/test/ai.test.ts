/** The middleware under the AI SDK itself, versions 5, 6 and 7, with its mock models; the store of chats and its handlers. */

import * as six from "ai";
import { MockLanguageModelV3 } from "ai/test";
import * as five from "ai5";
import { MockLanguageModelV2 } from "ai5/test";
import * as seven from "ai7";
import { MockLanguageModelV4 } from "ai7/test";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ChatStore, type CacheMiddlewareOptions, type Lookup, cacheMiddleware, chatHandlers } from "../src/ai.js";
import { LLMCache, MakingFailed, Session } from "../src/index.js";
import { Server, clientOf, near, sleep, until, fresh, type Made } from "./harness.js";

let server: Server;
let made: Made;
let other: Made;
beforeAll(async () => {
  // A failure is remembered for longer than any test takes.
  server = await new Server({ "llmcache.backoff": 60_000 }).start();
  made = await clientOf("node-redis resp3", server.port);
  other = await clientOf("ioredis resp2", server.port);
});
afterAll(async () => {
  made.end();
  other.end();
  await server.stop();
});

// How a call ended and what it took: words and numbers in version 5, objects after it.
const ends = {
  v2: { usage: { inputTokens: 10, outputTokens: 5, totalTokens: 15 }, finishReason: "stop" },
  later: {
    usage: {
      inputTokens: { total: 10, noCache: 10, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: 5, text: 5, reasoning: undefined },
    },
    finishReason: { unified: "stop", raw: "stop" },
  },
};
const parts = (texts: string[], end: (typeof ends)["v2" | "later"]) => [
  { type: "stream-start" as const, warnings: [] },
  { type: "response-metadata" as const, id: "r1", modelId: "m", timestamp: new Date(1_700_000_000_000) },
  { type: "text-start" as const, id: "1" },
  ...texts.map((delta) => ({ type: "text-delta" as const, id: "1", delta })),
  { type: "text-end" as const, id: "1" },
  { type: "finish" as const, ...end },
];

// One face for all versions: the same calls, each with its own SDK and mock.
const SDKS = [
  { name: "AI SDK 5", sdk: five as unknown as typeof six, Model: MockLanguageModelV2 as unknown as typeof MockLanguageModelV3, version: "v2" as const },
  { name: "AI SDK 6", sdk: six, Model: MockLanguageModelV3, version: "v3" as const },
  { name: "AI SDK 7", sdk: seven as unknown as typeof six, Model: MockLanguageModelV4 as unknown as typeof MockLanguageModelV3, version: "v4" as const },
];

it("is a middleware of each version by its type", () => {
  const cache = new LLMCache(made.client, "faq");
  const own = cacheMiddleware({ cache, version: "v2" });
  const v2: five.LanguageModelMiddleware = own;
  const v3: six.LanguageModelMiddleware = cacheMiddleware({ cache, version: "v3" });
  const v4: seven.LanguageModelMiddleware = cacheMiddleware({ cache, version: "v4" });
  expect(v2).toBe(own);
  expect([own.specificationVersion, v3.specificationVersion, v4.specificationVersion]).toEqual(["v2", "v3", "v4"]);
});

describe.each(SDKS)("$name", ({ sdk, Model, version }) => {
  const end = version === "v2" ? ends.v2 : ends.later;

  /** A model that counts its calls, and answers with the text of the question. */
  function setUp(options: { cache?: LLMCache; delay?: number; fail?: () => Error | null; hangs?: boolean; content?: unknown[] } & Partial<CacheMiddlewareOptions<any>> = {}) {
    const { delay = 0, fail, hangs, content, ...more } = options;
    const lookups: Lookup[] = [];
    const calls = { generate: 0, stream: 0 };
    const textOf = (prompt: any) => JSON.stringify(prompt.at(-1).content.map((part: any) => part.text));
    const inner = new Model({
      doGenerate: async ({ prompt }: any) => {
        calls.generate++;
        await sleep(delay);
        const error = fail?.();
        if (error) throw error;
        return { content: (content ?? [{ type: "text", text: `to ${textOf(prompt)} 👋 ${calls.generate}` }]) as any, ...(end as any), warnings: [] };
      },
      doStream: async ({ prompt }: any) => {
        calls.stream++;
        await sleep(delay);
        const error = fail?.();
        if (error) throw error;
        // As a model that is asked no more: neither goes on nor heeds the signal.
        if (hangs && calls.stream === 1) return { stream: new ReadableStream({ start: (c) => parts(["half"], end).slice(0, 4).forEach((part) => c.enqueue(part as any)) }) };
        return { stream: sdk.simulateReadableStream({ chunks: parts(["to ", textOf(prompt), " 👋 ", String(calls.stream)], end) as any[], initialDelayInMs: null, chunkDelayInMs: 5 }) };
      },
    });
    const cache = options.cache ?? new LLMCache(made.client, fresh("ai"), { onWarning: () => {} });
    const middleware = cacheMiddleware({ cache, version, onLookup: (one) => lookups.push(one), ...more }) as any;
    return { model: sdk.wrapLanguageModel({ model: inner as any, middleware }), calls, lookups, cache };
  }
  const streamed = async (call: Parameters<typeof six.streamText>[0]) => {
    const deltas: string[] = [];
    const result = sdk.streamText({ maxRetries: 0, onError: () => {}, ...call } as any);
    for await (const part of result.fullStream as any) {
      if (part.type === "text-delta") deltas.push(part.text);
      if (part.type === "error") throw part.error;
    }
    return { deltas, text: deltas.join(""), usage: await result.usage };
  };

  it("generates once, and tells no usage of what was not spent", async () => {
    const { model, calls, lookups } = setUp();
    const first = await sdk.generateText({ model, prompt: "Wie lange? ⏱" });
    const second = await sdk.generateText({ model, prompt: "Wie lange? ⏱" });
    expect(second.text).toBe(first.text);
    expect(calls.generate).toBe(1);
    expect(first.usage.totalTokens).toBe(15);
    expect(second.usage.totalTokens).toBe(0);
    expect(second.providerMetadata?.["llmcache"]).toMatchObject({ tier: "exact", similarity: 1 });
    expect(lookups.map((one) => one.how)).toEqual(["lead", "hit"]);
  });

  it("has one of 100 askers call the model, generating and streaming, in two clients", async () => {
    const name = fresh("ai");
    const one = setUp({ cache: new LLMCache(made.client, name), delay: 50 });
    const two = setUp({ cache: new LLMCache(other.client, name), delay: 50 });
    const generated = await Promise.all(Array.from({ length: 100 }, (_, at) =>
      sdk.generateText({ model: at % 2 ? one.model : two.model, prompt: "q" })));
    expect(new Set(generated.map((result) => result.text)).size).toBe(1);
    expect(one.calls.generate + two.calls.generate).toBe(1);
    const streams = await Promise.all(Array.from({ length: 100 }, (_, at) =>
      streamed({ model: at % 2 ? one.model : two.model, prompt: "q" } as any)));
    expect(new Set(streams.map((result) => result.text)).size).toBe(1);
    expect(one.calls.stream + two.calls.stream).toBe(1);
  });

  it("replays a stream in its parts", async () => {
    const { model, calls } = setUp();
    const first = await streamed({ model, prompt: "q" } as any);
    const second = await streamed({ model, prompt: "q" } as any);
    expect(first.deltas).toEqual(["to ", '["q"]', " 👋 ", "1"]);
    expect(second.deltas).toEqual(first.deltas);
    expect(second.usage.totalTokens).toBe(0);
    expect(calls.stream).toBe(1);
  });

  it("never answers by the text alone: system prompt, earlier turns, tools, settings and scope count", async () => {
    const { model, calls } = setUp({ scope: (params: any) => params.providerOptions?.tenant?.id });
    const tool = (description: string) => ({ t: sdk.tool({ description, inputSchema: sdk.jsonSchema({ type: "object" }) } as any) });
    const variants: Record<string, unknown>[] = [
      { prompt: "q" },
      { prompt: "q", system: "be brief" },
      { prompt: "q", system: "be long" },
      { prompt: "q", temperature: 0.5 },
      { prompt: "q", maxOutputTokens: 5 },
      { prompt: "q", tools: tool("a") },
      { prompt: "q", tools: tool("b") },
      { messages: [{ role: "user", content: "hi" }, { role: "assistant", content: "hello" }, { role: "user", content: "q" }] },
      { messages: [{ role: "user", content: "hi" }, { role: "assistant", content: "bye" }, { role: "user", content: "q" }] },
      { messages: [{ role: "user", content: [{ type: "text", text: "q" }, { type: "image", image: new Uint8Array([137, 80, 78, 71, 1]) }] }] },
      { messages: [{ role: "user", content: [{ type: "text", text: "q" }, { type: "image", image: new Uint8Array([137, 80, 78, 71, 2]) }] }] },
      { messages: [{ role: "user", content: [{ type: "text", text: "q" }, { type: "text", text: "" }] }] },
      { prompt: "q", providerOptions: { tenant: { id: "a" } } },
      { prompt: "q", providerOptions: { tenant: { id: "b" } } },
    ];
    for (const variant of variants) await sdk.generateText({ model, ...variant } as any);
    const known = calls.generate;
    expect(known).toBeGreaterThanOrEqual(variants.length - 1); // an empty text may be dropped by the SDK
    for (const variant of variants) await sdk.generateText({ model, ...variant } as any);
    expect(calls.generate).toBe(known);
  });

  it("finds a question by its meaning, within its context, and keeps tool calls to their words", async () => {
    const embed = (text: string) => near(0, text.length / 100);
    const cache = new LLMCache(made.client, fresh("ai"), { embed, threshold: 0.9 });
    const { model, calls, lookups } = setUp({ cache });
    const first = await sdk.generateText({ model, prompt: "How do I get a refund?" });
    const near_ = await sdk.generateText({ model, prompt: "How can I get a refund?" });
    expect(near_.text).toBe(first.text);
    expect(lookups.at(-1)).toMatchObject({ how: "hit", tier: "semantic" });
    await sdk.generateText({ model, prompt: "How can I get a refund?", system: "other" });
    expect(calls.generate).toBe(2);
    const tools = setUp({ cache: new LLMCache(made.client, fresh("ai"), { embed }), content: [{ type: "tool-call", toolCallId: "1", toolName: "t", input: "{}" }] });
    const call = (prompt: string) => sdk.generateText({ model: tools.model, prompt, tools: { t: sdk.tool({ inputSchema: sdk.jsonSchema({ type: "object" }) } as any) } } as any);
    await call("the weather in Paris");
    await call("the weather in Paris");
    expect(tools.calls.generate).toBe(1);
    await call("the weather at Paris");
    expect(tools.calls.generate).toBe(2);
  });

  it("passes on failures, and lets the SDK try again what may be tried again", async () => {
    let left = 1;
    const again = () => (left-- > 0 ? Object.assign(new sdk.APICallError({ message: "overloaded", url: "", requestBodyValues: {}, statusCode: 503, isRetryable: true })) : null);
    const { model, calls } = setUp({ fail: again });
    expect((await sdk.generateText({ model, prompt: "q", maxRetries: 1 })).text).toContain("to");
    expect(calls.generate).toBe(2);
    const broken = setUp({ fail: () => new Error("bad request") });
    await expect(sdk.generateText({ model: broken.model, prompt: "q", maxRetries: 0 })).rejects.toThrow("bad request");
    await expect(sdk.generateText({ model: broken.model, prompt: "q", maxRetries: 0 })).rejects.toBeInstanceOf(MakingFailed);
    await expect(streamed({ model: broken.model, prompt: "q" } as any)).rejects.toThrow("bad request");
    expect(broken.calls).toEqual({ generate: 1, stream: 1 });
  });

  it("does not store half a stream, and hands its lease on", async () => {
    const { model, calls, cache } = setUp({ hangs: true });
    const abort = new AbortController();
    const result = sdk.streamText({ model, prompt: "q", abortSignal: abort.signal, onError: () => {} } as any);
    const reader = (result.textStream as ReadableStream<string>).getReader();
    await reader.read();
    abort.abort();
    await reader.cancel().catch(() => {});
    expect((await streamed({ model, prompt: "q" } as any)).deltas).toEqual(["to ", '["q"]', " 👋 ", "2"]);
    expect(calls.stream).toBe(2);
    expect((await cache.info())["entries"]).toBe(1);
  });

  it("does not store what was cut, and may skip calls", async () => {
    const cut = setUp({ storable: (reason: string) => reason === "length" });
    for (let at = 0; at < 2; at++) await sdk.generateText({ model: cut.model, prompt: "q" });
    expect(cut.calls.generate).toBe(2);
    const skipping = setUp({ cacheable: (params: any) => params.temperature === undefined });
    for (let at = 0; at < 2; at++) await sdk.generateText({ model: skipping.model, prompt: "q", temperature: 1 });
    expect(skipping.calls.generate).toBe(2);
    expect(skipping.lookups[0]!.how).toBe("skipped");
  });
});

interface UI {
  id: string;
  role: string;
  parts: { type: string; text: string }[];
}
const message = (id: string, role: string, text: string): UI => ({ id, role, parts: [{ type: "text", text }] });

describe("chats", () => {
  it("are loaded as they were saved, in their order", async () => {
    const chats = new ChatStore<UI>(made.client, { prefix: fresh("chats"), ttl: 600 });
    expect(await chats.load("c1")).toEqual([]);
    const all = [message("1", "user", "Grüße 👋"), message("2", "assistant", "ja")];
    await chats.save("c1", all);
    expect(await chats.load("c1")).toEqual(all);
    await chats.append("c1", [message("2", "assistant", "ja!"), message("3", "user", "und?")]);
    expect(await chats.load("c1")).toEqual([all[0], message("2", "assistant", "ja!"), message("3", "user", "und?")]);
    await chats.save("c1", [all[1]!]);
    expect(await chats.load("c1")).toEqual([all[1]]);
    expect(await chats.delete("c1")).toBe(true);
    expect(await chats.load("c1")).toEqual([]);
  });

  it("are resumed and stopped by their handlers, from another process's client", async () => {
    const prefix = fresh("chats");
    const [here, there] = [new ChatStore<UI>(made.client, { prefix }), new ChatStore<UI>(other.client, { prefix })];
    const { GET, DELETE } = chatHandlers(there, (request) => new URL(request.url).searchParams.get("id"));
    const ask = (id: string, method = "GET") => (method === "GET" ? GET : DELETE)(new Request(`http://x/?id=${id}`, { method }));
    expect((await ask("c1")).status).toBe(204);
    expect((await ask("c1", "DELETE")).status).toBe(404);
    expect((await GET(new Request("http://x/"))).status).toBe(404);
    let controller!: ReadableStreamDefaultController<string>;
    let cancelled = false;
    const source = new ReadableStream<string>({ start: (c) => void (controller = c), cancel: () => void (cancelled = true) });
    let stopped = false;
    const recorded = here.record("c1", source, { onStop: () => (stopped = true) });
    controller.enqueue("data: Grü\n\n");
    const response = await until(async () => {
      const answer = await ask("c1");
      return answer.status === 200 ? answer : null;
    }, "the answer is being written");
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    controller.enqueue("data: ße 👋\n\n");
    const body = response.text();
    await until(async () => (await new Session(other.client, `${prefix}:rs:c1`).get(1))!.content.endsWith("👋\n\n"), "it is written");
    expect((await ask("c1", "DELETE")).status).toBe(204);
    expect(await body).toBe("data: Grü\n\ndata: ße 👋\n\n");
    await recorded;
    expect([stopped, cancelled]).toEqual([true, true]);
    expect((await ask("c1")).status).toBe(204);
  });
});
