import { defineConfig } from "vitest/config";

const src = (name: string) => new URL(`./src/${name}.ts`, import.meta.url).pathname;

export default defineConfig({
  resolve: {
    // The examples import this package by its name.
    alias: [
      { find: /^llmcache-client$/, replacement: src("index") },
      { find: /^llmcache-client\/ai$/, replacement: src("ai") },
      { find: /^llmcache-client\/documents$/, replacement: src("documents") },
      { find: /^llmcache-client\/embeddings$/, replacement: src("embeddings") },
      { find: /^llmcache-client\/resumable-stream$/, replacement: src("resumable-stream") },
    ],
  },
  test: {
    include: ["test/**/*.test.ts"],
    // The validation of savers looks for them there.
    globals: true,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Each file starts servers of its own; more of them at once would only wait for each other.
    maxWorkers: 2,
    pool: "forks",
  },
});
