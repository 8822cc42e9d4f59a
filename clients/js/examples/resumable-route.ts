/** As with the package `resumable-stream`: only the import differs, and the client that it is given. */

import type { RedisClient } from "llmcache-client";
import { createResumableStreamContext } from "llmcache-client/resumable-stream";

export function routes(client: RedisClient, makeStream: () => ReadableStream<string>) {
  const context = createResumableStreamContext({ waitUntil: null, client, replayFinished: true });
  const headers = { "content-type": "text/event-stream" };

  async function POST(request: Request): Promise<Response> {
    const { streamId } = (await request.json()) as { streamId: string };
    const stream = await context.createNewResumableStream(streamId, makeStream);
    return new Response(stream?.pipeThrough(new TextEncoderStream()), { headers });
  }

  async function GET(request: Request): Promise<Response> {
    const { searchParams } = new URL(request.url);
    const stream = await context.resumeExistingStream(searchParams.get("id") ?? "", Number(searchParams.get("skip") ?? 0));
    if (!stream) return new Response("there is no such stream", { status: 404 });
    return new Response(stream.pipeThrough(new TextEncoderStream()), { headers });
  }
  return { POST, GET };
}
