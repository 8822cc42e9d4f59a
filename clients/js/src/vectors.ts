/** Vectors as people hold them, turned into the blobs that commands take. Pure. */

import { type Argument, raw } from "./replies.js";

/** A vector: Float32Array, other numbers, or a blob of little-endian float32. */
export type Vector = Float32Array | Float64Array | readonly number[] | Buffer;

const BIG = new Uint8Array(new Uint16Array([1]).buffer)[0] === 0;

/** The vector as a blob of little-endian float32. */
export function blob(vector: Vector): Buffer {
  if (Buffer.isBuffer(vector)) return vector;
  // A copy: the command may be written after the caller has changed its array.
  const packed = Buffer.from(Float32Array.from(vector as ArrayLike<number>).buffer);
  return BIG ? packed.swap32() : packed;
}

/** The vector as arguments of a command; none for none. */
export function arguments_(vector: Vector | null | undefined): Argument[] {
  return vector == null ? [] : ["FP32", blob(vector)];
}

/** The numbers of a blob of little-endian float32. */
export function floats(data: Uint8Array): Float32Array {
  const own = Buffer.from(raw(data));
  if (BIG) own.swap32();
  const aligned = new Uint8Array(own.length);
  aligned.set(own);
  return new Float32Array(aligned.buffer);
}
