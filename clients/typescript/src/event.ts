// Events: the one that started a run, the ones it waits for, the ones it sends; and their types.

import { create } from "@bufbuild/protobuf";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import * as codec from "./codec.js";
import { LimitError, SerializationError, UsageError } from "./errors.js";
import type { Payload } from "./v1/common_pb.js";
import { type Event as EventMessage, type NewEvent as NewEventMessage, NewEventSchema } from "./v1/event_pb.js";

/** The name of the event that an invoked function sees; its data is the input. */
const RESERVED = "stepwell/";
export const INVOKED = `${RESERVED}function.invoked`;
export const EVENT_NAME_BYTES_MAX = 256;
const DATE_MS_MAX = 253_402_300_799_999; // the last millisecond of the year 9999

/** An accepted event. An invoked function sees one named "stepwell/function.invoked" whose data is its input. */
export interface Event<T = any> {
  readonly id: string;
  readonly name: string;
  readonly data: T;
  readonly time: Date;
  readonly metadata: Readonly<Record<string, string>>;
  /** The sender's own id, if it gave one. */
  readonly senderId: string;
}

/** An event to send. `id` is the sender's own: the same id within 24 hours is the same event. */
export interface NewEvent {
  readonly name: string;
  readonly data?: object | undefined;
  readonly id?: string | undefined;
  readonly time?: Date | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** A kind of event: its name, and the schema of its data. `In` is what senders give, `Out` what functions get. */
export interface EventType<In = any, Out = In> {
  readonly name: string;
  readonly schema: StandardSchemaV1<In, Out> | undefined;
  /** An event of this type to send, its data checked. */
  with(data: In, options?: Omit<NewEvent, "name" | "data">): NewEvent;
}

/** Declares a kind of event, with a schema of any Standard Schema library, or with a type alone: `event<Order>("…")`. */
export function event<In extends object = any, Out = In>(
  name: string,
  schema?: StandardSchemaV1<In, Out>,
): EventType<In, Out> {
  checkEventName(name, true);
  return {
    name,
    schema,
    with(data, options = {}) {
      if (schema !== undefined) codec.convert(data, schema, `the data of event ${JSON.stringify(name)}`);
      return { ...options, name, data };
    },
  };
}

/** The message of an event to send. Throws UsageError, SerializationError or LimitError. */
export function toMessage(one: NewEvent, maxBytes = 0): NewEventMessage {
  checkEventName(one.name);
  const message = create(NewEventSchema, { name: one.name, id: one.id ?? "", metadata: { ...one.metadata } });
  if (one.data !== undefined && one.data !== null) {
    const what = `the data of event ${JSON.stringify(one.name)}`;
    const data = codec.encode(one.data, what);
    if (data[0] !== 0x7b) throw new UsageError(`${what} must be a JSON object`);
    if (maxBytes && data.byteLength > maxBytes) {
      throw new LimitError(`${what} has ${data.byteLength} bytes; event_bytes is ${maxBytes}`);
    }
    message.data = { $typeName: "stepwell.v1.Payload", data, encoding: "" };
  }
  if (one.time !== undefined) message.timeMs = BigInt(unixMs(one.time, "time"));
  return message;
}

/** Throws UsageError unless the name may stand for an event (or, in a trigger, for a prefix ending in `*`). */
export function checkEventName(name: string, wildcard = false): void {
  if (typeof name !== "string" || name === "") throw new UsageError("an event needs a name");
  if (Buffer.byteLength(name) > EVENT_NAME_BYTES_MAX) {
    throw new UsageError(
      `event name ${JSON.stringify(name.slice(0, 40))}… is longer than ${EVENT_NAME_BYTES_MAX} bytes`,
    );
  }
  if (/[\p{Cc}\p{Cs}]/u.test(name))
    throw new UsageError(`event name ${JSON.stringify(name)} holds a control character`);
  if ((wildcard && name.endsWith("*") ? name.slice(0, -1) : name).includes("*")) {
    const where = wildcard ? "only at its end" : "only in triggers";
    throw new UsageError(`event name ${JSON.stringify(name)}: a wildcard is allowed ${where}`);
  }
}

/** Unix milliseconds of a date. Throws UsageError. */
export function unixMs(date: Date, what: string): number {
  const ms = date instanceof Date ? date.getTime() : Number.NaN;
  if (!(Math.abs(ms) <= DATE_MS_MAX)) throw new UsageError(`${what}: ${String(date)} is no Date`);
  return ms;
}

/** The JSON text of a payload. Throws SerializationError for another encoding. */
export function payloadData(payload: Payload | undefined, what: string): Uint8Array {
  if (payload === undefined) return new Uint8Array();
  if (payload.encoding !== "" && payload.encoding !== "json") {
    throw new SerializationError(`${what} is encoded as "${payload.encoding}"; only json is understood`);
  }
  return payload.data;
}

/** The event that started a run, its data as the schema gives it. */
export function fromMessage(message: EventMessage, schema: StandardSchemaV1 | undefined): Event {
  const what = `the data of event ${JSON.stringify(message.name)}`;
  // An empty payload is an empty object for events, and null for the input of an invoked function.
  const empty = message.name === INVOKED ? null : {};
  return {
    id: message.id,
    name: message.name,
    data: codec.read(payloadData(message.data, what), schema, what, empty),
    time: new Date(Number(message.timeMs)),
    metadata: message.metadata,
    senderId: message.senderId,
  };
}

/** Throws UsageError unless a wait may be for an event of this name: the server's own reach none. */
export function checkAwaited(name: string): void {
  checkEventName(name);
  if (name.startsWith(RESERVED)) {
    throw new UsageError(`event name ${JSON.stringify(name)}: events that begin with ${RESERVED} reach no wait`);
  }
}

/** What stands at a path of the event that started the run, as JSON. Throws UsageError if nothing does. */
export function matchValue(message: EventMessage, path: string): Uint8Array {
  const missing = new UsageError(`match ${JSON.stringify(path)}: the event that started this run holds nothing there`);
  const [head = "", ...rest] = path.split(".");
  let value: unknown;
  if (head === "data") {
    value = codec.read(payloadData(message.data, "the event's data"), undefined, "the event's data", {});
  } else if (head === "time_ms") value = message.timeMs;
  else if (head === "id" || head === "name" || head === "metadata") value = message[head];
  else throw missing;
  for (const part of rest) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, part))
      throw missing;
    value = (value as Record<string, unknown>)[part];
  }
  return codec.encode(value, `match ${path}`);
}

/** The event that a wait was resolved with; null if it timed out (empty data). */
export function fromWait(data: Uint8Array, schema: StandardSchemaV1 | undefined, what: string): Event | null {
  if (data.byteLength === 0) return null;
  const fields = codec.decode(data, what);
  if (typeof fields !== "object" || fields === null) throw new SerializationError(`${what} is no event`);
  const { id, name, data: raw, time_ms, metadata, sender_id } = fields as Record<string, unknown>;
  return {
    id: text(id),
    name: text(name),
    data: schema === undefined ? (raw ?? null) : codec.convert(raw ?? null, schema, what),
    time: new Date(Number(time_ms ?? 0)),
    metadata: (metadata ?? {}) as Record<string, string>,
    senderId: text(sender_id),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
