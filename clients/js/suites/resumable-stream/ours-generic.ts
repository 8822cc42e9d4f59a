import type { CreateResumableStreamContextOptions } from "../../src/resumable-stream.js";
import { createResumableStreamContext as any } from "./ours.js";

export function createResumableStreamContext(options: CreateResumableStreamContextOptions) {
  if (!options.publisher) throw new Error("a publisher is needed");
  return any(options);
}
