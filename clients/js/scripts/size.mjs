// What an application bundles of what it imports, minified: each at most 30 KB.

import { build } from "esbuild";

const LIMIT = 30_000;
const ALL = 54_000;
const imports = {
  "LLMCache": `export { LLMCache, context } from "./src/index.ts";`,
  "Session": `export { Session } from "./src/index.ts";`,
  "Documents and Embeddings": `export { Documents, Embeddings } from "./src/index.ts";`,
  "llmcache-client/ai": `export * from "./src/ai.ts";`,
  "llmcache-client/langgraph": `export * from "./src/langgraph.ts";`,
  "llmcache-client/resumable-stream": `export * from "./src/resumable-stream.ts";`,
};
const bundled = async (contents) => {
  const out = await build({
    stdin: { contents, resolveDir: process.cwd(), loader: "ts" },
    bundle: true, minify: true, format: "esm", platform: "node", packages: "external", target: "node20", write: false,
  });
  return out.outputFiles[0].contents.length;
};
let over = 0;
const told = (name, size, limit) => {
  over += size > limit;
  console.log(`${name}: ${size} bytes minified, at most ${limit}`);
};
for (const [name, contents] of Object.entries(imports)) told(name, await bundled(contents), LIMIT);
told("everything", await bundled(Object.values(imports).slice(3).join("\n") + `export * from "./src/index.ts";`), ALL);
process.exit(over ? 1 : 0);
