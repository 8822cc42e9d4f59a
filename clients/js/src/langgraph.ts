/**
 * A checkpoint saver for LangGraph.js.
 *
 * Of a thread each namespace is one session, all in the hash slot of the thread: a message for a checkpoint (its id,
 * role `c`), one for each version of a channel's value (`v:<version>:<channel>`, role `v`), so that what did not change
 * is stored once, and one for the writes of each task (`<checkpoint>:<task>`, role `w`). A sorted set lists the thread's
 * sessions. Each session has one deadline, which every step of the thread moves.
 */

import { createHash } from "node:crypto";
import {
  BaseCheckpointSaver, type ChannelVersions, type Checkpoint, type CheckpointListOptions, type CheckpointMetadata, type CheckpointPendingWrite,
  type CheckpointTuple, type PendingWrite, type SerializerProtocol, TASKS, WRITES_IDX_MAP, compareWritesSortKeys,
  copyCheckpoint, getCheckpointId, maxChannelVersion, writesSortKey,
} from "@langchain/langgraph-checkpoint";
import type { RedisClient } from "./drivers.js";
import { LlmcacheError } from "./errors.js";
import { type Link, type LinkOptions, linkOf } from "./link.js";
import * as r from "./replies.js";
import { words } from "./replies.js";
import { type Message, type NewMessage, Session } from "./session.js";

type Config = Parameters<BaseCheckpointSaver["getTuple"]>[0];

/** Options of the saver. */
export interface LlmcacheSaverOptions extends LinkOptions {
  /** Before the names of all keys; default `checkpoint`. */
  prefix?: string;
  /** Seconds that a thread is kept after its last step; default for ever. */
  ttl?: number;
  serde?: SerializerProtocol;
}

/** A part of a payload: how it is serialised, and its bytes. */
type Blob = readonly [type: string, data: Uint8Array];

interface Header {
  parent?: string | undefined;
  checkpoint?: string;
  task?: string;
  path?: string;
  /** Of each write its place and its channel. */
  writes?: [idx: number, channel: string][];
  blobs: [type: string, size: number][];
}

const PAGE = 200;
const ID_BYTES = 128;

/** A header of JSON and blobs as one payload. */
function pack(header: Omit<Header, "blobs">, blobs: readonly Blob[]): Buffer {
  const head = Buffer.from(JSON.stringify({ ...header, blobs: blobs.map(([type, data]) => [type, data.length]) }));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(head.length);
  return Buffer.concat([size, head, ...blobs.map(([, data]) => data)]);
}

function unpack(payload: Buffer): { header: Header; blobs: Blob[] } {
  const end = 4 + payload.readUInt32LE(0);
  const header = JSON.parse(payload.subarray(4, end).toString()) as Header;
  let at = end;
  const blobs = header.blobs.map(([type, size]): Blob => [type, payload.subarray(at, (at += size))]);
  return { header, blobs };
}

/** An id that the server takes: the text itself where it is short. */
const short = (id: string): string =>
  Buffer.byteLength(id) <= ID_BYTES ? id : createHash("sha256").update(id).digest("hex");

const quote = encodeURIComponent;
const row = (role: string, id: string, content: Buffer): NewMessage => ({ role, id, content, tokens: 0 });
const valueId = (channel: string, version: string | number): string => short(`v:${version}:${channel}`);

/** Keeps checkpoints of graphs in sessions. Sessions are data: an `allkeys-*` policy may evict threads. */
export class LlmcacheSaver extends BaseCheckpointSaver {
  readonly #link: Link;
  readonly #prefix: string;
  readonly #ttl: number | undefined;

  constructor(
    private readonly client: RedisClient,
    options: LlmcacheSaverOptions = {},
  ) {
    super(options.serde);
    this.#link = linkOf(client, options);
    this.#prefix = options.prefix ?? "checkpoint";
    this.#ttl = options.ttl;
  }

  #owner(thread: string): string {
    return `${this.#prefix}:{${quote(thread)}}`;
  }

  #session(thread: string, namespace: string): Session {
    return this.#at(`${this.#owner(thread)}:${quote(namespace)}`, this.#owner(thread));
  }

  #at(key: string, owner: string): Session {
    return new Session(this.client, key, { owner, ...(this.#ttl !== undefined && { ttl: this.#ttl }) });
  }

  async #append(session: Session, thread: string, messages: NewMessage[]): Promise<void> {
    await session.append(messages, { upsert: true });
    if (this.#ttl !== undefined) await this.#link.send(words("EXPIRE", this.#owner(thread), this.#ttl));
  }

  override async put(config: Config, checkpoint: Checkpoint, metadata: CheckpointMetadata, newVersions: ChannelVersions): Promise<Config> {
    const { thread, namespace, id: parent } = placed(config, "a checkpoint belongs");
    const { channel_values: values, ...bare } = copyCheckpoint(checkpoint);
    const rows: NewMessage[] = [];
    for (const [channel, version] of Object.entries(newVersions))
      if (channel in values)
        rows.push(row("v", valueId(channel, version), pack({}, [await this.serde.dumpsTyped(values[channel])])));
    const blobs = await Promise.all([this.serde.dumpsTyped(bare), this.serde.dumpsTyped(metadata)]);
    // The checkpoint is the last: who sees it finds its values.
    rows.push(row("c", short(checkpoint.id), pack({ parent, checkpoint: checkpoint.id }, blobs)));
    await this.#append(this.#session(thread, namespace), thread, rows);
    return { configurable: { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: checkpoint.id } };
  }

  override async putWrites(config: Config, writes: PendingWrite[], taskId: string, taskPath = ""): Promise<void> {
    const { thread, namespace, id: checkpoint } = placed(config, "writes belong");
    if (checkpoint === undefined) throw new LlmcacheError('writes belong to a checkpoint: "checkpoint_id" is missing');
    const session = this.#session(thread, namespace);
    const id = short(`${checkpoint}:${taskId}`);
    const kept = new Map<number, { channel: string; blob: Blob }>();
    const before = await session.get({ id });
    if (before) {
      const { header, blobs } = unpack(before.body);
      header.writes!.forEach(([idx, channel], at) => kept.set(idx, { channel, blob: blobs[at]! }));
    }
    for (const [at, [channel, value]] of writes.entries()) {
      const idx = WRITES_IDX_MAP[channel] ?? at;
      // What a task wrote stays when it is run again; errors and interrupts are told anew.
      if (idx >= 0 && before && kept.has(idx)) continue;
      kept.set(idx, { channel, blob: await this.serde.dumpsTyped(value) });
    }
    const header = { checkpoint, task: taskId, path: taskPath, writes: [...kept].map(([idx, { channel }]): [number, string] => [idx, channel]) };
    await this.#append(session, thread, [row("w", id, pack(header, [...kept.values()].map(({ blob }) => blob)))]);
  }

  override async getTuple(config: Config): Promise<CheckpointTuple | undefined> {
    const thread = config.configurable?.["thread_id"] as string | undefined;
    if (thread === undefined) return undefined;
    const session = this.#session(thread, (config.configurable?.["checkpoint_ns"] as string | undefined) ?? "");
    const id = getCheckpointId(config);
    const found = id
      ? await session.get({ id: short(id) })
      : (await session.messages("-", "+", { reverse: true, count: 1, roles: ["c"] }))[0];
    if (!found || found.role !== "c") return undefined;
    const { header } = unpack(found.body);
    // The writes of a parent of before version 4 are its children's sends.
    const from = header.parent === undefined ? found.seq : Math.min(found.seq, (await session.get({ id: short(header.parent) }))?.seq ?? found.seq);
    const writes = await this.#writes(session, from);
    return this.#tuple(session, thread, config, found, writes);
  }

  /** The writes of all checkpoints from a place on, by checkpoint. */
  async #writes(session: Session, from: number): Promise<Map<string, Message[]>> {
    const found = new Map<string, Message[]>();
    for (let at: number | "-" = from; ; ) {
      const page: Message[] = await session.messages(at, "+", { roles: ["w"], count: PAGE });
      for (const message of page) {
        const of = unpack(message.body).header.checkpoint!;
        found.set(of, [...(found.get(of) ?? []), message]);
      }
      if (page.length < PAGE) return found;
      at = page.at(-1)!.seq + 1;
    }
  }

  /** The values of a checkpoint's channels, those of versions that are there. */
  async #values(session: Session, versions: ChannelVersions): Promise<Record<string, unknown>> {
    const found: Record<string, unknown> = {};
    await Promise.all(
      Object.entries(versions).map(async ([channel, version]) => {
        const value = await session.get({ id: valueId(channel, version) });
        if (value) found[channel] = await this.#loaded(unpack(value.body).blobs[0]!);
      }),
    );
    return found;
  }

  async #tuple(session: Session, thread: string, config: Config, message: Message, writes: Map<string, Message[]>): Promise<CheckpointTuple> {
    const { header, blobs } = unpack(message.body);
    const namespace = (config.configurable?.["checkpoint_ns"] as string | undefined) ?? "";
    const at = (id: string) => ({ configurable: { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: id } });
    const bare = (await this.#loaded(blobs[0]!)) as Omit<Checkpoint, "channel_values">;
    const checkpoint: Checkpoint = { ...bare, channel_values: await this.#values(session, bare.channel_versions ?? {}) };
    if (checkpoint.v < 4 && header.parent !== undefined) {
      const sends = (await this.#pending(writes.get(header.parent))).filter(([, channel]) => channel === TASKS);
      checkpoint.channel_values = { ...checkpoint.channel_values, [TASKS]: sends.map(([, , value]) => value) };
      const versions = Object.values(checkpoint.channel_versions ?? {});
      const version = versions.length ? maxChannelVersion(...versions) : this.getNextVersion(undefined);
      checkpoint.channel_versions = { ...checkpoint.channel_versions, [TASKS]: version };
    }
    return {
      config: getCheckpointId(config) ? config : at(header.checkpoint!),
      checkpoint,
      metadata: (await this.#loaded(blobs[1]!)) as CheckpointMetadata,
      pendingWrites: await this.#pending(writes.get(header.checkpoint!)),
      ...(header.parent !== undefined && { parentConfig: at(header.parent) }),
    };
  }

  #loaded([type, data]: Blob): Promise<unknown> {
    return this.serde.loadsTyped(type, data);
  }

  /** Writes in the order in which a step applies them. */
  async #pending(messages: Message[] = []): Promise<CheckpointPendingWrite[]> {
    const all = messages.flatMap((message) => {
      const { header, blobs } = unpack(message.body);
      return header.writes!.map(([idx, channel], at) => ({
        key: writesSortKey(header.path ?? "", header.task!, idx), task: header.task!, channel, blob: blobs[at]!,
      }));
    });
    all.sort((a, b) => compareWritesSortKeys(a.key, b.key));
    return Promise.all(all.map(async ({ task, channel, blob }): Promise<CheckpointPendingWrite> => [task, channel, await this.#loaded(blob)]));
  }

  override async *list(config: Config, options: CheckpointListOptions = {}): AsyncGenerator<CheckpointTuple> {
    const { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: only } = (config.configurable ?? {}) as Record<string, string | undefined>;
    const before = options.before?.configurable?.["checkpoint_id"] as string | undefined;
    let left = options.limit ?? Infinity;
    for await (const key of thread === undefined ? this.#all() : this.#of(thread)) {
      const [ofThread, ofNamespace] = this.#named(key);
      if (namespace !== undefined && namespace !== ofNamespace) continue;
      const session = this.#at(key, this.#owner(ofThread));
      let writes: Map<string, Message[]> | null = null;
      const found = await this.#checkpoints(session);
      for (const { id, message } of found) {
        if ((only && id !== only) || (before && id >= before)) continue;
        if (options.filter) {
          const metadata = (await this.#loaded(unpack(message.body).blobs[1]!)) as Record<string, unknown>;
          if (!Object.entries(options.filter).every(([name, value]) => metadata[name] === value)) continue;
        }
        if (left-- <= 0) return;
        writes ??= await this.#writes(session, 1);
        yield await this.#tuple(session, ofThread, { configurable: { thread_id: ofThread, checkpoint_ns: ofNamespace, checkpoint_id: id } }, message, writes);
      }
    }
  }

  /** All checkpoints of a session, the newest first. */
  async #checkpoints(session: Session): Promise<{ id: string; message: Message }[]> {
    const found: { id: string; message: Message }[] = [];
    for (let at: number | "-" = "-"; ; ) {
      const page: Message[] = await session.messages(at, "+", { roles: ["c"], count: PAGE });
      for (const message of page) found.push({ id: unpack(message.body).header.checkpoint!, message });
      if (page.length < PAGE) break;
      at = page.at(-1)!.seq + 1;
    }
    return found.sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  #named(key: string): [string, string] {
    const [thread = "", namespace = ""] = key.slice(this.#prefix.length + 2).split("}:");
    return [decodeURIComponent(thread), decodeURIComponent(namespace)];
  }

  async *#of(thread: string): AsyncGenerator<string> {
    for (const key of r.list(await this.#link.send(["ZRANGE", this.#owner(thread), "0", "-1"]))) yield r.text(key);
  }

  /** The sessions of all threads, by SCAN: of one server only. */
  async *#all(): AsyncGenerator<string> {
    if (this.#link.isCluster) throw new LlmcacheError("in a cluster checkpoints are listed by thread");
    const seen = new Set<string>();
    const pattern = `${this.#prefix.replace(/[*?[\]\\]/g, "\\$&")}:{*}:*`;
    let cursor = "0";
    do {
      const [next, page] = r.list(await this.#link.send(["SCAN", cursor, "MATCH", pattern, "COUNT", "1000", "TYPE", "llm-sessn"]));
      for (const key of r.list(page).map(r.text)) if (!seen.has(key)) yield (seen.add(key), key);
      cursor = r.text(next);
    } while (cursor !== "0");
  }

  override async deleteThread(thread: string): Promise<void> {
    const keys: string[] = [];
    for await (const key of this.#of(thread)) keys.push(key);
    await this.#link.send(["UNLINK", this.#owner(thread), ...keys]);
  }
}

function placed(config: Config, what: string): { thread: string; namespace: string; id: string | undefined } {
  const { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: id } = (config.configurable ?? {}) as Record<string, string | undefined>;
  if (thread === undefined) throw new LlmcacheError(`${what} to a thread: "thread_id" is missing in "configurable"`);
  return { thread: String(thread), namespace: namespace ?? "", id };
}
