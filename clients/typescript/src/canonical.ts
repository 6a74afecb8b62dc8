// The hash of a call's input that strict mode compares: of one JSON text (RFC 8785) that all languages make of it.

import { createHash } from "node:crypto";
import * as codec from "./codec.js";
import { SerializationError } from "./errors.js";

/** 16 bytes of what a call was given, in its order. Throws SerializationError naming `what`. */
export function inputHash(inputs: readonly unknown[], what: string): Uint8Array {
  const data = codec.encode(inputs, what);
  try {
    const text = canonical(JSON.parse(Buffer.from(data).toString()));
    return createHash("sha256").update(text).digest().subarray(0, 16);
  } catch (error) {
    if (error instanceof RangeError) throw new SerializationError(`${what} is nested too deep for strict mode`);
    throw error;
  }
}

/** The one JSON text of a value; a number beyond the range of numbers counts as null. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  // Not in the order of an object's members, where those that look like an index come first.
  const members = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join()}}`;
}
