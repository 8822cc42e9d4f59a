/**
 * For the Vercel AI SDK: a middleware that caches what a language model answers, and a store of chats.
 *
 * Types are told by their structure, so that this package depends on no version of the SDK: 5 (`v2`), 6 (`v3`) and
 * 7 (`v4`) are served alike.
 */

import { type CallParams, question } from "./ai-question.js";
import type { Hit } from "./cache.js";
import { LLMCache, type Making } from "./making.js";

export { ChatStore, type ChatMessage, type ChatStoreOptions, chatHandlers } from "./chat-store.js";
export type { CallParams } from "./ai-question.js";

/** What the middleware needs of a model. */
export interface ModelLike {
  readonly provider: string;
  readonly modelId: string;
}

/** How the answers of a call were found. */
export interface Lookup {
  how: "hit" | "stale" | "joined" | "lead" | "open" | "late" | "skipped";
  tier: Hit["tier"] | null;
  similarity: number | null;
  mode: "generate" | "stream";
}

/** Options of the middleware. */
export interface CacheMiddlewareOptions<V extends string> {
  cache: LLMCache;
  /** Version of the SDK's provider specification: `v2` of AI SDK 5, `v3` of 6, `v4` of 7. */
  version: V;
  /** Scope of a call: tenant, user. Default the cache's. */
  scope?: string | ((params: CallParams) => string | undefined);
  /** Further parts of the context of a call. */
  context?: (params: CallParams) => Record<string, unknown>;
  /** Whether questions are also found by meaning; default true where the cache has `embed`. */
  semantic?: boolean;
  /** Whether a call is cached at all; default all. */
  cacheable?: (params: CallParams) => boolean;
  /** Whether an answer is stored, by the reason why it ended; default `stop` and `tool-calls`. */
  storable?: (finishReason: string) => boolean;
  /** Seconds. */
  ttl?: number;
  tags?: readonly string[] | ((params: CallParams) => readonly string[]);
  waitMs?: number;
  leaseMs?: number;
  /** Milliseconds before the first part of a stream that is replayed, and between its parts; default 0. */
  replay?: { initialDelayMs?: number; chunkDelayMs?: number };
  /** Whether the usage of a cached answer is told as it was, or as zero, since nothing was spent. Default `zero`. */
  usage?: "zero" | "stored";
  /** Told of every call. */
  onLookup?: (lookup: Lookup) => void;
}

/** A middleware for `wrapLanguageModel`. */
export interface CacheMiddleware<V extends string> {
  readonly specificationVersion: V;
  wrapGenerate<R>(call: { doGenerate: () => PromiseLike<R>; params: CallParams; model: ModelLike }): Promise<R>;
  wrapStream<R>(call: { doStream: () => PromiseLike<R>; params: CallParams; model: ModelLike }): Promise<R>;
}

type Part = { type: string } & Record<string, unknown>;
type Result = Record<string, unknown>;

/** What is stored: the result of a call, or the parts of a stream. */
interface Kept {
  v: 1;
  result?: Result;
  parts?: Part[];
}

// Dates and bytes have no JSON; files and timestamps of responses hold them.
function dump(kept: Kept): string {
  return JSON.stringify(kept, function (this: Record<string, unknown>, name, value: unknown) {
    const member = this[name];
    if (member instanceof Date) return { $date: member.getTime() };
    if (member instanceof Uint8Array) return { $bytes: Buffer.from(member).toString("base64") };
    return value;
  });
}

/** What was kept; null for what this middleware did not store. */
function load(text: string): Kept | null {
  try {
    const kept = parse(text);
    return kept?.v === 1 ? kept : null;
  } catch {
    return null;
  }
}

function parse(text: string): Kept | null {
  return JSON.parse(text, (_, value: unknown) => {
    const marked = value as { $date?: number; $bytes?: string } | null;
    if (marked && typeof marked === "object" && Object.keys(marked).length === 1) {
      if (typeof marked.$date === "number") return new Date(marked.$date);
      if (typeof marked.$bytes === "string") return new Uint8Array(Buffer.from(marked.$bytes, "base64"));
    }
    return value;
  }) as Kept | null;
}

/** The reason by its common name: a word in AI SDK 5, an object after it. */
const reasonOf = (result: Result): string => {
  const reason = result["finishReason"] as string | { unified?: string } | undefined;
  return typeof reason === "string" ? reason : (reason?.unified ?? "unknown");
};

/** All tokens of a call: numbers in AI SDK 5, objects with a total after it. */
function tokensOf(result: Result): number | undefined {
  const usage = result["usage"] as Record<string, number | { total?: number } | undefined> | undefined;
  const one = (value: number | { total?: number } | undefined) => (typeof value === "object" ? value.total : value) ?? 0;
  return one(usage?.["inputTokens"]) + one(usage?.["outputTokens"]) || undefined;
}

/** The same shape with zeros: nothing was spent. */
function zeros(usage: unknown): unknown {
  if (typeof usage === "number") return 0;
  if (usage === null || typeof usage !== "object") return usage;
  return Object.fromEntries(Object.entries(usage).map(([name, value]) => [name, name === "raw" ? undefined : zeros(value)]));
}

const isToolCall = (part: { type?: unknown }): boolean => String(part.type).startsWith("tool-");

/** The middleware: `wrapLanguageModel({ model, middleware: cacheMiddleware({ cache, version: "v3" }) })`. */
export function cacheMiddleware<const V extends "v2" | "v3" | "v4">(options: CacheMiddlewareOptions<V>): CacheMiddleware<V> {
  const { cache } = options;
  const storable = options.storable ?? ((reason: string) => reason === "stop" || reason === "tool-calls");

  const ask = async (mode: Lookup["mode"], params: CallParams, model: ModelLike) => {
    const tell = (how: Lookup["how"], hit: Hit | null) =>
      options.onLookup?.({ how, tier: hit?.tier ?? (how === "hit" ? "exact" : null), similarity: hit?.similarity ?? null, mode });
    if (options.cacheable?.(params) === false) {
      tell("skipped", null);
      return null;
    }
    const asked = question(mode, params, model, cache.context, options.context?.(params));
    const scope = typeof options.scope === "function" ? options.scope(params) : options.scope;
    const tags = typeof options.tags === "function" ? options.tags(params) : options.tags;
    const exact = asked.exact || options.semantic === false || (!cache.embed && options.semantic !== true);
    const acquired = await cache.acquire(asked.prompt, {
      context: asked.context, scope, tags, exact, ttl: options.ttl, waitMs: options.waitMs, leaseMs: options.leaseMs,
      signal: params.abortSignal,
    });
    tell(acquired.how, acquired.response === null ? null : acquired.hit);
    const kept = acquired.response === null ? null : load(acquired.response);
    return { making: acquired.making, kept, hit: acquired.hit };
  };

  const failed = async (making: Making, error: unknown, params: CallParams) => {
    // An abort says nothing of the question, and what the SDK tries again is not to be told of its own failure.
    const again = params.abortSignal?.aborted || (error as { isRetryable?: boolean } | null)?.isRetryable === true;
    await (again ? making.release() : making.fail(error));
  };

  const keep = (making: Making, finish: Result, content: readonly { type?: unknown }[], kept: Kept) =>
    making.store({
      text: dump(kept),
      store: storable(reasonOf(finish)),
      // The arguments of a tool call follow from the words of the question, not from their meaning.
      exactOnly: content.some(isToolCall),
      tokens: tokensOf(finish),
    });

  const served = (result: Result, hit: Hit | null): Result => ({
    ...result,
    usage: options.usage === "stored" ? result["usage"] : zeros(result["usage"]),
    providerMetadata: {
      ...(result["providerMetadata"] as object | undefined),
      llmcache: { tier: hit?.tier ?? "exact", similarity: hit?.similarity ?? 1, age: hit?.age ?? 0 },
    },
  });

  return {
    specificationVersion: options.version,

    async wrapGenerate<R>(call: { doGenerate: () => PromiseLike<R>; params: CallParams; model: ModelLike }): Promise<R> {
      const asked = await ask("generate", call.params, call.model);
      if (asked?.kept?.result) return served(asked.kept.result, asked.hit) as R;
      const making = asked?.making;
      if (!making) return call.doGenerate();
      let result: R;
      try {
        result = await call.doGenerate();
      } catch (error) {
        await failed(making, error, call.params);
        throw error;
      }
      const { request: _, response, ...rest } = result as Result;
      const { headers: _headers, body: _body, ...told } = (response ?? {}) as Result;
      const kept = { ...rest, ...(response ? { response: told } : {}) };
      await keep(making, rest, (rest["content"] ?? []) as Part[], { v: 1, result: kept });
      return result;
    },

    async wrapStream<R>(call: { doStream: () => PromiseLike<R>; params: CallParams; model: ModelLike }): Promise<R> {
      const asked = await ask("stream", call.params, call.model);
      if (asked?.kept?.parts) {
        const parts = asked.kept.parts.map((part) => (part.type === "finish" ? (served(part, asked.hit) as Part) : part));
        return { stream: replay(parts, options.replay ?? {}, call.params.abortSignal) } as R;
      }
      const making = asked?.making;
      if (!making) return call.doStream();
      let result: R;
      try {
        result = await call.doStream();
      } catch (error) {
        await failed(making, error, call.params);
        throw error;
      }
      const { stream } = result as { stream: ReadableStream<Part> };
      const done = (parts: Part[], finish: Part) => keep(making, finish, parts, { v: 1, parts });
      return { ...result, stream: collecting(stream, done, (error) => failed(making, error, call.params), () => making.release(), call.params.abortSignal) };
    },
  };
}

/** Passes a stream on and keeps its parts; `done` with all of them, `failed` or `left` where it does not come to its end. */
function collecting(
  source: ReadableStream<Part>, done: (parts: Part[], finish: Part) => Promise<void>,
  failed: (error: unknown) => Promise<void>, left: () => Promise<void>, signal: AbortSignal | undefined,
): ReadableStream<Part> {
  const reader = source.getReader();
  // An abort may leave the stream neither read nor cancelled; the lease is not kept for it.
  const aborted = () => void left();
  signal?.addEventListener("abort", aborted, { once: true });
  const over = () => signal?.removeEventListener("abort", aborted);
  const parts: Part[] = [];
  let finish: Part | null = null;
  let wrong: { error: unknown } | null = null;
  return new ReadableStream<Part>({
    async pull(controller) {
      try {
        const { done: ended, value } = await reader.read();
        if (ended) {
          over();
          // What has been sent already is not held up by the store, only the end of the stream is.
          if (wrong) await failed(wrong.error);
          else if (finish) await done(parts, finish);
          else await left();
          controller.close();
          return;
        }
        if (value.type === "error") wrong = { error: value["error"] };
        if (value.type === "finish") finish = value;
        if (value.type !== "raw") parts.push(value);
        controller.enqueue(value);
      } catch (error) {
        over();
        await failed(error);
        controller.error(error);
      }
    },
    async cancel(reason) {
      over();
      await left();
      await reader.cancel(reason);
    },
  });
}

/** The parts of a stream again, with pauses as a model makes them. */
function replay(parts: readonly Part[], delays: { initialDelayMs?: number; chunkDelayMs?: number }, signal?: AbortSignal): ReadableStream<Part> {
  let at = 0;
  return new ReadableStream<Part>({
    async pull(controller) {
      const ms = at === 0 ? delays.initialDelayMs : delays.chunkDelayMs;
      if (ms) await new Promise((resolve) => setTimeout(resolve, ms));
      if (signal?.aborted) return controller.error(signal.reason);
      const part = parts[at++];
      if (part) controller.enqueue(part);
      else controller.close();
    },
  });
}
