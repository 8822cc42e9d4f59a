/**
 * The interface of the package `resumable-stream` over streamed messages: a stream that outlives its reader, and its
 * producer's connection to the reader.
 *
 * Each stream is one session with one message. The text is kept by the server while it is written and for `ttl` after,
 * so a reader needs nothing of the process that produces it; pub/sub carries nothing.
 */

import type { RedisClient } from "./drivers.js";
import { LlmcacheError, StreamAbandoned, StreamTaken } from "./errors.js";
import type { LinkOptions } from "./link.js";
import { Session } from "./session.js";
import type { StreamWriter } from "./writer.js";

/** Options of a context. */
export interface CreateResumableStreamContextOptions extends LinkOptions {
  /** Before the names of all keys; default `resumable-stream`. */
  keyPrefix?: string;
  /** Keeps the process alive until a promise has settled: `after` of Next.js, `waitUntil` of others; null for none. */
  waitUntil: ((promise: Promise<unknown>) => void) | null;
  /** A client of node-redis or ioredis. Without one, one is made from REDIS_URL or KV_URL. */
  client?: RedisClient | undefined;
  /** Taken as `client` where that is not given, so that existing calls go on working. */
  publisher?: unknown;
  /** Not needed: readers do not subscribe. */
  subscriber?: unknown;
  /** Seconds that a stream can be read after it was last written to; default a day. */
  ttl?: number;
  /** Whether a stream that has ended is returned from its beginning instead of null; default false. */
  replayFinished?: boolean;
  /** Milliseconds after which a silent producer is taken for dead; default 30,000. */
  leaseMs?: number;
}

/** What `createNewResumableStream` and `resumableStream` take besides. */
export interface NewStreamOptions {
  /** Told when the stream was stopped by `stop`: end the model call. */
  onStop?: () => void;
}

/** Streams by their ids. */
export interface ResumableStreamContext {
  /** The stream of this id: made by `makeStream` where there is none, else what it has after `skipCharacters`; null where it has ended. */
  resumableStream(id: string, makeStream: () => ReadableStream<string>, skipCharacters?: number, options?: NewStreamOptions): Promise<ReadableStream<string> | null>;
  /** Makes the stream, in the place of one of the same id. */
  createNewResumableStream(id: string, makeStream: () => ReadableStream<string>, skipCharacters?: number, options?: NewStreamOptions): Promise<ReadableStream<string> | null>;
  /** What the stream has after `skipCharacters`, as it is written; null where it has ended, undefined where there is none. */
  resumeExistingStream(id: string, skipCharacters?: number): Promise<ReadableStream<string> | null | undefined>;
  /** null, true, or "DONE". */
  hasExistingStream(id: string): Promise<null | true | "DONE">;
  /** Ends a stream from outside; whether it was being written. Its producer stops reading its source within a second. */
  stop(id: string): Promise<boolean>;
}

const MESSAGE = "stream";
const DAY = 86_400;

async function fromEnvironment(): Promise<RedisClient> {
  const url = process.env["REDIS_URL"] ?? process.env["KV_URL"];
  if (!url) throw new LlmcacheError("give a client, or set REDIS_URL");
  const [redis, ioredis] = ["redis", "ioredis"];
  let library: any;
  try {
    library = await import(redis!);
  } catch {
    library = await import(ioredis!);
    return new library.Redis(url) as RedisClient;
  }
  const client = library.createClient({ url });
  client.on("error", () => {});
  await client.connect();
  return client as RedisClient;
}

/** A context of resumable streams. */
export function createResumableStreamContext(options: CreateResumableStreamContextOptions): ResumableStreamContext {
  const given = (options.client ?? options.publisher) as any;
  if (given && typeof given.sendCommand !== "function" && typeof given.callBuffer !== "function")
    throw new LlmcacheError("a client of node-redis or ioredis is needed: pub/sub alone cannot send commands");
  let client: Promise<RedisClient> | null = null;
  const connected = async (): Promise<RedisClient> => {
    // As the other package does: a client of node-redis that was not connected is.
    if (given && given.isOpen === false && typeof given.connect === "function") await given.connect();
    return given as RedisClient;
  };
  const keep = options.waitUntil ?? (() => {});
  const sessionOf = async (id: string): Promise<Session> => {
    client ??= given ? connected() : fromEnvironment();
    client.catch(() => (client = null));
    const { ttl = DAY, lanes, commandMs } = options;
    const key = `${options.keyPrefix ?? "resumable-stream"}:rs:${id}`;
    return new Session(await client, key, { ttl, ...(lanes && { lanes }), ...(commandMs && { commandMs }) });
  };

  const produce = (writer: StreamWriter, makeStream: () => ReadableStream<string>, more: NewStreamOptions) => {
    let finished!: () => void;
    keep(new Promise<void>((resolve) => (finished = resolve)));
    return new ReadableStream<string>({
      start(controller) {
        void pump(writer, makeStream, controller, more).finally(finished);
      },
    });
  };

  const begin = (session: Session, takeover = false) =>
    session.stream("assistant", { id: MESSAGE, leaseMs: options.leaseMs, takeover });

  const resume = (session: Session, status: string, skip: number): ReadableStream<string> | null =>
    isOver(status) && !options.replayFinished ? null : reading(session, skip);

  return {
    async resumableStream(id, makeStream, skipCharacters = 0, more = {}) {
      const session = await sessionOf(id);
      try {
        // One that its producer left is begun again: what is made now need not begin as that did.
        const writer = await begin(session, true);
        if (writer.offset === 0) return produce(writer, makeStream, more);
        writer.leave();
        return produce(await anew(session, begin), makeStream, more);
      } catch (error) {
        if (!(error instanceof StreamTaken)) throw error;
      }
      const found = await session.get(1);
      return found ? resume(session, found.status, skipCharacters) : null;
    },
    async createNewResumableStream(id, makeStream, _skipCharacters, more = {}) {
      return produce(await anew(await sessionOf(id), begin), makeStream, more);
    },
    async resumeExistingStream(id, skipCharacters = 0) {
      const session = await sessionOf(id);
      const found = await session.get(1);
      return found === null ? undefined : resume(session, found.status, skipCharacters);
    },
    async hasExistingStream(id) {
      const found = await (await sessionOf(id)).get(1);
      return found === null ? null : isOver(found.status) ? "DONE" : true;
    },
    async stop(id) {
      return (await sessionOf(id)).stop(1);
    },
  };
}

const isOver = (status: string): boolean => status !== "open" && status !== "abandoned";

/** A stream in the place of what there is. */
async function anew(session: Session, begin: (session: Session) => Promise<StreamWriter>): Promise<StreamWriter> {
  await session.drop();
  return begin(session);
}

/** Reads the source to its end, for the server and for the reader that is here, who may go: the source is read on. */
async function pump(
  writer: StreamWriter, makeStream: () => ReadableStream<string>,
  controller: ReadableStreamDefaultController<string>, more: NewStreamOptions,
): Promise<void> {
  const here = (act: () => void) => {
    try {
      act();
    } catch {
      // The reader that was here has gone.
    }
  };
  let reader: ReadableStreamDefaultReader<string> | null = null;
  let lost = false;
  const stop = () => {
    more.onStop?.();
    reader?.cancel().catch(() => {});
  };
  try {
    reader = makeStream().getReader();
    writer.signal.addEventListener("abort", () => writer.stopped && stop(), { once: true });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      here(() => controller.enqueue(value));
      // Not awaited: the reader that is here gets its text at once. The first failure is what ends writing.
      if (!lost && !writer.stopped)
        writer.write(value).catch((error: unknown) => {
          if (!lost) console.warn(`llmcache: a stream cannot be resumed any more: ${String(error)}`);
          lost = true;
        });
    }
    // Ended there first: who sees the end here finds it ended.
    await writer.end().catch((error: unknown) => {
      if (!lost && !writer.stopped) console.warn(`llmcache: a stream was not ended: ${String(error)}`);
    });
    here(() => controller.close());
  } catch (error) {
    await writer.fail(error);
    here(() => controller.error(error));
  }
}

/** The text after so many UTF-16 units, as it is written. */
function reading(session: Session, skip: number): ReadableStream<string> {
  const gone = new AbortController();
  const parts = session.follow(1, { signal: gone.signal });
  let left = skip;
  return new ReadableStream<string>({
    async pull(controller) {
      try {
        for (;;) {
          const { value: part, done } = await parts.next();
          if (done) return controller.close();
          const text = part.text.slice(left);
          left = Math.max(0, left - part.text.length);
          if (text) controller.enqueue(text);
          if (part.status === "abandoned")
            return controller.error(new StreamAbandoned("the producer of the stream went away"));
          if (text) return;
        }
      } catch (error) {
        if (!gone.signal.aborted) controller.error(error);
      }
    },
    async cancel() {
      gone.abort();
      await parts.return().catch(() => {});
    },
  });
}

