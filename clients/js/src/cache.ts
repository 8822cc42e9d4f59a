/** A cache of answers (`LLMCACHE.*`). What happens between a miss and an answer is in `making.ts`. */

import { canonical } from "./context.js";
import type { RedisClient } from "./drivers.js";
import { LlmcacheError, NoCache } from "./errors.js";
import { type Link, type LinkOptions, linkOf, now, orAborted, pause } from "./link.js";
import * as r from "./replies.js";
import { type Argument, type Text, option, raw, words } from "./replies.js";
import { type Vector, arguments_ } from "./vectors.js";

/** An embedding model: text to vector. */
export type Embed = (text: string, options: { signal?: AbortSignal | undefined }) => Vector | Promise<Vector>;

/** Settings of a cache object; what every method falls back on. */
export interface CacheOptions extends LinkOptions {
  /** Makes the vector of a prompt where none is given. */
  embed?: Embed;
  /** Tenant, language: a look-up sees answers of its own scope only. */
  scope?: string;
  /** Whatever changes an answer besides the question, as `context({...})` makes it. */
  context?: string;
  /** Seconds that an answer lives; none for the cache's own. */
  ttl?: number;
  /** Least similarity of a hit by meaning. */
  threshold?: number;
  /** Milliseconds of a lease; it is extended while the answer is made. Default 30,000. */
  leaseMs?: number;
  /** Milliseconds to wait for an answer that somebody else makes. Default 20,000. */
  waitMs?: number;
  /** Whether callers go on without the cache where the server is away or refuses. Default true. */
  failOpen?: boolean;
  /** Told of what is passed over: an outage, an answer that was not stored. Default `console.warn`. */
  onWarning?: (message: string, error?: unknown) => void;
}

/** Where a look-up looks. */
export interface Where {
  scope?: string | undefined;
  context?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** What a look-up asks for besides the prompt. */
export interface Conditions extends Where {
  vector?: Vector | undefined;
  threshold?: number | undefined;
  filter?: string | undefined;
  /** Seconds. */
  maxAge?: number | undefined;
  guard?: "OFF" | "ON" | "STRICT" | undefined;
  /** The exact prompt alone: nothing is embedded, here or by the server. */
  exact?: boolean | undefined;
}

/** What is stored with an answer. */
export interface Stored {
  ttl?: number | undefined;
  tags?: readonly string[] | undefined;
  meta?: Record<string, unknown> | undefined;
  tokens?: number | undefined;
  /** US dollars. */
  cost?: number | undefined;
  latencyMs?: number | undefined;
}

/** An answer that was found. `similarity` is 1 for an exact one; `age` and `ttl` are in seconds. */
export interface Hit {
  id: string;
  tier: "exact" | "semantic";
  similarity: number;
  prompt: string;
  response: string;
  /** The answer's bytes. */
  body: Buffer;
  age: number;
  ttl: number | null;
  stale: boolean;
  meta: unknown;
  tags: string[];
  hits: number;
}

/** The outcome of a fetch. */
export interface Fetched {
  status: "HIT" | "STALE" | "LEAD" | "LEAD-STALE" | "BUSY" | "NEG" | "OPEN";
  hit: Hit | null;
  token: string | null;
  retryMs: number;
  error: string | null;
}

/** A hit from a reply. */
export function hitOf(reply: unknown): Hit | null {
  if (reply == null) return null;
  const m = r.mapping(reply);
  const body = r.bytes(m.get("response"));
  return {
    id: r.text(m.get("id")),
    tier: r.text(m.get("tier")) === "exact" ? "exact" : "semantic",
    similarity: r.number(m.get("similarity")),
    prompt: r.text(m.get("prompt")),
    response: body.toString("utf8"),
    body,
    age: r.number(m.get("age")) / 1_000,
    ttl: r.seconds(m.get("ttl")),
    stale: r.flag(m.get("stale")),
    meta: r.document(m.get("meta")),
    tags: r.list(m.get("tags")).map(r.text),
    hits: r.number(m.get("hits")),
  };
}

function fetchedOf(reply: unknown): Fetched {
  const m = r.mapping(reply);
  return {
    status: r.text(m.get("status")) as Fetched["status"],
    hit: hitOf(m.get("hit")),
    token: r.maybeText(m.get("token")),
    retryMs: r.number(m.get("retry_ms")),
    error: r.maybeText(m.get("error")),
  };
}

const partition = (scope: string, context: string): Argument[] =>
  words(option("SCOPE", scope || null), option("CONTEXT", context || null));

const expiresWith = (stored: Stored, ttl: number | undefined): Argument[] =>
  words(
    stored.tags?.length ? ["TAGS", stored.tags.length, ...stored.tags] : null,
    option("META", stored.meta && JSON.stringify(stored.meta)),
    r.expiry(stored.ttl ?? ttl),
    option("TOKENS", stored.tokens),
    option("COST", stored.cost?.toFixed(9)),
    option("LATENCY", stored.latencyMs === undefined ? null : Math.min(Math.round(stored.latencyMs), 7 * 86_400_000)),
  );

/** The commands of one cache; `LLMCache` adds making an answer once. */
export class CacheCommands {
  readonly link: Link;
  readonly embed: Embed | undefined;
  readonly scope: string;
  readonly context: string;
  readonly ttl: number | undefined;
  readonly threshold: number | undefined;
  readonly leaseMs: number;
  readonly waitMs: number;
  readonly failOpen: boolean;
  readonly warn: (message: string, error?: unknown) => void;

  constructor(
    client: RedisClient,
    readonly name: string = "llmcache",
    options: CacheOptions = {},
  ) {
    this.link = linkOf(client, options);
    this.embed = options.embed;
    this.scope = options.scope ?? "";
    this.context = options.context ?? "";
    this.ttl = options.ttl;
    this.threshold = options.threshold;
    this.leaseMs = options.leaseMs ?? 30_000;
    this.waitMs = options.waitMs ?? 20_000;
    this.failOpen = options.failOpen ?? true;
    const warn = options.onWarning ?? ((message) => console.warn(message));
    this.warn = (message, error) => warn(`llmcache ${name}: ${message}`, error);
  }

  /** Scope and context of a call. */
  within(where: Where): { scope: string; context: string } {
    return { scope: where.scope ?? this.scope, context: where.context ?? this.context };
  }

  /** What says which answer is asked for, within this process. */
  key(prompt: Text, asked: Conditions): string {
    const { scope, context } = this.within(asked);
    const { threshold, filter, maxAge, guard, exact } = asked;
    return canonical([this.name, r.text(prompt), scope, context, threshold, filter, maxAge, guard, exact]);
  }

  #send(word: string, signal: AbortSignal | undefined, ...args: Parameters<typeof words>): Promise<unknown> {
    return this.link.send(words(`LLMCACHE.${word}`, this.name, ...args), signal);
  }

  #tell(word: string, ...args: Parameters<typeof words>): Promise<unknown> {
    return this.#send(word, undefined, ...args);
  }

  async #vector(prompt: Text | null, asked: Conditions): Promise<Vector | undefined> {
    if (asked.vector || asked.exact || !this.embed || prompt === null) return asked.vector;
    return this.embed(r.text(prompt), { signal: asked.signal });
  }

  #asking(prompt: Text | null, vector: Vector | undefined, asked: Conditions): Argument[] {
    const { scope, context } = this.within(asked);
    return words(
      option("PROMPT", prompt === null ? null : raw(prompt)),
      asked.exact ? null : arguments_(vector),
      partition(scope, context),
      option("THRESHOLD", asked.threshold ?? this.threshold),
      option("FILTER", asked.filter),
      option("MAXAGE", asked.maxAge),
      option("GUARD", asked.guard),
    );
  }

  /** Creates the cache with settings of its own: dim, matryoshka, model, threshold, ttl, jitter, grace, guard, quant, embed, ... */
  async create(settings: Record<string, string | number> = {}): Promise<void> {
    const args = Object.entries(settings).flatMap(([word, value]) => [word.toUpperCase(), value]);
    await this.#tell("CREATE", args);
  }

  /** Changes settings, and returns all of them. */
  async config(settings: Record<string, string | number> = {}): Promise<Record<string, unknown>> {
    for (const [word, value] of Object.entries(settings))
      await this.#tell("CONFIG", "SET", word, value);
    return r.fields(await this.#tell("CONFIG", "GET"));
  }

  /** Settings, index and memory. */
  async info(): Promise<Record<string, unknown>> {
    return r.fields(await this.#tell("INFO"));
  }

  /** Hits, misses and what they saved, since the server started. */
  async stats(options: { scope?: string; reset?: boolean } = {}): Promise<Record<string, unknown>> {
    const { scope, reset } = options;
    return r.fields(await this.#tell("STATS", option("SCOPE", scope), reset ? "RESET" : null));
  }

  /** Removes the cache with its settings; whether there was one. */
  async drop(): Promise<boolean> {
    return r.number(await this.#tell("DROP")) === 1;
  }

  /**
   * Stores an answer and returns its id: found by meaning where there is a vector, else by its prompt alone.
   * Null where `nx` found an answer.
   */
  async set(
    prompt: Text,
    response: Text,
    options: Stored & Conditions & { id?: string; nx?: boolean; lease?: string } = {},
  ): Promise<string | null> {
    const { scope, context } = this.within(options);
    const vector = await this.#vector(prompt, options);
    const semantic = vector && !options.exact;
    const reply = await this.#send(
      semantic ? "SETSEM" : "SET",
      options.signal,
      ["PROMPT", raw(prompt), "RESPONSE", raw(response)],
      semantic ? arguments_(vector) : null,
      option("ID", options.id),
      partition(scope, context),
      expiresWith(options, this.ttl),
      option("LEASE", options.lease),
      options.nx ? "NX" : null,
    );
    return r.maybeText(reply);
  }

  /** The answer stored for exactly this prompt. */
  async get(prompt: Text, where: Where = {}): Promise<string | null> {
    const body = await this.getBytes(prompt, where);
    return body === null ? null : body.toString("utf8");
  }

  /** The bytes of the answer stored for exactly this prompt. */
  async getBytes(prompt: Text, where: Where = {}): Promise<Buffer | null> {
    const { scope, context } = this.within(where);
    const reply = await this.#send("GET", where.signal, "PROMPT", raw(prompt), partition(scope, context));
    return reply == null ? null : r.bytes(reply);
  }

  async #near(prompt: Text | null, asked: Conditions, ...more: Parameters<typeof words>): Promise<unknown> {
    const vector = await this.#vector(prompt, asked);
    return this.#send("GETSEM", asked.signal, this.#asking(prompt, vector, asked), ...more);
  }

  /** The answer to this question, or to one that means the same. */
  async search(prompt: Text | null, asked: Conditions = {}): Promise<Hit | null> {
    return hitOf(await this.#near(prompt, asked));
  }

  /** The nearest answers above the threshold, best first. */
  async searchAll(prompt: Text | null, asked: Conditions & { count?: number } = {}): Promise<Hit[]> {
    return r.list(await this.#near(prompt, asked, "COUNT", asked.count ?? 10)).map((one) => hitOf(one)!);
  }

  /** Why this question is answered, or is not. */
  async explain(prompt: Text | null, asked: Conditions = {}): Promise<Record<string, unknown>> {
    const told = r.mapping(await this.#near(prompt, asked, "EXPLAIN"));
    const nearest = told.get("nearest");
    const hits = r.list(told.get("hits")).map(hitOf);
    return { ...r.fields([...told].flat()), nearest: nearest ? r.fields(nearest) : null, hits };
  }

  /**
   * Finds the answer, or takes the lease to make it; waits for somebody else's answer up to `waitMs`. A caller that is
   * told LEAD or LEAD-STALE stores the answer by `set(..., { lease: token })`, or calls `fail`.
   */
  async fetch(
    prompt: Text,
    asked: Conditions & { waitMs?: number; leaseMs?: number | undefined; beta?: number | undefined } = {},
  ): Promise<Fetched> {
    const vector = await this.#vector(prompt, asked);
    const args = words(
      ["LLMCACHE.FETCH", this.name],
      this.#asking(prompt, vector, asked),
      ["LEASE", asked.leaseMs ?? this.leaseMs],
      option("BETA", asked.beta),
      asked.exact ? "EXACT" : null,
    );
    const giveUp = (reply: unknown) => {
      const { token } = fetchedOf(reply);
      // Nobody is there any more to use the lease that was just given: the next who waits gets it.
      if (token) this.extend(token, 1).catch(() => {});
    };
    return waiting(this.link, args, asked.waitMs ?? 0, asked.signal, giveUp, fetchedOf);
  }

  /** Prolongs a lease: it ends so many milliseconds from now. */
  async extend(token: string, ms: number): Promise<void> {
    await this.#tell("EXTEND", token, ms);
  }

  /** Gives a lease up: who waits is told, and for `backoffMs` who asks. */
  async fail(token: string, error = "", backoffMs?: number): Promise<void> {
    // At most 1,000 bytes, and no half of a character at the end.
    const said = Buffer.from(error).subarray(0, 1_000).toString("utf8").replace(/\uFFFD+$/, "");
    await this.#tell("FAIL", token, option("BACKOFF", backoffMs), option("ERR", said || null));
  }

  /** Takes answers out of use by exactly one of these; `soft` keeps them as stale, `dryRun` counts only. How many. */
  async invalidate(
    by: { tag: string } | { scope: string } | { ids: readonly string[] } | { filter: string } | { older: number }
      | { near: Vector; similarity: number } | { all: true },
    options: { soft?: boolean; dryRun?: boolean; limit?: number } = {},
  ): Promise<number> {
    const heads: (Argument | number)[][] =
      "ids" in by ? r.batches(by.ids, 1_000).map((some) => ["IDS", some.length, ...some])
      : "near" in by ? [["NEAR", ...arguments_(by.near), "SIMILARITY", by.similarity]]
      : "tag" in by ? [["TAG", by.tag]]
      : "scope" in by ? [["SCOPE", by.scope]]
      : "filter" in by ? [["FILTER", by.filter]]
      : "older" in by ? [["OLDER", Math.floor(by.older)]]
      : "all" in by ? [["ALL"]]
      : [];
    if (heads.length === 0 && !("ids" in by)) throw new LlmcacheError("say what is to be invalidated");
    let count = 0;
    for (const head of heads)
      try {
        count += r.number(
          await this.#tell("INVALIDATE", head, options.soft ? "SOFT" : null, options.dryRun ? "DRYRUN" : null,
            option("LIMIT", options.limit)),
        );
      } catch (error) {
        if (!(error instanceof NoCache)) throw error;
      }
    return count;
  }

  /** Removes answers by id; how many there were. */
  async delete(...ids: string[]): Promise<number> {
    return ids.length ? r.number(await this.#tell("DEL", ids)) : 0;
  }
}

/**
 * A command that may wait at the server: in pieces on a lane, so that it holds up nobody and needs no longer timeout;
 * where no lane is free, asked again and again. `BUSY` with time left is asked again.
 */
export async function waiting<T extends { status: string; retryMs: number }>(
  link: Link, args: Argument[], waitMs: number, signal: AbortSignal | undefined,
  giveUp: (reply: unknown) => void, parse: (reply: unknown) => T,
): Promise<T> {
  const end = now() + waitMs;
  for (;;) {
    const piece = Math.min(PIECE_MS, Math.ceil(end - now()));
    const turn = piece > 0 ? link.take(args[1]!) : null;
    let answered: T;
    if (turn) {
      const start = now();
      const sent = turn.send(words(args, "WAIT", piece), piece).finally(() => turn.free());
      const reply = await orAborted(sent, signal, giveUp);
      answered = parse(reply);
      if (answered.status !== "BUSY" || now() >= end) return answered;
      // It has waited there already; a server that cannot have it wait says so at once.
      if (now() - start >= piece / 2) continue;
    } else {
      answered = parse(await link.send(args, signal));
      if (answered.status !== "BUSY" || now() >= end) return answered;
    }
    await pause(Math.min(Math.max(answered.retryMs, 5), ASK_AGAIN_MS, end - now()), signal);
  }
}

// One piece of a wait; and how long who finds no lane, and is not woken by the server, waits to ask again.
const PIECE_MS = 5_000;
const ASK_AGAIN_MS = 250;
