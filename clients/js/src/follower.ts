/**
 * Many readers over few connections.
 *
 * Of all readers of one message in this process one command waits at the server, and hands what comes to all of them.
 * Where more messages are read than lanes are free, each gets a lane in turn; the others are looked at together every
 * so many milliseconds, over the user's own connection, which nothing holds up. There is one follower for each link.
 */

import { ServerAway, StreamGone, isOutage } from "./errors.js";
import { type Link, now, orAborted, pause } from "./link.js";
import * as r from "./replies.js";
import { type Argument, words } from "./replies.js";

/** A part of a message. `offset` is where it ends, in bytes: go on from there. */
export interface Part {
  data: Buffer;
  text: string;
  offset: number;
  status: "open" | "done" | "stopped" | "error" | "abandoned" | "whole";
}

// A message that has a lane gives it up after so long where others wait for one.
const TURN_MS = 2_000;
const LINGER_MS = 20;
const POLL_MS = 50;
/** Messages of one round of looking are spread so that no more than about 4,000 commands go in a second. */
const POLLS_PER_MS = 4;
const BATCH = 256;
const PART_BYTES = 1 << 20;
/** How long a server may be away before readers are told. */
const PATIENCE_MS = 30_000;

/** A message by its place or its id; one of an id may not have begun. */
export type Which = number | { id: string };

const at = (which: Which): (string | number)[] => (typeof which === "number" ? [which] : ["ID", which.id]);

/** One message that is read: its text from `base` on, as far as it came. */
class Feed {
  readers = 0;
  status: Part["status"] = "open";
  failure: Error | null = null;
  #text = Buffer.alloc(0);
  #size = 0;
  #grown!: () => void;
  grown!: Promise<void>;
  awaySince = 0;

  /** Whether the message was there when it was last asked for. */
  begun: boolean;
  /** Until when a message that has not begun is waited for. */
  waitUntil = 0;

  constructor(
    readonly key: string,
    readonly which: Which,
    readonly base: number,
  ) {
    this.begun = typeof which === "number";
    this.#renew();
  }

  get name(): string {
    return `${typeof this.which === "number" ? this.which : `ID ${this.which.id}`} ${this.key}`;
  }

  /** How long one question waits at the server. */
  get block(): number {
    return this.begun ? TURN_MS : Math.min(TURN_MS, Math.max(1, Math.ceil(this.waitUntil - now())));
  }

  gone(): StreamGone {
    const which = typeof this.which === "number" ? this.which : `"${this.which.id}"`;
    return new StreamGone(`the session "${this.key}" has no message ${which}${this.begun ? " any more" : ""}`);
  }

  #renew(): void {
    this.grown = new Promise((resolve) => (this.#grown = resolve));
  }

  get end(): number {
    return this.base + this.#size;
  }

  get over(): boolean {
    return this.failure !== null || this.status !== "open";
  }

  from(offset: number): Buffer {
    return this.#text.subarray(offset - this.base, this.#size);
  }

  args(...more: (Argument | number)[]): Argument[] {
    return words("SESSION.FOLLOW", this.key, at(this.which), this.end, "MAX", PART_BYTES, more);
  }

  /** Takes what was answered to a question from `asked` on. */
  take(reply: unknown, asked: number): void {
    this.awaySince = 0;
    if (reply == null) {
      if (this.begun || now() >= this.waitUntil) this.fail(this.gone());
      return;
    }
    this.begun = true;
    const [status, next, part] = r.list(reply);
    const data = r.bytes(part);
    const fresh = data.subarray(Math.max(0, this.end - asked));
    if (fresh.length) this.#add(fresh);
    if (r.number(next) === this.end) this.status = r.text(status) as Part["status"];
    if (fresh.length || this.over) this.#wake();
  }

  #add(data: Buffer): void {
    if (this.#size + data.length > this.#text.length) {
      // Parts that were handed out are views of the old one, which stays as it is.
      const larger = Buffer.alloc(Math.max(1_024, 2 * (this.#size + data.length)));
      this.#text.copy(larger, 0, 0, this.#size);
      this.#text = larger;
    }
    data.copy(this.#text, this.#size);
    this.#size += data.length;
  }

  fail(error: Error): void {
    this.failure ??= error;
    this.#wake();
  }

  /** An error of one question; a server that is away for long is told. */
  failed(error: unknown): void {
    const asked = Date.now();
    this.awaySince ||= asked;
    if (!isOutage(error) || asked - this.awaySince > PATIENCE_MS) this.fail(error as Error);
  }

  #wake(): void {
    const wake = this.#grown;
    this.#renew();
    wake();
  }
}

export class Follower {
  readonly #feeds = new Map<string, Feed>();
  /** Messages that have no lane, and what tells them to try again. */
  readonly #looked = new Map<Feed, () => void>();
  #polling = false;

  constructor(private readonly link: Link) {}

  /** The one follower of a link. */
  static of(link: Link): Follower {
    let found = link.kept.get("follower") as Follower | undefined;
    if (!found) link.kept.set("follower", (found = new Follower(link)));
    return found;
  }

  /** How many messages are being read. */
  get size(): number {
    return this.#feeds.size;
  }

  async *follow(
    key: string, which: Which, offset: number, waitMs = 0, signal?: AbortSignal,
  ): AsyncGenerator<Part, void, undefined> {
    signal?.throwIfAborted();
    const feed = this.#feed(key, which, offset, now() + waitMs);
    const decoder = new TextDecoder();
    const partOf = (data: Buffer, status: Part["status"]): Part => {
      offset += data.length;
      return { data, text: decoder.decode(data, { stream: status === "open" }), offset, status };
    };
    feed.readers++;
    try {
      // What was written before the part that this process has is read for this reader alone.
      while (offset < feed.base && !feed.failure) yield partOf(await this.#before(feed, offset, signal), "open");
      for (;;) {
        if (offset < feed.end) {
          const data = feed.from(offset);
          const last = feed.over && !feed.failure;
          yield partOf(data, last ? feed.status : "open");
          if (last) return;
        } else if (feed.failure) throw feed.failure;
        else if (feed.over) {
          yield partOf(Buffer.alloc(0), feed.status);
          return;
        } else await orAborted(feed.grown, signal);
      }
    } finally {
      if (--feed.readers === 0) this.#forget(feed);
    }
  }

  #feed(key: string, which: Which, offset: number, waitUntil: number): Feed {
    const fresh = new Feed(key, which, offset);
    let feed = this.#feeds.get(fresh.name);
    if (!feed || feed.over) {
      feed = fresh;
      this.#feeds.set(feed.name, feed);
      void this.#pump(feed);
    }
    feed.waitUntil = Math.max(feed.waitUntil, waitUntil);
    return feed;
  }

  /** Drops a message that is over or has no reader any more. */
  #forget(feed: Feed): void {
    if (this.#feeds.get(feed.name) === feed) this.#feeds.delete(feed.name);
    this.#looked.get(feed)?.();
  }

  async #before(feed: Feed, offset: number, signal: AbortSignal | undefined): Promise<Buffer> {
    const size = Math.min(feed.base - offset, PART_BYTES);
    const reply = await this.link.send(words("SESSION.FOLLOW", feed.key, at(feed.which), offset, "MAX", size), signal);
    if (reply === null) throw feed.gone();
    // A character longer than what was asked for is answered whole.
    const data = r.bytes(r.list(reply)[2]).subarray(0, size);
    if (data.length === 0) throw feed.gone();
    return data;
  }

  /** Reads one message as long as it has readers: on a lane while there is one, else it is looked at with others. */
  async #pump(feed: Feed): Promise<void> {
    // Readers of the same moment come together.
    await null;
    const wanted = () => feed.readers > 0 && !feed.over;
    while (wanted()) {
      const turn = this.link.take(feed.key, true);
      if (!turn) {
        await this.#look(feed);
        continue;
      }
      const until = now() + TURN_MS;
      try {
        do {
          const asked = feed.end;
          const { block } = feed;
          feed.take(await turn.send(feed.args("BLOCK", block, "LINGER", Math.min(LINGER_MS, block)), block), asked);
        } while (wanted() && (now() < until || this.#looked.size === 0));
      } catch (error) {
        feed.failed(error);
        if (wanted()) await pause(error instanceof ServerAway ? POLL_MS * 4 : POLL_MS);
      } finally {
        turn.free();
      }
      // Its turn is over: whoever waits for a lane comes first.
      const [next] = this.#looked.values();
      if (next) {
        next();
        if (wanted()) await this.#look(feed);
      }
    }
    this.#forget(feed);
  }

  /** Until a lane may be free, or the message is over or has no reader any more. */
  #look(feed: Feed): Promise<void> {
    return new Promise((resolve) => {
      this.#looked.set(feed, () => {
        this.#looked.delete(feed);
        resolve();
      });
      if (!this.#polling) void this.#poll();
    });
  }

  async #poll(): Promise<void> {
    this.#polling = true;
    while (this.#looked.size) {
      await pause(Math.max(POLL_MS, this.#looked.size / POLLS_PER_MS));
      for (const some of r.batches([...this.#looked.keys()], BATCH)) {
        const asked = some.map((feed) => feed.end);
        const replies = await this.link.sendMany(some.map((feed) => feed.args()));
        some.forEach((feed, at) => {
          const reply = replies[at];
          if (reply instanceof Error) feed.failed(reply);
          else feed.take(reply, asked[at]!);
          if (feed.over || feed.readers === 0) this.#looked.get(feed)?.();
        });
      }
      // A lane may have become free elsewhere: the one that waits longest tries.
      const [first] = this.#looked.values();
      first?.();
    }
    this.#polling = false;
  }
}
