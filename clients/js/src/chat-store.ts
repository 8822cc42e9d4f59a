/** Chats of the AI SDK: their messages in a session each, and the answer that is being written, which can be resumed. */

import type { RedisClient } from "./drivers.js";
import { type ResumableStreamContext, createResumableStreamContext } from "./resumable-stream.js";
import { Session } from "./session.js";

/** What a message of the interface has in every version: an id, a role, parts. */
export interface ChatMessage {
  id: string;
  role: string;
}

/** Options of a store of chats. */
export interface ChatStoreOptions {
  /** Before the names of all keys; default `chat`. */
  prefix?: string;
  /** Seconds that a chat is kept after its last message; default for ever. */
  ttl?: number;
  /** Seconds that an answer that was written can be resumed; default an hour. */
  streamTtl?: number;
  /** Milliseconds after which a silent producer is taken for dead; default 30,000. */
  leaseMs?: number;
  /** Keeps the process alive until a promise has settled: `after` of Next.js. */
  waitUntil?: (promise: Promise<unknown>) => void;
}

// What the SDK's clients read, and proxies between must not hold back.
const HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  "x-vercel-ai-ui-message-stream": "v1",
  "x-accel-buffering": "no",
};

export class ChatStore<M extends ChatMessage = ChatMessage> {
  readonly #streams: ResumableStreamContext;

  constructor(
    private readonly client: RedisClient,
    private readonly options: ChatStoreOptions = {},
  ) {
    this.#streams = createResumableStreamContext({
      client, waitUntil: options.waitUntil ?? null, keyPrefix: options.prefix ?? "chat", ttl: options.streamTtl ?? 3_600,
      ...(options.leaseMs && { leaseMs: options.leaseMs }),
    });
  }

  /** The session that holds a chat. */
  session(id: string): Session {
    const { prefix = "chat", ttl } = this.options;
    return new Session(this.client, `${prefix}:${id}`, ttl === undefined ? {} : { ttl });
  }

  /** The messages of a chat, oldest first; none where there is no such chat. */
  async load(id: string): Promise<M[]> {
    return (await this.session(id).messages()).map((message) => JSON.parse(message.content) as M);
  }

  /** Makes these the messages of a chat, in one step up to 1,024 of them. */
  async save(id: string, messages: readonly M[]): Promise<void> {
    if (messages.length) await this.session(id).append(messages.map(row), { replace: true });
    else await this.session(id).drop();
  }

  /** Adds messages; one whose id is there replaces that one where it stands. */
  async append(id: string, messages: readonly M[]): Promise<void> {
    if (messages.length) await this.session(id).append(messages.map(row), { upsert: true });
  }

  /** Removes a chat, and the answer that is being written; whether there was one. */
  async delete(id: string): Promise<boolean> {
    await this.#streams.stop(id);
    return this.session(id).drop();
  }

  /**
   * Keeps an answer while it is written, so that it can be resumed: for `consumeSseStream`. `onStop` is told when it was
   * stopped: abort the model call there.
   */
  async record(id: string, stream: ReadableStream<string>, options: { onStop?: () => void } = {}): Promise<void> {
    const here = await this.#streams.createNewResumableStream(id, () => stream, 0, options);
    for await (const _ of here as unknown as AsyncIterable<string>);
  }

  /** The answer that is being written, from its beginning; null where none is. */
  async resume(id: string): Promise<ReadableStream<string> | null> {
    return (await this.#streams.resumeExistingStream(id)) ?? null;
  }

  /** Stops the answer that is being written; whether there was one. */
  async stop(id: string): Promise<boolean> {
    return this.#streams.stop(id);
  }
}

const row = (message: ChatMessage) => ({ role: message.role, content: JSON.stringify(message), id: message.id });

/**
 * Two route handlers of a chat: `GET` resumes the answer that is being written (204 where none is), `DELETE` stops it.
 * `idOf` tells the chat of a request, and is where its right to it is checked: throw, or return null for 404.
 */
export function chatHandlers(
  chats: ChatStore<any>, idOf: (request: Request) => string | null | Promise<string | null>,
): { GET(request: Request): Promise<Response>; DELETE(request: Request): Promise<Response> } {
  const absent = () => new Response(null, { status: 404 });
  return {
    async GET(request) {
      const id = await idOf(request);
      if (id === null) return absent();
      const stream = await chats.resume(id);
      return stream
        ? new Response(stream.pipeThrough(new TextEncoderStream()), { headers: HEADERS })
        : new Response(null, { status: 204 });
    },
    async DELETE(request) {
      const id = await idOf(request);
      if (id === null) return absent();
      return new Response(null, { status: (await chats.stop(id)) ? 204 : 404 });
    },
  };
}

