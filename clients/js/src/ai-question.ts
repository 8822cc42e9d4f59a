/**
 * What a call of a language model asks: the question, and everything else that the answer depends on. Pure.
 *
 * The question is the text of the last message of the user. All else is the context: system prompt, earlier turns,
 * tools, settings, and what the last message holds besides text. Two calls share an answer only where that is equal.
 */

import { canonical, context } from "./context.js";

/** What the middleware needs of the parameters of a call. */
export interface CallParams {
  prompt: readonly { role: string; content: unknown }[];
  abortSignal?: AbortSignal | undefined;
  [name: string]: any;
}

// What changes no answer: how it is sent, and who waits for it.
const NOT_ASKED = new Set(["prompt", "abortSignal", "headers", "includeRawChunks"]);

export function question(
  mode: string, params: CallParams, model: { provider: string; modelId: string }, cacheContext: string,
  more: Record<string, unknown> | undefined,
): { prompt: string; context: string; exact: boolean } {
  const last = params.prompt.at(-1);
  const parts = last && Array.isArray(last.content) ? (last.content as { type?: string; text?: string }[]) : [];
  const texts = parts.filter((part) => part.type === "text").map((part) => part.text ?? "");
  const isQuestion = last?.role === "user" && texts.some((text) => text.trim() !== "");
  // In the place of a text its name stands, so that a picture before a text is not the same as one after it.
  const bare = isQuestion
    ? { ...last, content: parts.map((part) => (part.type === "text" ? { ...part, text: null } : part)) }
    : null;
  const settings = Object.fromEntries(Object.entries(params).filter(([name]) => !NOT_ASKED.has(name)));
  return {
    // Of several texts the number of each belongs to the question: "a", "b" is not "a\nb".
    prompt: isQuestion ? texts.join("\n") : canonical(last ?? null),
    context: context({
      version: 1, mode, provider: model.provider, model: model.modelId,
      earlier: params.prompt.slice(0, -1), last: bare, lengths: texts.length > 1 ? texts.map((text) => text.length) : null,
      settings, cacheContext, more,
    }),
    exact: !isQuestion || texts.length > 1,
  };
}
