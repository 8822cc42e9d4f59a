/**
 * Route handlers of a chat, as Next.js has them: an answer that is cached for all who ask the same, that survives a
 * reload of the page, and that can be stopped.
 *
 *   app/api/chat/route.ts          export const { POST } = routes(…)
 *   app/api/chat/[id]/route.ts     export const { GET, DELETE } = routes(…)
 */

import { type LanguageModel, type UIMessage, convertToModelMessages, streamText, wrapLanguageModel } from "ai";
import { LLMCache, type Embed, type RedisClient } from "llmcache-client";
import { ChatStore, cacheMiddleware, chatHandlers } from "llmcache-client/ai";

export function routes(redis: RedisClient, model: Exclude<LanguageModel, string>, embed: Embed) {
  const chats = new ChatStore<UIMessage>(redis, { ttl: 30 * 86_400 });
  const cache = new LLMCache(redis, "chat-answers", { embed, ttl: 86_400 });
  const cached = wrapLanguageModel({ model: model as never, middleware: cacheMiddleware({ cache, version: "v3" }) });

  async function POST(request: Request): Promise<Response> {
    const { id, message } = (await request.json()) as { id: string; message: UIMessage };
    await chats.append(id, [message]);
    const messages = await chats.load(id);
    const stop = new AbortController();
    const result = streamText({
      model: cached,
      system: "Answer briefly.",
      messages: await convertToModelMessages(messages),
      // Not the request's own signal: a reader that goes is no stop.
      abortSignal: stop.signal,
    });
    return result.toUIMessageStreamResponse({
      originalMessages: messages,
      generateMessageId: () => crypto.randomUUID(),
      onFinish: ({ responseMessage }) => chats.append(id, [responseMessage]),
      consumeSseStream: ({ stream }) => chats.record(id, stream, { onStop: () => stop.abort() }),
    });
  }

  // Check here that the chat belongs to who asks.
  const { GET, DELETE } = chatHandlers(chats, (request) => new URL(request.url).pathname.split("/").at(-1) ?? null);
  return { POST, GET, DELETE, chats };
}
