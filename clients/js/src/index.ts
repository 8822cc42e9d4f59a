/** `llmcache-client`: typed commands of llmcache over node-redis or ioredis. */

export { type Fetched, type Hit, type CacheOptions, type Conditions, type Embed, type Stored, type Where } from "./cache.js";
export { canonical, context } from "./context.js";
export type { IoRedisLike, NodeRedisLike, RedisClient } from "./drivers.js";
export * from "./errors.js";
export type { Part } from "./follower.js";
export { type LinkOptions } from "./link.js";
export { type Acquired, type Answer, LLMCache, type MakeOptions, Making } from "./making.js";
export type { Text } from "./replies.js";
export { type Message, type NewMessage, Session, type SessionOptions, type WindowQuery } from "./session.js";
export type { Vector } from "./vectors.js";
export { type EndOptions, StreamWriter, type WriterOptions } from "./writer.js";

import type { RedisClient } from "./drivers.js";
import { Link } from "./link.js";

/**
 * Closes the connections that this package opened beside a client; never the client. Not needed before the process ends:
 * connections that idle do not keep it alive, and are closed after a while.
 */
export function close(client: RedisClient): void {
  Link.of(client).close();
}
