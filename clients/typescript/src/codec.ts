// The JSON codec: any value out, and back in; checked by a schema where one is given.
//
// Whole numbers keep their value: what a JavaScript number cannot hold exactly (beyond ±(2^53 − 1)) comes in as a bigint,
// and a bigint goes out as digits. A number that is no safe integer is a float, and goes out as one: 1e17 as 1e+17.

import type { StandardSchemaV1 } from "@standard-schema/spec";
import { parse } from "lossless-json";
import { SerializationError, StepwellError, UsageError } from "./errors.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LONG_INTEGER = /\d{16}/;
const INTEGER = /^-?\d+$/;

/** JSON text in UTF-8; undefined counts as null. Throws SerializationError naming `what` and the place in the value. */
export function encode(value: unknown, what: string): Uint8Array {
  const place: (string | number)[] = [];
  try {
    return encoder.encode(write(value, place) ?? "null");
  } catch (error) {
    const at = place.length > 0 ? ` at ${place.slice(0, 20).join(".")}` : "";
    if (error instanceof NoJson) throw new SerializationError(`${what}${at}: ${error.message}`);
    if (error instanceof RangeError) throw new SerializationError(`${what} is nested too deep, or holds itself`);
    throw new SerializationError(`${what}${at} has no JSON form`, { cause: error });
  }
}

/** The value behind JSON text. Throws SerializationError. */
export function decode(data: Uint8Array, what: string): unknown {
  try {
    const text = decoder.decode(data);
    return LONG_INTEGER.test(text)
      ? parse(text, undefined, { parseNumber, onDuplicateKey: ({ newValue }) => newValue })
      : JSON.parse(text);
  } catch (error) {
    throw new SerializationError(`${what} is not valid JSON: ${error instanceof Error ? error.message : ""}`);
  }
}

/** A value that a schema accepts, as the schema gives it. Throws SerializationError naming the path that does not fit. */
export function convert<T>(raw: unknown, schema: StandardSchemaV1<unknown, T>, what: string): T {
  let result: StandardSchemaV1.Result<T> | Promise<StandardSchemaV1.Result<T>>;
  try {
    result = schema["~standard"].validate(raw);
  } catch (error) {
    if (error instanceof StepwellError) throw error;
    throw new SerializationError(`${what} was refused by its schema`, { cause: error });
  }
  if (result instanceof Promise) {
    result.catch(() => undefined);
    throw new UsageError(`${what}: its schema is asynchronous, or it threw; Stepwell needs one that does neither`);
  }
  if (result.issues !== undefined) {
    throw new SerializationError(`${what} does not fit its schema: ${result.issues.map(issueText).join("; ")}`);
  }
  return result.value;
}

/** JSON text as the value that a schema makes of it; without a schema as it is. Empty data stands for `empty`. */
export function read(
  data: Uint8Array,
  schema: StandardSchemaV1 | undefined,
  what: string,
  empty: unknown = null,
): unknown {
  const raw = data.byteLength === 0 ? empty : decode(data, what);
  return schema === undefined ? raw : convert(raw, schema, what);
}

function issueText(issue: StandardSchemaV1.Issue): string {
  const path = issue.path?.map((part) => String(typeof part === "object" ? part.key : part)).join(".");
  return path ? `${path}: ${issue.message}` : issue.message;
}

function parseNumber(text: string): number | bigint {
  const number = Number(text);
  return Number.isSafeInteger(number) || !INTEGER.test(text) ? number : BigInt(text);
}

class NoJson extends Error {}

/** JSON text of a value; undefined for undefined, which JSON has not. `place` is where in the value it stands. */
function write(value: unknown, place: (string | number)[]): string | undefined {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "number":
      return writeNumber(value);
    case "boolean":
      return value ? "true" : "false";
    case "bigint":
      return value.toString();
    case "undefined":
      return undefined;
    case "object":
      return value === null ? "null" : writeObject(value, place);
    default:
      throw new NoJson(`a ${typeof value} has no JSON form`);
  }
}

function writeNumber(value: number): string {
  if (!Number.isFinite(value)) throw new NoJson(`${value} has no JSON form`);
  if (Object.is(value, -0)) return "-0.0"; // which JSON.stringify takes for 0
  // Digits alone would come back as a bigint.
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : JSON.stringify(value);
}

function writeObject(value: object, place: (string | number)[]): string | undefined {
  if (Array.isArray(value)) return writeArray(value, place);
  if (value instanceof Uint8Array) {
    return `"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64")}"`;
  }
  if (value instanceof Date && Number.isNaN(value.getTime())) throw new NoJson("an invalid Date has no JSON form");
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return write((value.toJSON as (key: string) => unknown)(""), place);
  }
  if (REFUSED.some((kind) => value instanceof kind) || ArrayBuffer.isView(value)) {
    throw new NoJson(`a ${value.constructor.name} has no JSON form`);
  }
  const members: string[] = [];
  for (const [name, member] of Object.entries(value)) {
    place.push(name);
    const text = write(member, place);
    place.pop();
    if (text !== undefined) members.push(`${JSON.stringify(name)}:${text}`);
  }
  return `{${members.join()}}`;
}

function writeArray(value: readonly unknown[], place: (string | number)[]): string {
  const items: string[] = [];
  for (let index = 0; index < value.length; index += 1) {
    place.push(index);
    items.push(write(value[index], place) ?? "null");
    place.pop();
  }
  return `[${items.join()}]`;
}

/** JSON.stringify would make `{}` of them, and so lose what they hold. */
const REFUSED: readonly (abstract new (...args: never[]) => object)[] = [
  Map,
  Set,
  WeakMap,
  WeakSet,
  Promise,
  RegExp,
  Error,
  ArrayBuffer,
];
