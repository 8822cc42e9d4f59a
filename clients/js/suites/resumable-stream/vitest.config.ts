import { join, resolve } from "node:path";
import { defineConfig } from "vitest/config";

const client = process.env["SUITE_CLIENT"]!;
const ours = join(client, "suites/resumable-stream/ours.ts");

export default defineConfig({
  plugins: [
    {
      name: "ours-for-theirs",
      enforce: "pre",
      resolveId(id: string, importer: string | undefined) {
        if (!importer?.includes("__tests__")) return null;
        if ([".", "..", "../", "../ioredis"].includes(id)) return ours;
        // A context that has to be given its clients, as theirs of this name.
        return id === "../generic" ? join(client, "suites/resumable-stream/ours-generic.ts") : null;
      },
    },
  ],
  resolve: { alias: ["redis", "ioredis"].map((find) => ({ find, replacement: resolve(client, "node_modules", find) })) },
  server: { fs: { strict: false } },
  test: { globals: true, include: ["**/*.test.ts"], maxWorkers: 1 },
});
