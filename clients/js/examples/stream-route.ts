/** A stream that survives a reload, without an SDK: `POST` begins it, `GET` reads it on from where a reader was. */

import { type RedisClient, Session, StreamGone } from "llmcache-client";

export function routes(redis: RedisClient, model: (question: string) => AsyncIterable<string>) {
  async function POST(request: Request): Promise<Response> {
    const { chat, question } = (await request.json()) as { chat: string; question: string };
    const session = new Session(redis, `chat:${chat}`, { ttl: 86_400 });
    const id = crypto.randomUUID();
    await session.append({ role: "user", content: question });
    // Goes on whoever reads; a platform that suspends handlers takes the promise by `waitUntil`.
    session.pipe(model(question), "assistant", { id }).catch(console.error);
    return Response.json({ id });
  }

  /** Events with their end as id: a browser's EventSource sends the last one back when it connects again. */
  async function GET(request: Request): Promise<Response> {
    const { searchParams } = new URL(request.url);
    const session = new Session(redis, `chat:${searchParams.get("chat")}`);
    const offset = Number(request.headers.get("last-event-id") ?? 0);
    const parts = session.follow({ id: searchParams.get("id") ?? "" }, { offset, waitMs: 5_000, signal: request.signal });
    const events = new ReadableStream<string>({
      async pull(controller) {
        try {
          const { value, done } = await parts.next();
          if (done) return controller.close();
          const event = value.status === "open" ? "text" : value.status;
          controller.enqueue(`id: ${value.offset}\nevent: ${event}\ndata: ${JSON.stringify(value.text)}\n\n`);
        } catch (error) {
          if (error instanceof StreamGone) controller.enqueue("event: gone\ndata: null\n\n");
          controller.close();
        }
      },
      cancel: () => void parts.return(),
    });
    return new Response(events.pipeThrough(new TextEncoderStream()), { headers: { "content-type": "text/event-stream" } });
  }

  async function DELETE(request: Request): Promise<Response> {
    const { searchParams } = new URL(request.url);
    const stopped = await new Session(redis, `chat:${searchParams.get("chat")}`).stop({ id: searchParams.get("id") ?? "" });
    return new Response(null, { status: stopped ? 204 : 404 });
  }
  return { POST, GET, DELETE };
}
