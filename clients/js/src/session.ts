/**
 * A conversation (`SESSION.*`). Every message goes with an `ID`, so that a client library that sends a command again
 * after a lost reply appends nothing twice.
 */

import { randomUUID } from "node:crypto";
import type { Embed } from "./cache.js";
import type { RedisClient } from "./drivers.js";
import { LlmcacheError, StreamTaken } from "./errors.js";
import { Follower, type Part } from "./follower.js";
import { type Link, type LinkOptions, linkOf } from "./link.js";
import * as r from "./replies.js";
import { type Argument, type Text, option, raw, words } from "./replies.js";
import { type Vector, arguments_ } from "./vectors.js";
import { StreamWriter, type WriterOptions } from "./writer.js";

/** A message to be appended. */
export interface NewMessage {
  role: string;
  content: Text;
  id?: string | undefined;
  tokens?: number | undefined;
  meta?: Record<string, unknown> | undefined;
  pinned?: boolean | undefined;
  /** Id of the tool call that this message makes. */
  call?: string | undefined;
  /** Id of the tool call that this message answers. */
  result?: string | undefined;
  vector?: Vector | undefined;
}

/** A message that was read. `seq` is its place, given by the server. */
export interface Message {
  seq: number;
  role: string;
  content: string;
  /** Its bytes. */
  body: Buffer;
  id: string | null;
  tokens: number;
  meta: unknown;
  pinned: boolean;
  call: string | null;
  result: string | null;
  summary: boolean;
  /** `whole`, or of one that was streamed: `open`, `done`, `stopped`, `error`, `abandoned`. */
  status: string;
}

/** Settings of a session object. */
export interface SessionOptions extends LinkOptions {
  /** Seconds that the session lives after it was last written to. */
  ttl?: number;
  /** Key of the sorted set that lists this user's sessions; of the same hash slot. */
  owner?: string;
  maxlen?: number;
  maxtokens?: number;
  /** Makes vectors of the messages of user and assistant, for `recall`. */
  embed?: Embed;
}

/** Which messages a window holds. */
export interface WindowQuery {
  tokens?: number;
  last?: number;
  turns?: number;
  roles?: readonly string[];
  pairs?: boolean;
}

const APPEND_BATCH = 1_024;
const APPEND_BYTES = 512 << 10;

function messageFrom(seq: unknown, role: unknown, payload: unknown, tokens: unknown, m: Map<string, unknown>): Message {
  const body = r.bytes(payload);
  return {
    seq: r.number(seq),
    role: r.text(role),
    content: body.toString("utf8"),
    body,
    id: r.maybeText(m.get("id")),
    tokens: r.number(tokens),
    meta: r.document(m.get("meta")),
    pinned: r.flag(m.get("pinned")),
    call: r.maybeText(m.get("call")),
    result: r.maybeText(m.get("result")),
    summary: r.flag(m.get("summary")),
    status: r.maybeText(m.get("status")) ?? "whole",
  };
}

/** From the form `[seq, role, payload, tokens, name, value, ...]`. */
function messageOf(reply: unknown): Message {
  const [seq, role, payload, tokens, ...rest] = r.list(reply);
  return messageFrom(seq, role, payload, tokens, r.mapping(rest));
}

function messageOfMap(reply: unknown): Message {
  const m = r.mapping(reply);
  return messageFrom(m.get("seq"), m.get("role"), m.get("payload"), m.get("tokens"), m);
}

const roles = (some: readonly string[] | undefined): (string | number)[] =>
  some?.length ? ["ROLES", some.length, ...some] : [];

export class Session {
  readonly link: Link;
  readonly #o: SessionOptions;

  constructor(
    client: RedisClient,
    readonly key: string,
    options: SessionOptions = {},
  ) {
    this.link = linkOf(client, options);
    this.#o = options;
  }

  #ask(word: string, ...args: Parameters<typeof words>): Promise<unknown> {
    return this.link.send(words(`SESSION.${word}`, this.key, ...args));
  }

  async #count(word: string, ...args: Parameters<typeof words>): Promise<number> {
    return r.number(await this.#ask(word, ...args));
  }

  // Writing.

  /**
   * Appends messages in one step with the session's ttl, trims and owner; null where a condition does not hold.
   *
   * `ifSeq` appends only if that is the newest place; with `upsert` a message of a known id replaces that one where it
   * stands; with `replace` these messages take the place of all others. Above 1,024 messages or
   * 512 KiB it takes several steps.
   */
  async append(
    messages: NewMessage | readonly NewMessage[],
    options: { ifSeq?: number; nx?: boolean; xx?: boolean; upsert?: boolean; replace?: boolean; signal?: AbortSignal } = {},
  ): Promise<{ places: { seq: number; isNew: boolean }[]; messages: number; tokens: number } | null> {
    const all = Array.isArray(messages) ? (messages as NewMessage[]) : [messages as NewMessage];
    const rows: Argument[][] = [];
    for (const message of all) rows.push(await this.#row(message, options.signal));
    const places: { seq: number; isNew: boolean }[] = [];
    let [count, tokens] = [0, 0];
    let conditions = words(
      options.nx ? "NX" : null,
      options.xx ? "XX" : null,
      option("IFSEQ", options.ifSeq),
      options.replace ? "CLEAR" : null,
    );
    for (const batch of r.batches(rows, APPEND_BATCH, APPEND_BYTES, r.weight)) {
      const args = words(
        ["SESSION.APPEND", this.key],
        conditions,
        options.upsert ? "UPSERT" : null,
        option("TTL", this.#o.ttl),
        option("MAXLEN", this.#o.maxlen),
        option("MAXTOKENS", this.#o.maxtokens),
        option("OWNER", this.#o.owner),
        batch.flat(),
      );
      const reply = await this.link.send(args, options.signal);
      if (reply == null) return null;
      const got = r.list(reply);
      [tokens, count] = [r.number(got.pop()), r.number(got.pop())];
      places.push(...got.map(r.list).map(([seq, isNew]) => ({ seq: r.number(seq), isNew: r.flag(isNew) })));
      conditions = [];
    }
    return { places, messages: count, tokens };
  }

  async #row(message: NewMessage, signal: AbortSignal | undefined): Promise<Argument[]> {
    let { vector } = message;
    if (!vector && this.#o.embed && (message.role === "user" || message.role === "assistant"))
      vector = await this.#o.embed(raw(message.content).toString("utf8"), { signal });
    return words(
      ["MSG", message.role, raw(message.content), "ID", message.id ?? randomUUID()],
      option("TOKENS", message.tokens),
      option("META", message.meta && JSON.stringify(message.meta)),
      message.pinned ? "PIN" : null,
      option("CALL", message.call),
      option("RESULT", message.result),
      arguments_(vector),
    );
  }

  /** Replaces what a message says, by its place or its id; whether it was there. */
  async edit(which: number | { id: string }, content: Text, options: { tokens?: number; vector?: Vector } = {}): Promise<boolean> {
    const at = typeof which === "number" ? [which] : ["ID", which.id];
    const args = [option("TOKENS", options.tokens), arguments_(options.vector)];
    return (await this.#count("EDIT", at, raw(content), ...args)) === 1;
  }

  /** Removes messages by their places or their ids; how many there were. */
  async delete(which: readonly number[] | { ids: readonly string[] }): Promise<number> {
    const at = "ids" in which ? (which.ids.length ? ["ID", ...which.ids] : []) : [...which];
    return at.length ? await this.#count("DEL", at) : 0;
  }

  /** Removes the newest messages and returns them, newest first; or the oldest, in their order. */
  async pop(count = 1, options: { oldest?: boolean } = {}): Promise<Message[]> {
    return r.list(await this.#ask("POP", "COUNT", count, options.oldest ? "OLDEST" : null)).map(messageOf);
  }

  /** Moves the deadline to the session's ttl from now, or to `ttl`, which is kept; whether there is such a session. */
  async touch(ttl?: number): Promise<boolean> {
    return (await this.#count("EXPIRE", option("TTL", ttl))) === 1;
  }

  /** Removes the oldest messages that are not pinned; how many. */
  async trim(to: { maxlen: number } | { maxtokens: number } | { minseq: number }): Promise<number> {
    const [[word, value]] = Object.entries(to) as [[string, number]];
    return await this.#count("TRIM", word.toUpperCase(), value);
  }

  /** Removes all messages, pinned ones too; the session stays. */
  async clear(): Promise<number> {
    return await this.#count("CLEAR");
  }

  /** Removes the session. */
  async drop(): Promise<boolean> {
    return r.number(await this.link.send(["UNLINK", this.key])) === 1;
  }

  /** Replaces the messages up to a place by a summary: how many, and the tokens before and after. */
  async compact(
    upto: number, summary: Text, options: { tokens?: number; ifSeq?: number; role?: string } = {},
  ): Promise<{ removed: number; before: number; after: number } | null> {
    const reply = await this.#ask("COMPACT", ["UPTO", upto, raw(summary)], option("TOKENS", options.tokens),
      option("IFSEQ", options.ifSeq), option("ROLE", options.role));
    if (reply == null) return null;
    const [removed = 0, before = 0, after = 0] = r.list(reply).map(r.number);
    return { removed, before, after };
  }

  /** Copies the messages up to a place into a new session of the same hash slot; how many. */
  async fork(key: string, at?: number): Promise<number> {
    return await this.#count("FORK", key, option("AT", at));
  }

  // Reading.

  /** The newest messages that fit, oldest first; `pairs` never parts a tool call from its results. */
  async window(
    query: WindowQuery & { signal?: AbortSignal } = {},
  ): Promise<{ tokens: number; first: number; cut: boolean; messages: Message[] }> {
    const args = words(
      ["SESSION.WINDOW", this.key],
      option("TOKENS", query.tokens),
      option("LAST", query.last),
      option("TURNS", query.turns),
      roles(query.roles),
      query.pairs ? "PAIRS" : null,
    );
    const [tokens, first, cut, messages] = r.list(await this.link.send(args, query.signal));
    return {
      tokens: r.number(tokens),
      first: r.number(first),
      cut: r.flag(cut),
      messages: r.list(messages).map(messageOf),
    };
  }

  /** Messages by their places. */
  async messages(
    first: number | "-" = "-", last: number | "+" = "+",
    options: { count?: number; reverse?: boolean; roles?: readonly string[] } = {},
  ): Promise<Message[]> {
    const reply = await this.#ask("RANGE", first, last, option("COUNT", options.count),
      options.reverse ? "REV" : null, roles(options.roles));
    return r.list(reply).map(messageOf);
  }

  /** One message, by its place or its id. */
  async get(which: number | { id: string }): Promise<Message | null> {
    const at = typeof which === "number" ? ["SEQ", which] : ["ID", which.id];
    const reply = await this.#ask("GET", at);
    return reply == null ? null : messageOfMap(reply);
  }

  /** How many messages there are. */
  async count(): Promise<number> {
    return await this.#count("LEN");
  }

  /** What the session holds; null where there is none. */
  async info(): Promise<Record<string, unknown> | null> {
    const reply = await this.#ask("INFO");
    return reply == null ? null : r.fields(reply);
  }

  /** Messages by meaning, best first, with so many neighbours to either side. */
  async recall(
    query: string | Vector, options: { count?: number; similarity?: number; roles?: readonly string[]; around?: number } = {},
  ): Promise<{ similarity: number; message: Message; before: Message[]; after: Message[] }[]> {
    if (typeof query === "string" && !this.#o.embed) throw new LlmcacheError("a text needs a session that has `embed`");
    const vector = typeof query === "string" ? await this.#o.embed!(query, { signal: undefined }) : query;
    const reply = await this.#ask("RECALL", arguments_(vector), option("COUNT", options.count),
      option("SIMILARITY", options.similarity), roles(options.roles), option("AROUND", options.around || null));
    return r.list(reply).map((row) => {
      const [similarity, message, before, after] = r.list(row);
      return {
        similarity: r.number(similarity),
        message: messageOf(message),
        before: r.list(before).map(messageOf),
        after: r.list(after).map(messageOf),
      };
    });
  }

  /** The sessions of this session's owner, newest first; `at` is the last append in milliseconds since 1970. */
  async sessions(
    options: { count?: number; beforeMs?: number } = {},
  ): Promise<{ session: string; at: number; messages: number; tokens: number }[]> {
    if (this.#o.owner === undefined) throw new LlmcacheError("the session has no owner");
    const wanted = options.count ?? 100;
    const found: { session: string; at: number; messages: number; tokens: number }[] = [];
    let [before, more] = [options.beforeMs, true];
    while (more && found.length < wanted) {
      more = false;
      const args = words("SESSION.LIST", this.#o.owner, "COUNT", wanted - found.length, option("BEFORE", before));
      for (const row of r.list(await this.link.send(args))) {
        const [session, at, messages, tokens] = r.list(row);
        // Where the server looked at as many as it does at once, it says where the list goes on.
        if (session === null) [before, more] = [r.number(at), true];
        else found.push({ session: r.text(session), at: r.number(at), messages: r.number(messages), tokens: r.number(tokens) });
      }
    }
    return found;
  }

  // Messages that are read while they are written.

  /** Begins a message: its place, the token of its producer, its length. `StreamTaken` where it has another one. */
  async begin(
    role = "assistant",
    options: { id?: string | undefined; leaseMs?: number | undefined; meta?: Record<string, unknown> | undefined; takeover?: boolean | undefined } = {},
  ): Promise<{ seq: number; token: string; offset: number }> {
    const args = words(["SESSION.BEGIN", this.key, role, "ID", options.id ?? randomUUID(), "LEASE", options.leaseMs ?? 30_000],
      option("META", options.meta && JSON.stringify(options.meta)), options.takeover ? "TAKEOVER" : null);
    const [begun] = await this.link.sendAll([
      args,
      ...(this.#o.ttl === undefined ? [] : [words("SESSION.EXPIRE", this.key, "TTL", this.#o.ttl)]),
    ]);
    const [seq, token, offset] = r.list(begun);
    if (token == null) throw new StreamTaken(r.number(seq));
    return { seq: r.number(seq), token: r.text(token), offset: r.number(offset) };
  }

  /** Begins a message and returns its writer. */
  async stream(role = "assistant", options: WriterOptions = {}): Promise<StreamWriter> {
    return new StreamWriter(this.link, this.key, await this.begin(role, options), options);
  }

  /** Writes a whole source as a message; ends it, with `error` where the source throws. True unless it was stopped. */
  async pipe(source: AsyncIterable<Text> | ReadableStream<Text>, role = "assistant", options: WriterOptions = {}): Promise<boolean> {
    const writer = await this.stream(role, options);
    try {
      for await (const part of source as AsyncIterable<Text>) if (!(await writer.write(part))) break;
    } catch (error) {
      await writer.fail(error);
      throw error;
    }
    await writer.end();
    return !writer.stopped;
  }

  /** Ends a message that is being written, from outside; whether it was. Its producer is told at once. */
  async stop(which: number | { id: string }): Promise<boolean> {
    const seq = typeof which === "number" ? which : (await this.get(which))?.seq;
    return seq !== undefined && (await this.#count("STOP", seq)) === 1;
  }

  /**
   * A message in parts, from a byte offset on, as it is written; the last part has the status that it ended with. All
   * readers of a process share one follower: of a message one command waits at the server.
   *
   * `waitMs` is how long to wait for a message that has not begun. Throws `StreamGone` where there is none.
   */
  async *follow(
    which: number | { id: string }, options: { offset?: number; waitMs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Part, void, undefined> {
    yield* Follower.of(this.link).follow(this.key, which, options.offset ?? 0, options.waitMs, options.signal);
  }

  /** The text of a message as it is written: whole characters, whatever parts it came in. */
  async *text(
    which: number | { id: string }, options: { offset?: number; waitMs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<string, void, undefined> {
    for await (const part of this.follow(which, options)) if (part.text) yield part.text;
  }
}
