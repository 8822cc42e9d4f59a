/**
 * resumable-stream's own test cases, unchanged, with ours in the place of its contexts.
 *
 * The cases are not in its package, so they come from its repository at a pinned commit (RESUMABLE_STREAM_REPO names a
 * clone where there is no network), and each file is checked against its sum. `vitest` resolves `..`, `../ioredis` and
 * `../generic` to `ours.ts`; nothing else of it is there.
 *
 *     node suites/resumable-stream/run.mjs      a server at REDIS_URL; ends with 3 where the repository cannot be reached
 */

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const HERE = import.meta.dirname;
const CLIENT = join(HERE, "../..");
const HOME = process.env.LLMCACHE_JS_SUITES ?? join(CLIENT, "../../.servers/js-suites");
const CASES = 84;
// Its clone is small; where there is no network git would try for minutes.
const CLONE_MS = 60_000;
const UNREACHED = 3;
const SUMS = JSON.parse(readFileSync(join(HERE, "files.json"), "utf8"));

function repository() {
  if (process.env.RESUMABLE_STREAM_REPO) return process.env.RESUMABLE_STREAM_REPO;
  const clone = join(HOME, "repository.git");
  if (existsSync(clone)) return clone;
  const from = "https://github.com/vercel/resumable-stream";
  const environment = { ...process.env, GIT_TERMINAL_PROMPT: "0" };
  const done = spawnSync("git", ["clone", "--quiet", "--bare", from, clone], { stdio: "inherit", timeout: CLONE_MS, env: environment });
  if (done.status === 0) return clone;
  rmSync(clone, { recursive: true, force: true });
  console.log(`resumable-stream's own cases are not run: ${from} cannot be reached`);
  process.exit(UNREACHED);
}

const folder = join(HOME, "resumable-stream");
for (const [file, sum] of Object.entries(SUMS.files)) {
  const path = join(folder, file);
  const known = (text) => createHash("sha256").update(text).digest("hex") === sum;
  if (existsSync(path) && known(readFileSync(path))) continue;
  const text = execFileSync("git", ["-C", repository(), "show", `${SUMS.commit}:${file}`]);
  if (!known(text)) throw new Error(`${file} is not what it was at ${SUMS.commit}`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

const report = join(HOME, "report.json");
const done = spawnSync(
  process.execPath,
  [join(CLIENT, "node_modules/vitest/vitest.mjs"), "run", "--config", join(HERE, "vitest.config.ts"), "--root", folder,
    "--retry=1", "--reporter=json", `--outputFile=${report}`, "--silent"],
  { cwd: CLIENT, stdio: "inherit", env: { ...process.env, SUITE_CLIENT: CLIENT } },
);
const { numPassedTests: passed, numFailedTests: failed, testResults } = JSON.parse(readFileSync(report, "utf8"));
for (const file of testResults)
  for (const one of file.assertionResults)
    if (one.status !== "passed") console.log(`${one.status}: ${file.name}: ${one.fullName}: ${one.failureMessages?.[0]?.split("\n")[0]}`);
console.log(`resumable-stream ${SUMS.version}: ${passed} of ${CASES} cases passed, ${failed} failed`);
process.exit(done.status === 0 && passed === CASES ? 0 : 1);
