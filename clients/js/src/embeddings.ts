/** A cache of embeddings (`EMBCACHE.*`). */

import { type Embed, waiting } from "./cache.js";
import type { RedisClient } from "./drivers.js";
import { BreakerOpen, LeaseLost, LlmcacheError, MakingFailed, NoCache, ServerAway, isOutage } from "./errors.js";
import { type Link, type LinkOptions, linkOf, now, within } from "./link.js";
import * as r from "./replies.js";
import { type Argument, option, raw, words } from "./replies.js";
import { type Vector, blob, floats } from "./vectors.js";

/** Settings of a cache of embeddings. */
export interface EmbeddingsOptions extends LinkOptions {
  /** Name of the embedding model: vectors of another one are refused. */
  model: string;
  /** Seconds that an embedding lives. */
  ttl?: number;
  leaseMs?: number;
  waitMs?: number;
  failOpen?: boolean;
  onWarning?: (message: string, error?: unknown) => void;
}

const STORE_BATCH = 1_000;
const READ_BATCH = 10_000;

export class Embeddings {
  readonly #link: Link;
  readonly #o: EmbeddingsOptions;

  constructor(
    client: RedisClient,
    readonly name: string,
    options: EmbeddingsOptions,
  ) {
    this.#link = linkOf(client, options);
    this.#o = options;
  }

  /** Creates the cache: `quant` NONE, F16 or Q8, `ttl` in seconds. */
  async create(dim: number, settings: Record<string, string | number> = {}): Promise<void> {
    const more = Object.entries(settings).flatMap(([word, value]) => [word.toUpperCase(), value]);
    await this.#link.send(words("EMBCACHE.CREATE", this.name, "MODEL", this.#o.model, "DIM", dim, more));
  }

  /** Keeps the embedding of a text. */
  async set(text: string, vector: Vector, options: { ttl?: number; lease?: string } = {}): Promise<void> {
    await this.#link.send(
      words(
        ["EMBCACHE.SET", this.name, "TEXT", raw(text), "FP32", blob(vector)],
        r.expiry(options.ttl ?? this.#o.ttl),
        ["MODEL", this.#o.model],
        option("LEASE", options.lease),
      ),
    );
  }

  /** The embedding of a text. */
  async get(text: string): Promise<Float32Array | null> {
    return (await this.getMany([text]))[0] ?? null;
  }

  /** The embeddings of many texts, null where there is none; with `ttl` their deadlines move. */
  async getMany(texts: readonly string[], options: { ttl?: number; signal?: AbortSignal } = {}): Promise<(Float32Array | null)[]> {
    const found: (Float32Array | null)[] = [];
    for (const batch of r.batches(texts, READ_BATCH)) {
      const args = words(
        options.ttl === undefined ? "EMBCACHE.MGET" : "EMBCACHE.MGETEX",
        [this.name, "TEXTS", batch.length, ...batch.map(raw)],
        options.ttl === undefined ? null : r.expiry(options.ttl),
        ["MODEL", this.#o.model],
      );
      let reply: unknown = null;
      try {
        reply = await this.#link.send(args, options.signal);
      } catch (error) {
        if (!(error instanceof NoCache)) throw error;
      }
      const rows = r.list(reply);
      for (let at = 0; at < batch.length; at++) found.push(rows[at] instanceof Uint8Array ? floats(rows[at] as Uint8Array) : null);
    }
    return found;
  }

  /** Keeps many embeddings; each batch of a thousand whole or not at all. How many were kept. */
  async setMany(items: readonly (readonly [string, Vector])[], options: { ttl?: number; signal?: AbortSignal } = {}): Promise<number> {
    let count = 0;
    for (const batch of r.batches(items, STORE_BATCH)) {
      const rows: Argument[] = batch.flatMap(([text, vector]): Argument[] => ["TEXT", raw(text), "FP32", blob(vector)]);
      const tail = words(r.expiry(options.ttl ?? this.#o.ttl), "MODEL", this.#o.model);
      count += r.number(await this.#link.send(words("EMBCACHE.MSET", this.name, batch.length, rows, tail), options.signal));
    }
    return count;
  }

  #passOver(error: unknown): void {
    if (!((this.#o.failOpen ?? true) && isOutage(error))) throw error;
    if (error instanceof ServerAway) this.#link.rest();
    const warn = this.#o.onWarning ?? ((message: string) => console.warn(message));
    warn(`llmcache ${this.name}: the cache is passed over: ${(error as Error).message}`, error);
  }

  get #skipped(): boolean {
    return (this.#o.failOpen ?? true) && this.#link.resting;
  }

  /**
   * The embeddings of all texts: those that are missing by one call `compute(missing)`, and kept. A text that stands
   * several times is computed once.
   */
  async embedMany(
    texts: readonly string[],
    compute: (missing: string[], options: { signal: AbortSignal | undefined }) => Promise<readonly Vector[]> | readonly Vector[],
    options: { ttl?: number; signal?: AbortSignal } = {},
  ): Promise<Float32Array[]> {
    let found: (Float32Array | null)[] = texts.map(() => null);
    try {
      if (!this.#skipped) found = await this.getMany(texts, { ...(options.signal && { signal: options.signal }) });
    } catch (error) {
      this.#passOver(error);
    }
    const missing = [...new Set(texts.filter((_, at) => !found[at]))];
    if (missing.length === 0) return found as Float32Array[];
    const made = await compute(missing, { signal: options.signal });
    if (made.length !== missing.length)
      throw new LlmcacheError(`${missing.length} texts to embed, ${made.length} vectors came`);
    const byText = new Map(missing.map((text, at) => [text, floats(blob(made[at]!))]));
    try {
      if (!this.#skipped) await this.setMany([...byText], options);
    } catch (error) {
      this.#passOver(error);
    }
    return texts.map((text, at) => found[at] ?? byText.get(text)!);
  }

  /** The embedding of a text; of all who ask at once for what is missing, one computes it. */
  async getOrCompute(text: string, compute: Embed, options: { ttl?: number; signal?: AbortSignal } = {}): Promise<Float32Array> {
    const key = `${this.name}\n${this.#o.model}\n${text}`;
    const end = now() + (this.#o.waitMs ?? 20_000);
    for (let flying; (flying = this.#link.computing.get(key)); ) {
      // Where the first failed or went away the others try for themselves.
      const landed = await within(flying.catch(() => null), end - now(), options.signal);
      if (landed) return landed;
      if (now() >= end) return floats(blob(await compute(text, { signal: options.signal })));
    }
    const flight = this.#compute(text, compute, end, options);
    this.#link.computing.set(key, flight);
    try {
      return await flight;
    } finally {
      if (this.#link.computing.get(key) === flight) this.#link.computing.delete(key);
    }
  }

  async #compute(text: string, compute: Embed, end: number, options: { ttl?: number; signal?: AbortSignal }): Promise<Float32Array> {
    const leaseMs = this.#o.leaseMs ?? 30_000;
    const { signal } = options;
    let status = "BUSY";
    let told = new Map<string, unknown>();
    try {
      if (!this.#skipped) {
        const args = words("EMBCACHE.FETCH", this.name, "TEXT", raw(text), "LEASE", leaseMs, "MODEL", this.#o.model);
        const late = (reply: unknown) => {
          const token = r.mapping(reply).get("token");
          if (token) this.#link.send(words("EMBCACHE.EXTEND", this.name, r.text(token), 1)).catch(() => {});
        };
        const parse = (reply: unknown) => {
          const map = r.mapping(reply);
          return { status: r.text(map.get("status")), retryMs: r.number(map.get("retry_ms")), map };
        };
        const answered = await waiting(this.#link, args, end - now(), signal, late, parse);
        [status, told] = [answered.status, answered.map];
      }
    } catch (error) {
      this.#passOver(error);
    }
    if (status === "HIT") return floats(r.bytes(told.get("vector")));
    if (status === "LEAD") return this.#lead(text, compute, r.text(told.get("token")), leaseMs, options);
    if (status === "NEG") throw new MakingFailed(r.text(told.get("error")), r.number(told.get("retry_ms")));
    if (status === "OPEN") throw new BreakerOpen(r.number(told.get("retry_ms")));
    return floats(blob(await compute(text, { signal })));
  }

  async #lead(
    text: string, compute: Embed, token: string, leaseMs: number, options: { ttl?: number; signal?: AbortSignal },
  ): Promise<Float32Array> {
    const extend = (ms: number) => this.#link.send(words("EMBCACHE.EXTEND", this.name, token, ms));
    // The lease lapses by itself where it cannot be extended or given up.
    const beat = setInterval(() => extend(leaseMs).catch(() => {}), Math.max(1, leaseMs / 3));
    beat.unref();
    let made: Float32Array;
    try {
      made = floats(blob(await compute(text, { signal: options.signal })));
    } catch (error) {
      const said = Buffer.from(String(error)).subarray(0, 1_000);
      const command = words("EMBCACHE.FAIL", this.name, token, "ERR", said);
      await (options.signal?.aborted ? extend(1) : this.#link.send(command)).catch(() => {});
      throw error;
    } finally {
      clearInterval(beat);
    }
    try {
      await this.set(text, made, { lease: token, ...(options.ttl !== undefined && { ttl: options.ttl }) });
    } catch (error) {
      if (!(error instanceof LeaseLost)) this.#passOver(error);
    }
    return made;
  }

  /** Removes embeddings; how many there were. */
  async delete(...texts: string[]): Promise<number> {
    let count = 0;
    for (const batch of r.batches(texts, READ_BATCH))
      count += r.number(
        await this.#link.send(words("EMBCACHE.DEL", this.name, "TEXTS", batch.length, batch.map(raw), "MODEL", this.#o.model)),
      );
    return count;
  }

  /** Settings, use and memory. */
  async info(): Promise<Record<string, unknown>> {
    return r.fields(await this.#link.send(["EMBCACHE.INFO", this.name]));
  }
}
