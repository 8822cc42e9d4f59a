/**
 * One class for each word by which the server begins an error, and what follows from it.
 *
 * Owns: the words, which of them are refusals (the caller may go on without the cache), which pass by themselves
 * (the same command may be sent again), and how an error of node-redis or ioredis is told. Touches no network.
 */

/** Whatever this package throws by itself. */
export class LlmcacheError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An error that the server answered. `word` is its first word. */
export class ServerError extends LlmcacheError {
  readonly word: string;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.word = /^[A-Z]+/.exec(message)?.[0] ?? "ERR";
  }
}

/** The vector cannot be read: wrong length, not finite, or of norm zero. */
export class BadVector extends ServerError {}
/** The vector has another dimension than what the container holds. */
export class DimMismatch extends ServerError {}
/** The vectors held are of another embedding model. */
export class ModelMismatch extends ServerError {}
/** There is no such container, and nothing makes it. */
export class NoCache extends ServerError {}
/** The FILTER expression cannot be read; the message names the place. */
export class BadFilter extends ServerError {}
/** The entry is larger than its container may be. */
export class TooBig extends ServerError {}
/** Somebody else has the lease, or what it was for was invalidated. */
export class LeaseLost extends ServerError {}
/** The key holds something else. */
export class WrongType extends ServerError {}
/** Keys of one command are in different hash slots. */
export class CrossSlot extends ServerError {}
/** The user may not do this. */
export class NoPermission extends ServerError {}
/** The server has no room for this now; the same command may be sent again. */
export class Busy extends ServerError {}
/** The slot is moving; the same command may be sent again. */
export class TryAgain extends ServerError {}
/** The server is above its maxmemory. */
export class OutOfMemory extends ServerError {}
/** The server answers, and cannot serve: loading, read only, its cluster down, its disk full. */
export class Unavailable extends ServerError {}

/** The server could not be reached, or did not answer in time; `cause` is the error of the client library. */
export class ServerAway extends LlmcacheError {}

/** Somebody else made this answer a moment ago and failed. */
export class MakingFailed extends LlmcacheError {
  constructor(
    message: string,
    readonly retryMs: number,
  ) {
    super(message || "making the answer failed a moment ago");
  }
}

/** Making answers of this scope fails again and again, and rests. */
export class BreakerOpen extends LlmcacheError {
  constructor(readonly retryMs: number) {
    super(`the scope's breaker is open for ${retryMs} ms`);
  }
}

/** There is no such message, or no such session, any more. */
export class StreamGone extends LlmcacheError {}

/** The producer of the message went away without ending it; what it wrote can be read. */
export class StreamAbandoned extends LlmcacheError {}

/** The message has another producer, or has ended: it may be read at `seq`. */
export class StreamTaken extends LlmcacheError {
  constructor(readonly seq: number) {
    super(`message ${seq} has another producer, or has ended`);
  }
}

type Kind = new (message: string, options?: ErrorOptions) => ServerError;

const BY_WORD: Record<string, Kind> = {
  BADVECTOR: BadVector,
  DIMMISMATCH: DimMismatch,
  MODELMISMATCH: ModelMismatch,
  NOCACHE: NoCache,
  BADFILTER: BadFilter,
  TOOBIG: TooBig,
  LEASELOST: LeaseLost,
  WRONGTYPE: WrongType,
  CROSSSLOT: CrossSlot,
  NOPERM: NoPermission,
  BUSY: Busy,
  TRYAGAIN: TryAgain,
  OOM: OutOfMemory,
};
for (const word of ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS", "NOAUTH", "UNBLOCKED"])
  BY_WORD[word] = Unavailable;

/** What a cache may fail with while its caller is right: he goes on without it. */
const REFUSALS = [Busy, TryAgain, OutOfMemory, TooBig, NoPermission, Unavailable];

// The classes of both libraries for an error that the server answered.
const REPLY_ERRORS = new Set(["ErrorReply", "SimpleError", "BlobError", "ReplyError"]);

function isReply(error: Error): boolean {
  // A bundler may have renamed the classes.
  const word = /^([A-Z]+) /.exec(error.message)?.[1];
  if (word !== undefined && (word === "ERR" || word in BY_WORD)) return true;
  for (let at: unknown = error; at instanceof Error; at = Object.getPrototypeOf(at))
    if (REPLY_ERRORS.has(at.constructor.name) || REPLY_ERRORS.has(at.name)) return true;
  return false;
}

/** The error of this package for one of a client library; mistakes in the arguments as they are. */
export function told(error: unknown): Error {
  if (error instanceof LlmcacheError) return error;
  if (!(error instanceof Error)) return new ServerAway(String(error));
  if (isReply(error)) {
    const word = /^[A-Z]+/.exec(error.message)?.[0] ?? "";
    return new (BY_WORD[word] ?? ServerError)(error.message, { cause: error });
  }
  if (error instanceof TypeError || error instanceof RangeError) return error;
  return new ServerAway(`the server cannot be reached: ${error.message}`, { cause: error });
}

/** Whether the server is away or refuses, as against a mistake of the caller. */
export function isOutage(error: unknown): boolean {
  return error instanceof ServerAway || REFUSALS.some((kind) => error instanceof kind);
}

/** Whether nothing was changed and the same command may be sent again. */
export function isPassing(error: unknown): boolean {
  return error instanceof Busy || error instanceof TryAgain;
}
