/**
 * Making an answer once for all who ask: the lease, the wait, the store, and going on without the cache.
 *
 * Owns: what happens between a miss and an answer. `acquire` says what a caller is to do; `getOrMake` does it.
 */

import { CacheCommands, type Conditions, type Hit, type Stored } from "./cache.js";
import { BreakerOpen, LeaseLost, LlmcacheError, MakingFailed, ServerAway, isOutage } from "./errors.js";
import { now, orAborted, within } from "./link.js";
import type { Text } from "./replies.js";

/** What a maker may return instead of the bare text, to be stored with it. */
export interface Answer extends Stored {
  text: string;
  /** Whether the answer may be stored; default true. */
  store?: boolean;
  /** Whether it is to be found by its exact prompt alone; default false. */
  exactOnly?: boolean;
}

/** What a caller asks for. */
export interface MakeOptions extends Conditions, Stored {
  waitMs?: number | undefined;
  leaseMs?: number | undefined;
  /** Eagerness of early refresh, 0 to 100. */
  beta?: number | undefined;
  /** A stale answer is returned at once while a new one is made. */
  refreshAside?: boolean | undefined;
}

const LEASES_MAX = 20;

/** Leave to make an answer. Exactly one of `store`, `fail` and `release` ends it. */
export class Making {
  /** How often the lease was extended. */
  beats = 0;
  #ended = false;
  #timer: ReturnType<typeof setInterval> | null = null;
  readonly #start = now();

  constructor(
    private readonly cache: CacheCommands,
    private readonly prompt: Text,
    private readonly options: MakeOptions,
    /** Null where the answer is made without the cache. */
    readonly token: string | null,
    private readonly settle: (made: string | null) => void,
  ) {
    if (token !== null) this.#beat(token, options.leaseMs ?? cache.leaseMs);
  }

  // A lease is renewed when a third of it has passed, so that one lost beat does not lose it.
  #beat(token: string, leaseMs: number): void {
    this.#timer = setInterval(
      () => {
        // Somebody who never comes to an end does not keep all others waiting for ever.
        if (now() - this.#start > LEASES_MAX * leaseMs) return this.#stop();
        this.cache.extend(token, leaseMs).then(
          () => this.beats++,
          (error: unknown) => error instanceof LeaseLost && this.#stop(),
        );
      },
      Math.max(1, leaseMs / 3),
    );
    this.#timer.unref();
  }

  #stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  #end(): boolean {
    const first = !this.#ended;
    this.#ended = true;
    this.#stop();
    return first;
  }

  /** Stores the answer; one that comes too late, or that the server refuses, is told and not thrown. */
  async store(answer: Answer): Promise<void> {
    if (!this.#end()) return;
    try {
      if (this.token !== null) await (answer.store === false ? this.#giveUp() : this.#store(answer, this.token));
    } finally {
      this.settle(answer.text);
    }
  }

  async #store(answer: Answer, token: string): Promise<void> {
    const { options: o } = this;
    try {
      await this.cache.set(this.prompt, answer.text, {
        scope: o.scope, context: o.context, vector: o.vector,
        exact: o.exact || answer.exactOnly, lease: token, ttl: answer.ttl ?? o.ttl,
        tags: [...(o.tags ?? []), ...(answer.tags ?? [])],
        meta: o.meta || answer.meta ? { ...o.meta, ...answer.meta } : undefined,
        tokens: answer.tokens ?? o.tokens, cost: answer.cost ?? o.cost,
        latencyMs: answer.latencyMs ?? o.latencyMs ?? now() - this.#start,
      });
    } catch (error) {
      if (!(error instanceof LeaseLost) && !(this.cache.failOpen && isOutage(error))) throw error;
      this.cache.warn(`an answer was not stored: ${(error as Error).message}`, error);
    }
  }

  /** The answer could not be made: those who wait are told. */
  async fail(error: unknown): Promise<void> {
    if (!this.#end()) return;
    const said = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    // The lease lapses by itself; what the caller has to hear is its own error.
    if (this.token !== null) await this.cache.fail(this.token, said).catch(() => {});
    this.settle(null);
  }

  /** Not made, which says nothing of the question: the next who waits may make the answer. */
  async release(): Promise<void> {
    if (!this.#end()) return;
    await this.#giveUp();
    this.settle(null);
  }

  async #giveUp(): Promise<void> {
    if (this.token !== null) await this.cache.extend(this.token, 1).catch(() => {});
  }
}

/** What a caller is to do: use `response`, or make the answer and end `making`; both where a stale answer is renewed. */
export interface Acquired {
  response: string | null;
  hit: Hit | null;
  making: Making | null;
  how: "hit" | "stale" | "joined" | "lead" | "open" | "late";
}

/** A cache of answers. */
export class LLMCache extends CacheCommands {
  /** Finds the answer or takes leave to make it, waiting for whoever makes it now, in this process or another. */
  async acquire(prompt: Text, options: MakeOptions = {}): Promise<Acquired> {
    const end = now() + (options.waitMs ?? this.waitMs);
    const { flights } = this.link;
    const key = this.key(prompt, options);
    for (;;) {
      const flying = flights.get(key);
      if (!flying) break;
      const landed = await within(flying, end - now(), options.signal);
      if (landed) return { response: landed.response, hit: null, making: null, how: "joined" };
      if (now() >= end) return this.#without(prompt, options, "late", () => {});
    }
    let land!: (made: { response: string } | null) => void;
    const flight = new Promise<{ response: string } | null>((resolve) => (land = resolve));
    flights.set(key, flight);
    const settle = (response: string | null) => {
      if (flights.get(key) === flight) flights.delete(key);
      land(response === null ? null : { response });
    };
    try {
      const acquired = await this.#ask(prompt, options, end, settle);
      if (!acquired.making) settle(acquired.response);
      return acquired;
    } catch (error) {
      settle(null);
      throw error;
    }
  }

  #without(prompt: Text, options: MakeOptions, how: "open" | "late", settle: (made: string | null) => void): Acquired {
    return { response: null, hit: null, how, making: new Making(this, prompt, options, null, settle) };
  }

  async #ask(
    prompt: Text, options: MakeOptions, end: number, settle: (made: string | null) => void,
  ): Promise<Acquired> {
    if (this.failOpen && this.link.resting) return this.#without(prompt, options, "open", settle);
    try {
      return await this.#fetch(prompt, options, end, settle);
    } catch (error) {
      if (!(this.failOpen && isOutage(error))) throw error;
      if (error instanceof ServerAway) this.link.rest();
      this.warn(`the cache is passed over: ${(error as Error).message}`, error);
      return this.#without(prompt, options, "open", settle);
    }
  }

  async #fetch(
    prompt: Text, given: MakeOptions, end: number, settle: (made: string | null) => void,
  ): Promise<Acquired> {
    let options = given;
    if (!given.vector && !given.exact && this.embed) {
      // The exact answer first where a vector would have to be made: a trip costs a thousandth of that.
      if (given.filter === undefined && given.maxAge === undefined) {
        const found = await this.get(prompt, given);
        if (found !== null) return { response: found, hit: null, making: null, how: "hit" };
      }
      const text = typeof prompt === "string" ? prompt : Buffer.from(prompt).toString("utf8");
      options = { ...given, vector: await this.embed(text, { signal: given.signal }) };
    }
    const fetched = await this.fetch(prompt, { ...options, waitMs: Math.max(0, end - now()) });
    const { hit } = fetched;
    switch (fetched.status) {
      case "HIT":
      case "STALE":
        return { response: hit!.response, hit, making: null, how: fetched.status === "HIT" ? "hit" : "stale" };
      case "LEAD":
      case "LEAD-STALE": {
        const making = new Making(this, prompt, options, fetched.token, settle);
        const aside = hit !== null && options.refreshAside === true;
        return { response: aside ? hit.response : null, hit, making, how: aside ? "stale" : "lead" };
      }
      case "NEG":
        throw new MakingFailed(fetched.error ?? "", fetched.retryMs);
      case "OPEN":
        throw new BreakerOpen(fetched.retryMs);
      case "BUSY":
        this.warn("the answer of another caller did not come in time");
        return this.#without(prompt, options, "late", settle);
      default:
        throw new LlmcacheError(`unknown status: ${String(fetched.status)}`);
    }
  }

  /**
   * The answer from the cache, or the one that `make` makes; of all who ask at once, one makes it.
   *
   * While `make` runs its lease is extended; when it throws, those who wait are told (`MakingFailed`) and the error goes
   * on. Where somebody else's answer does not come within `waitMs`, or the server is away or refuses, `make` is called
   * all the same (`failOpen: false` throws instead).
   */
  async getOrMake(
    prompt: Text,
    make: (options: { signal: AbortSignal | undefined }) => string | Answer | Promise<string | Answer>,
    options: MakeOptions = {},
  ): Promise<string> {
    const acquired = await this.acquire(prompt, options);
    const { making, response } = acquired;
    if (!making) return response!;
    if (response !== null) {
      // Not the caller's signal: the caller has its answer and is gone.
      this.#lead(making, () => make({ signal: undefined }), undefined).catch((error: unknown) =>
        this.warn(`a stale answer was not renewed: ${String(error)}`, error),
      );
      return response;
    }
    return this.#lead(making, () => make({ signal: options.signal }), options.signal);
  }

  async #lead(
    making: Making, make: () => string | Answer | Promise<string | Answer>, signal: AbortSignal | undefined,
  ): Promise<string> {
    let made: string | Answer;
    try {
      made = await orAborted((async () => make())(), signal);
    } catch (error) {
      // The caller went away, which says nothing of the question.
      await (signal?.aborted ? making.release() : making.fail(error));
      throw error;
    }
    const answer = typeof made === "string" ? { text: made } : made;
    if (typeof answer?.text !== "string") {
      const error = new TypeError("a maker returns text or an Answer");
      await making.fail(error);
      throw error;
    }
    await making.store(answer);
    return answer.text;
  }

  /** A function whose answers are cached; its first argument is the prompt. */
  cached<A extends unknown[]>(
    make: (prompt: string, ...rest: A) => Promise<string | Answer>,
    options: MakeOptions | ((prompt: string, ...rest: A) => MakeOptions) = {},
  ): (prompt: string, ...rest: A) => Promise<string> {
    return (prompt, ...rest) =>
      this.getOrMake(prompt, () => make(prompt, ...rest), typeof options === "function" ? options(prompt, ...rest) : options);
  }
}
