/**
 * Writing a message while it is read.
 *
 * Owns: the place where the text ends, what is not sent yet, the lease that is renewed while the model thinks, and the
 * look-out for a stop. Writes are sent in their order, one command at a time; what comes meanwhile goes with the next.
 */

import { LlmcacheError, ServerAway, isOutage } from "./errors.js";
import { type Link, now, pause } from "./link.js";
import * as r from "./replies.js";
import { type Text, option, raw, words } from "./replies.js";
import { type Vector, arguments_ } from "./vectors.js";

/** Settings of a message that is written in parts. */
export interface WriterOptions {
  /** Id of the message, by which it is followed. */
  id?: string | undefined;
  /** Milliseconds after which a silent producer is taken for dead; renewed while it lives. Default 30,000. */
  leaseMs?: number | undefined;
  /** Milliseconds for which text may gather before it is sent; default 0: only what comes while a part is under way. */
  lingerMs?: number | undefined;
  meta?: Record<string, unknown> | undefined;
  /** Takes an abandoned message over from its producer. */
  takeover?: boolean | undefined;
}

/** What the end of a message tells; with `cache` its text is stored as the answer to `prompt` in the same step. */
export interface EndOptions {
  tokens?: number;
  meta?: Record<string, unknown>;
  cache?: { name: string; prompt: Text; vector?: Vector; ttl?: number };
}

const PART_BYTES = 1 << 20;
const LOOK_MS = 1_000;

/** A message that is being written. Ended by `end` or `fail`. */
export class StreamWriter {
  readonly seq: number;
  /** Bytes that the server has. */
  offset: number;
  readonly #token: string;
  readonly #leaseMs: number;
  readonly #lingerMs: number;
  readonly #stop = new AbortController();
  #unsent: Buffer[] = [];
  // The first half of a character of two UTF-16 units, whose second half comes with the next write.
  #half = "";
  #flushing: Promise<void> | null = null;
  #failure: unknown = null;
  #ended = false;
  #sentAt = now();
  #timer: ReturnType<typeof setInterval>;

  constructor(
    private readonly link: Link,
    readonly key: string,
    begun: { seq: number; token: string; offset: number },
    options: WriterOptions,
  ) {
    this.seq = begun.seq;
    this.offset = begun.offset;
    this.#token = begun.token;
    this.#leaseMs = options.leaseMs ?? 30_000;
    this.#lingerMs = options.lingerMs ?? 0;
    this.#timer = setInterval(() => this.#look(), Math.max(1, Math.min(LOOK_MS, this.#leaseMs / 3)));
    this.#timer.unref();
  }

  /** Aborted when the message is stopped from outside, or its lease is lost: for the model call. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Whether the message was stopped from outside. */
  stopped = false;

  /** Adds text. False when the message was stopped from outside, and nothing more is wanted. */
  async write(text: Text): Promise<boolean> {
    this.#check();
    this.#gather(text);
    await this.#flush();
    return !this.stopped;
  }

  #check(): void {
    if (this.#failure) throw this.#failure;
    if (this.#ended) throw new LlmcacheError("the message has ended");
  }

  #gather(text: Text): void {
    let part = text;
    if (typeof part === "string") {
      part = this.#half + part;
      const last = part.charCodeAt(part.length - 1);
      const cut = last >= 0xd800 && last < 0xdc00;
      this.#half = cut ? part.slice(-1) : "";
      if (cut) part = part.slice(0, -1);
    } else if (this.#half) {
      this.#unsent.push(raw(this.#half));
      this.#half = "";
    }
    if (part.length) this.#unsent.push(Buffer.from(raw(part)));
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#send().finally(() => {
      this.#flushing = null;
    });
    return this.#flushing;
  }

  async #send(): Promise<void> {
    const lingers = this.#lingerMs - (now() - this.#sentAt);
    if (lingers > 0 && !this.#ended) await pause(lingers);
    // Writes of the same moment go together.
    else await null;
    while (this.#unsent.length && !this.stopped) {
      const data = this.#unsent.length === 1 ? this.#unsent[0]! : Buffer.concat(this.#unsent);
      const part = data.subarray(0, PART_BYTES);
      this.#unsent = part.length < data.length ? [data.subarray(PART_BYTES)] : [];
      await this.#chunk(part);
    }
    if (this.stopped) this.#unsent = [];
  }

  /** One CHUNK; sent again while the server is away, which is harmless: the same bytes at the same place. */
  async #chunk(data: Buffer): Promise<void> {
    const end = now() + this.#leaseMs;
    for (let attempt = 0; ; attempt++)
      try {
        const reply = await this.link.send(words("SESSION.CHUNK", this.key, this.seq, this.#token, this.offset, data));
        const [offset, stopped] = r.list(reply).map(r.number);
        this.offset = offset!;
        this.#sentAt = now();
        if (stopped === 1) this.#stopped();
        return;
      } catch (error) {
        if (!isOutage(error) || now() >= end) {
          this.#fail(error);
          throw error;
        }
        await pause(Math.min(20 * 2 ** attempt, 1_000));
      }
  }

  #stopped(): void {
    this.stopped = true;
    this.#stop.abort(new LlmcacheError("the message was stopped"));
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#stop.abort(error);
  }

  /** Looks whether the message was stopped, and renews the lease; a server that is away is told by the next write. */
  async #look(): Promise<void> {
    if (this.#ended || this.#flushing || this.stopped) return;
    try {
      if (now() - this.#sentAt >= this.#leaseMs / 3) {
        const at = this.offset;
        const reply = await this.link.send(words("SESSION.CHUNK", this.key, this.seq, this.#token, at, ""));
        this.#sentAt = now();
        if (r.number(r.list(reply)[1]) === 1) this.#stopped();
      } else {
        const reply = await this.link.send(words("SESSION.FOLLOW", this.key, this.seq, this.offset, "MAX", 1));
        if (reply === null || r.text(r.list(reply)[0]) === "stopped") this.#stopped();
      }
    } catch (error) {
      if (!isOutage(error)) this.#fail(error);
    }
  }

  /** Ends the message. Its length in bytes. */
  async end(options: EndOptions = {}): Promise<number> {
    this.#check();
    return this.#finish("DONE", options);
  }

  /** Ends the message as one that failed; the text so far stays. */
  async fail(error?: unknown): Promise<void> {
    if (this.#ended) return;
    try {
      await this.#finish("ERROR", error === undefined ? {} : { meta: { error: String(error).slice(0, 1_000) } });
    } catch (failed) {
      // Its lease lapses by itself; what the caller has to hear is its own error.
      if (!(failed instanceof LlmcacheError)) throw failed;
    }
  }

  /** Gives the message up without ending it: it is abandoned when its lease lapses. */
  leave(): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }

  async #finish(status: "DONE" | "ERROR", { tokens, meta, cache }: EndOptions): Promise<number> {
    this.#ended = true;
    clearInterval(this.#timer);
    if (this.#half) this.#unsent.push(raw(this.#half));
    // What is under way may have begun before the last write.
    await this.#flushing;
    await this.#flush();
    const args = words(
      ["SESSION.END", this.key, this.seq, this.#token, "STATUS", status],
      option("TOKENS", tokens),
      option("META", meta && JSON.stringify(meta)),
      cache && !this.stopped && status === "DONE"
        ? ["CACHE", cache.name, "PROMPT", raw(cache.prompt), ...arguments_(cache.vector), ...r.expiry(cache.ttl)]
        : null,
    );
    const end = now() + this.#leaseMs;
    for (let attempt = 0; ; attempt++)
      try {
        return r.number(r.list(await this.link.send(args))[1]);
      } catch (error) {
        // The same END again is answered the same.
        if (!(error instanceof ServerAway) || now() >= end) throw error;
        await pause(Math.min(20 * 2 ** attempt, 1_000));
      }
  }
}
