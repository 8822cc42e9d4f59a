// A process that leads and never ends: killed by a test.
import { createClient } from "redis";

const [port, name] = process.argv.slice(2);
const client = createClient({ RESP: 2, socket: { port: Number(port), host: "127.0.0.1" } });
await client.connect();
const told = await client.sendCommand(["LLMCACHE.FETCH", name, "PROMPT", "q", "LEASE", "1500"]);
process.send(told[1]);
setInterval(() => {}, 1_000);
