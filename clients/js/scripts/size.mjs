// What an application bundles of what it imports, minified: each entry, with all that it exports, at most 30 KB.

import { build } from "esbuild";

const LIMIT = 30_000;
const imports = {
  "LLMCache": `export { LLMCache, context } from "./src/index.ts";`,
  "Session": `export { Session } from "./src/index.ts";`,
  "llmcache-client, all of it": `export * from "./src/index.ts";`,
  "llmcache-client/documents": `export * from "./src/documents.ts";`,
  "llmcache-client/embeddings": `export * from "./src/embeddings.ts";`,
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
for (const [name, contents] of Object.entries(imports)) {
  const size = await bundled(contents);
  over += size > LIMIT;
  console.log(`${name}: ${size} bytes minified, at most ${LIMIT}`);
}
process.exit(over ? 1 : 0);
