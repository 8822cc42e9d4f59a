/** The examples and the pages: each is run, with a model that is none. */

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { simulateReadableStream } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, it } from "vitest";
import { routes as chatRoutes } from "../examples/chat-route.js";
import { routes as resumableRoutes } from "../examples/resumable-route.js";
import { routes as streamRoutes } from "../examples/stream-route.js";
import { type Made, Server, clientOf, near, sleep, until } from "./harness.js";

const CLIENT = resolve(import.meta.dirname, "..");
let server: Server;
let made: Made;
beforeAll(async () => {
  server = await new Server().start();
  made = await clientOf("node-redis resp3", server.port);
});
afterAll(async () => {
  made.end();
  await server.stop();
});

const finish = {
  type: "finish" as const, finishReason: { unified: "stop" as const, raw: "stop" },
  usage: { inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 }, outputTokens: { total: 1, text: 1, reasoning: 0 } },
};

it("chat-route: answers, resumes after a reload, stops, and answers the next chat from the cache", async () => {
  let calls = 0;
  let aborted = false;
  const model = new MockLanguageModelV3({
    doStream: async ({ abortSignal, prompt }) => {
      calls++;
      abortSignal?.addEventListener("abort", () => (aborted = true));
      const endless = JSON.stringify(prompt).includes("endless");
      const deltas = ["Within ", "5 days 👋"].map((delta) => ({ type: "text-delta" as const, id: "1", delta }));
      const chunks = [{ type: "stream-start" as const, warnings: [] }, { type: "text-start" as const, id: "1" }, ...deltas,
        { type: "text-end" as const, id: "1" }, finish];
      const stream = endless
        ? new ReadableStream({
            start(controller) {
              chunks.slice(0, 3).forEach((chunk) => controller.enqueue(chunk));
              abortSignal?.addEventListener("abort", () => controller.error(abortSignal.reason));
            },
          })
        : simulateReadableStream({ chunks, initialDelayInMs: null, chunkDelayInMs: 5 });
      return { stream: stream as ReadableStream<any> };
    },
  });
  const { POST, GET, DELETE, chats } = chatRoutes(made.client, model, (text) => near(text.length % 8));
  const post = (id: string, text: string) =>
    POST(new Request("http://x/api/chat", { method: "POST", body: JSON.stringify({ id, message: { id: `${id}-1`, role: "user", parts: [{ type: "text", text }] } }) }));

  const first = await (await post("c1", "How long?")).text();
  expect(first).toContain("5 days 👋");
  await until(async () => (await chats.load("c1")).length === 2, "the answer is kept");
  const second = await (await post("c2", "How long?")).text();
  expect(second).toContain("5 days 👋");
  expect(calls).toBe(1);

  void post("c3", "endless").then((response) => response.text()).catch(() => {});
  const resumed = await until(async () => {
    const response = await GET(new Request("http://x/api/chat/c3"));
    return response.status === 200 ? response : null;
  }, "it is being written");
  const reader = resumed.body!.pipeThrough(new TextDecoderStream()).getReader();
  let body = "";
  const more = async () => ((body += (await reader.read()).value ?? ""), body);
  await until(async () => (await more()).includes("Within "), "it is read");
  expect((await DELETE(new Request("http://x/api/chat/c3", { method: "DELETE" }))).status).toBe(204);
  for (let over = false; !over; ) over = (await reader.read()).done;
  await until(() => aborted, "the model call is ended");
  expect((await GET(new Request("http://x/api/chat/c3"))).status).toBe(204);
});

it("stream-route: a reader that leaves goes on from its last event", async () => {
  const words = ["Grü", "ße ", "👋 ", "und ", "Ende"];
  async function* model() {
    for (const word of words) {
      yield word;
      await sleep(30);
    }
  }
  const { POST, GET, DELETE } = streamRoutes(made.client, model);
  const begun = await POST(new Request("http://x", { method: "POST", body: JSON.stringify({ chat: "1", question: "q" }) }));
  const { id } = (await begun.json()) as { id: string };
  const url = `http://x/?chat=1&id=${id}`;
  let [text, last, status] = ["", "0", "text"];
  for (let reads = 0; status === "text"; reads++) {
    expect(reads).toBeLessThan(20);
    const response = await GET(new Request(url, { headers: { "last-event-id": last } }));
    const reader = response.body!.getReader();
    const { value } = await reader.read(); // one event, then it leaves
    await reader.cancel();
    const event = Buffer.from(value!).toString();
    last = /^id: (\d+)/m.exec(event)![1]!;
    status = /^event: (\w+)/m.exec(event)![1]!;
    text += JSON.parse(/^data: (.*)/m.exec(event)![1]!);
  }
  expect([text, status]).toEqual([words.join(""), "done"]);
  expect((await DELETE(new Request(url, { method: "DELETE" }))).status).toBe(404);
  expect(await (await GET(new Request("http://x/?chat=1&id=none"))).text()).toContain("event: gone");
}, 60_000);

it("resumable-route: as with resumable-stream, and the finished one again", async () => {
  const text = "eins zwei 👋 drei";
  const { POST, GET } = resumableRoutes(made.client, () => new ReadableStream({ start: (c) => (text.split(" ").forEach((word, at) => c.enqueue((at ? " " : "") + word)), c.close()) }));
  expect(await (await POST(new Request("http://x", { method: "POST", body: JSON.stringify({ streamId: "s1" }) }))).text()).toBe(text);
  expect(await (await GET(new Request("http://x/?id=s1&skip=5"))).text()).toBe(text.slice(5));
  expect((await GET(new Request("http://x/?id=none"))).status).toBe(404);
});

/** The `ts` blocks of a page, in their order, are one program. */
const programOf = (page: string) => [...readFileSync(page, "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map((block) => block[1]).join("\n");

const PAGES = [
  { page: "clients/js/README.md", says: ["An answer to: How do I get my money back?", "1\nWithin 5 days."] },
  { page: "docs/javascript.md", says: ["the page has run"] },
];

it.each(PAGES)("the TypeScript of $page is typed and runs", async ({ page, says }) => {
  const folder = mkdtempSync(join(CLIENT, "node_modules/.page-"));
  try {
    const program = programOf(resolve(CLIENT, "../..", page));
    expect(program.length).toBeGreaterThan(500);
    writeFileSync(join(folder, "page.ts"), program);
    const paths = { "llmcache-client": ["../../src/index.ts"], "llmcache-client/*": ["../../src/*.ts"] };
    mkdirSync(join(folder, "types"));
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({
      extends: "../../test/tsconfig.json", compilerOptions: { rootDir: "../..", paths }, include: ["page.ts"],
    }));
    const typed = spawnSync(process.execPath, [join(CLIENT, "node_modules/typescript/bin/tsc"), "-p", folder], { encoding: "utf8" });
    expect(typed.stdout).toBe("");
    await build({
      entryPoints: [join(folder, "page.ts")], outfile: join(folder, "page.mjs"), bundle: true, format: "esm", platform: "node",
      packages: "external", alias: Object.fromEntries(["/ai", "/documents", "/embeddings", "/langgraph", "/resumable-stream", ""].map((entry) =>
        [`llmcache-client${entry}`, join(CLIENT, `src${entry || "/index"}.ts`)])),
      logLevel: "silent",
    });
    const run = spawnSync(process.execPath, [join(folder, "page.mjs")], {
      encoding: "utf8", timeout: 60_000, env: { ...process.env, REDIS_URL: `redis://127.0.0.1:${server.port}` },
    });
    expect(run.status, run.stderr).toBe(0);
    for (const line of says) expect(run.stdout).toContain(line);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
