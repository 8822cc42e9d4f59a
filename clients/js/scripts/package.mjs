/**
 * The package as a new user gets it: packed, judged by publint and arethetypeswrong, installed into an empty project
 * with each library, its types checked there by strict TypeScript, and the README's program run.
 *
 *     node scripts/package.mjs      a server at REDIS_URL
 */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const CLIENT = resolve(import.meta.dirname, "..");
const bin = (name) => join(CLIENT, "node_modules/.bin", name);
const run = (command, args, options = {}) =>
  execFileSync(command, args, { cwd: CLIENT, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], ...options });

const folder = mkdtempSync(join(tmpdir(), "llmcache-package-"));
try {
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", folder]).replace(/^[^[]*(?=\[\s*\{)/, ""));
  const tarball = join(folder, filename);
  const wrong = files.map((file) => file.path).filter((path) => !/^(dist\/|README\.md$|LICENSE-|package\.json$)/.test(path));
  if (wrong.length) throw new Error(`the package holds ${wrong.join()}`);
  console.log(`${filename}: ${files.length} files`);
  run(bin("publint"), ["run", tarball, "--strict"], { stdio: "inherit" });
  run(bin("attw"), [tarball, "--profile", "esm-only"], { stdio: "inherit" });

  const project = join(folder, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }));
  const versions = JSON.parse(readFileSync(join(CLIENT, "package.json"), "utf8")).devDependencies;
  const needed = ["redis", "typescript", "@types/node"].map((name) => `${name}@${versions[name]}`);
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", tarball, ...needed], { cwd: project });
  if (existsSync(join(project, "node_modules/ioredis"))) throw new Error("an optional peer was installed");
  const program = /^```ts\n(.*?)^```/ms.exec(readFileSync(join(CLIENT, "README.md"), "utf8"))[1];
  writeFileSync(join(project, "program.ts"), program);
  run(process.execPath, ["node_modules/typescript/bin/tsc", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node", "program.ts"], { cwd: project });
  const said = run(process.execPath, ["program.js"], { cwd: project, timeout: 60_000 });
  const expected = "An answer to: How do I get my money back?\nAn answer to: How do I get my money back?\n1\nWithin 5 days.\n";
  if (said !== expected) throw new Error(`the README's program said:\n${said}`);
  console.log("installed into an empty project: the README's program is typed and runs");
} finally {
  rmSync(folder, { recursive: true, force: true });
}
