/**
 * All that this package does with one client of the user: the commands over it, and the few connections of its own.
 *
 * Owns: the time limit of a command, what is sent again, the lanes (connections on which commands may wait at the
 * server), the rest after an outage, and the flights of this process. There is one link for each client, whatever is
 * built on it, so that the bound on connections holds for all of them together.
 */

import { type Driver, type Own, type RedisClient, driverOf } from "./drivers.js";
import { ServerAway, isPassing, told } from "./errors.js";
import type { Argument } from "./replies.js";

/** Connections beside the user's own: with it, and one that is being replaced, at most eight. */
export const LANES = 6;
/** Lanes that readers of streams may hold, so that some are left for answers that are waited for. */
export const LANES_OF_READERS = 4;
/** How long a command that does not wait may take before the server counts as away. */
export const COMMAND_MS = 5_000;
const IDLE_MS = 10_000;
const REST_MS = 1_000;
// Pauses before a command is sent again that the server refused for a moment.
const AGAIN_MS = [10, 30, 100, 300, 1_000];

/** Options that concern the connections of a client; the first object built on it decides. */
export interface LinkOptions {
  /** Connections of its own beside the client, 2 to 64; default 6. */
  lanes?: number;
  /** Milliseconds after which a command that does not wait counts as lost; default 5,000. */
  commandMs?: number;
}

/** Milliseconds of a clock that only goes forward. */
export const now = (): number => performance.now();

/** A pause that a signal ends. */
export function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  return within(new Promise<never>(() => {}), ms, signal).then(() => {});
}

/** The outcome of a promise, or undefined when the time is over; a signal rejects. What is left goes on unseen. */
export function within<T>(promise: Promise<T>, ms: number, signal?: AbortSignal | null): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
    };
    const aborted = () => (done(), reject(signal!.reason));
    // What has arrived while this process was busy is read first: its own lateness is not the server's.
    const over = () => setImmediate(() => (timer = setTimeout(() => (done(), resolve(undefined)))));
    let timer = setTimeout(over, Math.min(Math.max(0, ms), 2 ** 31 - 1));
    signal?.addEventListener("abort", aborted, { once: true });
    promise.then(resolve, reject).finally(done);
  });
}

/** The outcome of a promise, or the signal's reason; what is left then goes on unseen, or is handed to `late`. */
export function orAborted<T>(promise: Promise<T>, signal?: AbortSignal | null, late?: (value: T) => void): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const aborted = () => {
      reject(signal.reason);
      promise.then(late, () => {});
    };
    if (signal.aborted) return aborted();
    signal.addEventListener("abort", aborted, { once: true });
    const done = () => signal.removeEventListener("abort", aborted);
    promise.then(resolve, reject).finally(done);
  });
}

const silent = (ms: number): ServerAway => new ServerAway(`the server did not answer within ${ms} ms`);

interface Lane {
  node: string;
  own: Own | null;
  busy: boolean;
  since: number;
}

/** A lane while it is used. */
export interface Turn {
  /** Sends a command that waits at the server for up to `blockMs`. */
  send(args: Argument[], blockMs: number): Promise<unknown>;
  free(): void;
}

export class Link {
  readonly #driver: Driver;
  readonly #limit: number;
  readonly #commandMs: number;
  readonly #lanes = new Set<Lane>();
  #readers = 0;
  #restingUntil = 0;
  #sweep: ReturnType<typeof setInterval> | null = null;
  /** What is being made in this process, by what it answers. */
  readonly flights = new Map<string, Promise<{ response: string } | null>>();
  /** Embeddings that are being computed in this process. */
  readonly computing = new Map<string, Promise<Float32Array>>();
  /** What belongs to this link and is made when it is first needed. */
  readonly kept = new Map<string, unknown>();

  constructor(client: RedisClient, options: LinkOptions = {}) {
    this.#driver = driverOf(client);
    this.#limit = options.lanes ?? LANES;
    if (!(this.#limit >= 2 && this.#limit <= 64)) throw new RangeError("lanes are 2 to 64");
    this.#commandMs = options.commandMs ?? COMMAND_MS;
  }

  static readonly #of = new WeakMap<object, Link>();

  /** The one link of a client. */
  static of(client: RedisClient, options?: LinkOptions): Link {
    let link = Link.#of.get(client);
    if (!link) Link.#of.set(client, (link = new Link(client, options)));
    return link;
  }

  /** Sends a command; what the server refuses for a moment is sent again, for up to about 1.5 s. */
  async send(args: Argument[], signal?: AbortSignal | null): Promise<unknown> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once(args, signal);
      } catch (error) {
        const pauseMs = AGAIN_MS[attempt];
        if (!isPassing(error) || pauseMs === undefined) throw error;
        await pause(pauseMs * (0.75 + Math.random() / 2), signal);
      }
    }
  }

  async #once(args: Argument[], signal?: AbortSignal | null): Promise<unknown> {
    signal?.throwIfAborted();
    // Ends what still waits in the client's queue for a connection: nobody waits for it any more.
    const cut = new AbortController();
    const sent = this.#driver.send(args, cut.signal).then(
      (reply) => ({ reply }),
      (error: unknown) => Promise.reject(told(error)),
    );
    try {
      const answered = await within(sent, this.#commandMs, signal);
      if (!answered) throw silent(this.#commandMs);
      return answered.reply;
    } catch (error) {
      cut.abort();
      throw error;
    }
  }

  /** Commands side by side; an error stands in the place of its reply. */
  sendMany(commands: Argument[][], signal?: AbortSignal | null): Promise<unknown[]> {
    return Promise.all(commands.map((args) => this.send(args, signal).catch((error: unknown) => error)));
  }

  /** Their replies; the first error is thrown. */
  async sendAll(commands: Argument[][], signal?: AbortSignal | null): Promise<unknown[]> {
    const replies = await this.sendMany(commands, signal);
    for (const reply of replies) if (reply instanceof Error) throw reply;
    return replies;
  }

  /** The server was away: who can do without it does so for a moment, instead of waiting for it one by one. */
  rest(): void {
    this.#restingUntil = Date.now() + REST_MS;
  }

  get resting(): boolean {
    return Date.now() < this.#restingUntil;
  }

  /** Whether keys are at several nodes. */
  get isCluster(): boolean {
    return this.#driver.nodeOf("") !== "";
  }

  /** How many connections of its own are open. */
  get open(): number {
    return this.#lanes.size;
  }

  /** A lane at the node of this key, or null where all are taken. `reader` says that it is held for a stream. */
  take(key: Argument, reader = false): Turn | null {
    if (reader && this.#readers >= Math.max(1, this.#limit - (LANES - LANES_OF_READERS))) return null;
    const node = this.#driver.nodeOf(key);
    let lane: Lane | undefined;
    for (const one of this.#lanes) if (!one.busy && one.node === node) lane = one;
    if (!lane && this.#lanes.size >= this.#limit) {
      // One that idles at another node makes room.
      for (const one of this.#lanes) if (!one.busy) lane = one;
      if (!lane) return null;
      this.#end(lane);
      lane = undefined;
    }
    if (!lane) this.#lanes.add((lane = { node, own: null, busy: true, since: 0 }));
    lane.busy = true;
    if (reader) this.#readers++;
    return this.#turn(lane, key, reader);
  }

  #turn(lane: Lane, key: Argument, reader: boolean): Turn {
    let held = true;
    return {
      send: async (args, blockMs) => {
        try {
          if (!lane.own) {
            const opening = this.#driver.open(key);
            // One that opens too late is nobody's.
            let late = false;
            opening.then(
              (own) => late && own.close(),
              () => {},
            );
            const own = await within(opening, this.#commandMs);
            if (!own) {
              late = true;
              throw new ServerAway("a connection could not be opened in time");
            }
            lane.own = own;
          }
          lane.own.hold(true);
          const sent = lane.own.send(args).then((reply) => ({ reply }));
          const answered = await within(sent, blockMs + this.#commandMs);
          if (!answered) throw silent(blockMs + this.#commandMs);
          return answered.reply;
        } catch (error) {
          const known = told(error);
          // A connection with a reply outstanding, or that failed, serves nobody else.
          if (known instanceof ServerAway) {
            lane.own?.close();
            lane.own = null;
          } else if (/^(MOVED|ASK) /.test(known.message)) {
            this.#end(lane);
            throw new ServerAway(known.message, { cause: known });
          }
          throw known;
        }
      },
      free: () => {
        if (!held) return;
        held = false;
        if (reader) this.#readers--;
        lane.busy = false;
        lane.since = Date.now();
        if (!lane.own) this.#lanes.delete(lane);
        else {
          lane.own.hold(false);
          this.#sweepLater();
        }
      },
    };
  }

  #end(lane: Lane): void {
    this.#lanes.delete(lane);
    lane.own?.close();
    lane.own = null;
  }

  #sweepLater(): void {
    if (this.#sweep) return;
    this.#sweep = setInterval(() => {
      for (const lane of this.#lanes) if (!lane.busy && Date.now() - lane.since >= IDLE_MS) this.#end(lane);
      if (this.#lanes.size === 0) this.#stopSweep();
    }, IDLE_MS);
    this.#sweep.unref();
  }

  #stopSweep(): void {
    if (this.#sweep) clearInterval(this.#sweep);
    this.#sweep = null;
  }

  /** Closes the connections of its own; never the client. They are opened again when they are needed. */
  close(): void {
    for (const lane of this.#lanes) this.#end(lane);
    this.#stopSweep();
  }
}

/** What an object of this package is built on: a client, or another's link. */
export function linkOf(client: RedisClient, options?: LinkOptions): Link {
  return Link.of(client, options);
}
