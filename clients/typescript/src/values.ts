// What the server says of events, functions, runs and workers, as plain values.

import * as codec from "./codec.js";
import type { Event } from "./event.js";
import { type Worker } from "./v1/admin_pb.js";
import type { Failure, Payload } from "./v1/common_pb.js";
import {
  type Event as EventMessage,
  type EventStatus as EventStatusMessage,
  EventStatus_Outcome,
} from "./v1/event_pb.js";
import type { Function as FunctionMessage } from "./v1/function_pb.js";
import {
  type FailureGroup as FailureGroupMessage,
  type JournalEntry as JournalEntryMessage,
  type ListFailuresResponse,
  PausedReason,
  type Run as RunMessage,
  RunStatus as RunStatusMessage,
  type WaitingFor as WaitingForMessage,
  WaitingFor_Kind,
} from "./v1/run_pb.js";

/** Where a run stands. */
export type RunStatus = Exclude<keyof typeof RunStatusMessage, "UNSPECIFIED"> | "UNKNOWN";

const ENDS: ReadonlySet<RunStatus> = new Set(["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "SKIPPED"]);

/** Whether a run in this status will not change any more. */
export function hasEnded(status: RunStatus): boolean {
  return ENDS.has(status);
}

/** The status from the wire; UNKNOWN for one that this version of the library does not know. */
export function statusOf(status: RunStatusMessage): RunStatus {
  const name = RunStatusMessage[status] as keyof typeof RunStatusMessage | undefined;
  return name === undefined || name === "UNSPECIFIED" ? "UNKNOWN" : name;
}

/** What became of one event of a batch. `eventId` names the stored event; for a duplicate, the earlier one. */
export interface EventStatus {
  readonly eventId: string;
  readonly outcome: "ACCEPTED" | "DUPLICATE" | "REFUSED" | "UNSPECIFIED";
  readonly reason: string;
  readonly message: string;
}

/** An event as the server keeps it, and the runs that it started, if it was asked for by its id. */
export interface StoredEvent {
  readonly event: Event;
  readonly accepted: Date;
  readonly runIds: readonly string[];
}

/** A registered function. `workers` counts the connected ones that serve it. */
export interface FunctionInfo {
  readonly id: string;
  readonly app: string;
  readonly deployment: string;
  readonly name: string;
  readonly triggers: readonly { readonly event: string; readonly if: string }[];
  readonly workers: number;
  readonly strict: boolean;
  /** The time-outs of its runs; undefined: none. */
  readonly timeoutMs: number | undefined;
  readonly startTimeoutMs: number | undefined;
  /** In words, which condition took more than its budget at which event; empty if none did. */
  readonly unjudged: string;
  /** The JSON Schemas of input and output; undefined where the function says nothing of them. */
  readonly inputSchema: unknown;
  readonly outputSchema: unknown;
}

/** What went wrong, in whatever language. `reason` is set where Stepwell made the failure. */
export interface FailureInfo {
  readonly type: string;
  readonly message: string;
  readonly reason: string;
  readonly stack: string;
  readonly nonRetriable: boolean;
  readonly details: unknown;
  readonly cause: FailureInfo | undefined;
}

/** One thing that a run waits for. */
export interface WaitingFor {
  readonly kind: keyof typeof WaitingFor_Kind;
  readonly message: string;
  readonly key: string;
  readonly event: string;
  readonly match: string;
  readonly until: Date | undefined;
  readonly runId: string;
  /** The event after which a wait stopped looking back, if there were too many. */
  readonly cutAfter: string;
}

/** A run. `output` is decoded JSON, once COMPLETED; `waitingFor` is filled where one run was asked for. */
export interface Run {
  readonly id: string;
  readonly functionId: string;
  readonly status: RunStatus;
  readonly ended: boolean;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly pausedReason: string;
  readonly eventId: string;
  readonly parentRunId: string;
  readonly parentKey: string;
  readonly deployment: string;
  readonly turn: number;
  readonly cancelRequested: boolean;
  readonly output: any;
  readonly failure: FailureInfo | undefined;
  readonly waitingFor: readonly WaitingFor[];
  /** When its time-out will be over, where one run was asked for. */
  readonly deadline: Date | undefined;
}

/**
 * Runs of one function that failed in the same way; `runId` is the last one. In `message` stands a placeholder for what
 * differs from run to run; `frame` is the place in the user's code as "function (file)", `key` the step that it came from.
 */
export interface FailureGroup {
  readonly fingerprint: string;
  readonly functionId: string;
  readonly statuses: readonly RunStatus[];
  readonly count: number;
  readonly firstSeen: Date;
  readonly lastSeen: Date;
  readonly runId: string;
  readonly type: string;
  readonly reason: string;
  readonly message: string;
  readonly frame: string;
  readonly key: string;
}

/** Failures among the runs looked at, those seen last first. */
export interface FailurePage {
  readonly groups: readonly FailureGroup[];
  /** Empty where all runs were looked at. */
  readonly nextPageToken: string;
  readonly scanned: number;
  /** No run with an older id was looked at; undefined where all were. */
  readonly scannedTo: Date | undefined;
}

/** One entry of a run's journal. `number` is its place in what the code saw; 0 while it has not seen it. */
export interface JournalEntry {
  readonly key: string;
  readonly kind: string;
  readonly target: string;
  readonly number: number;
  readonly attempt: number;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly until: Date | undefined;
  readonly output: unknown;
  readonly failure: FailureInfo | undefined;
  readonly runId: string;
}

/** A run as it is now, and the journal entries that are new or changed. */
export interface RunChange {
  readonly run: Run;
  readonly entries: readonly JournalEntry[];
}

/** A worker's session. */
export interface WorkerInfo {
  readonly sessionId: string;
  readonly app: string;
  readonly deployment: string;
  readonly instance: string;
  readonly sdk: string;
  readonly connected: boolean;
  readonly draining: boolean;
  readonly capacity: number;
  readonly executing: number;
  readonly parked: number;
  readonly openedAt: Date;
  readonly functionIds: readonly string[];
  /** Time since the server heard of it. */
  readonly silentMs: number;
}

/** Where a dev server's clock stopped. `complete` is false if the deadline came first. */
export interface ClockAdvance {
  readonly now: Date;
  readonly offsetMs: number;
  readonly complete: boolean;
  readonly fired: number;
}

/** What a server is. */
export interface ServerInfo {
  readonly version: string;
  readonly profile: string;
  readonly defaultEnvironment: string;
  readonly database: string;
  readonly now: Date;
}

export function eventStatusOf({ eventId, outcome, reason, message }: EventStatusMessage): EventStatus {
  const name = EventStatus_Outcome[outcome] as EventStatus["outcome"] | undefined;
  return { eventId, outcome: name ?? "UNSPECIFIED", reason, message };
}

export function storedEventOf(message: EventMessage | undefined, runIds: readonly string[] = []): StoredEvent {
  const { id = "", name = "", data, timeMs = 0n, acceptedMs = 0n, metadata = {}, senderId = "" } = message ?? {};
  const event: Event = {
    id,
    name,
    data: valueOf(data, `the data of event ${id}`) ?? {},
    time: timeOf(timeMs),
    metadata,
    senderId,
  };
  return { event, accepted: timeOf(acceptedMs), runIds };
}

export function functionOf({ id, app, deployment, spec, workers, unjudged }: FunctionMessage): FunctionInfo {
  const triggers = (spec?.triggers ?? []).map(({ event, condition }) => ({ event, if: condition }));
  return {
    id,
    app,
    deployment,
    name: spec?.name ?? "",
    triggers,
    workers,
    strict: spec?.strict ?? false,
    timeoutMs: Number(spec?.timeoutMs ?? 0n) || undefined,
    startTimeoutMs: Number(spec?.startTimeoutMs ?? 0n) || undefined,
    unjudged,
    inputSchema: schemaOf(spec?.inputSchema),
    outputSchema: schemaOf(spec?.outputSchema),
  };
}

function schemaOf(text: Uint8Array | undefined): unknown {
  return text?.length ? codec.decode(text, "a schema") : undefined;
}

export function failureOf(message: Failure | undefined): FailureInfo | undefined {
  if (message === undefined) return undefined;
  const { type, message: text, reason, stack, nonRetriable, details, cause } = message;
  const read = valueOf(details, "the details of a failure");
  return { type, message: text, reason, stack, nonRetriable, details: read, cause: failureOf(cause) };
}

export function waitingForOf(waiting: WaitingForMessage): WaitingFor {
  const { kind, message, key, event, match, untilMs, runId, cutAfter } = waiting;
  const name = (WaitingFor_Kind[kind] as WaitingFor["kind"] | undefined) ?? "UNSPECIFIED";
  return { kind: name, message, key, event, match, until: whenOf(untilMs), runId, cutAfter };
}

export function runOf(message: RunMessage, waitingFor: readonly WaitingForMessage[] = []): Run {
  const { id, functionId, eventId, parentRunId, parentKey, deployment, turn, cancelRequested } = message;
  const status = statusOf(message.status);
  const paused = PausedReason[message.pausedReason];
  return {
    id,
    functionId,
    status,
    ended: hasEnded(status),
    createdAt: timeOf(message.createdMs),
    startedAt: whenOf(message.startedMs),
    endedAt: whenOf(message.endedMs),
    pausedReason: paused === undefined || paused === "UNSPECIFIED" ? "" : paused,
    eventId,
    parentRunId,
    parentKey,
    deployment,
    turn,
    cancelRequested,
    output: valueOf(message.output, `the output of ${id}`),
    failure: failureOf(message.failure),
    waitingFor: waitingFor.map(waitingForOf),
    deadline: whenOf(message.deadlineMs),
  };
}

export function failurePageOf({ groups, nextPageToken, scanned, scannedToMs }: ListFailuresResponse): FailurePage {
  return { groups: groups.map(failureGroupOf), nextPageToken, scanned, scannedTo: whenOf(scannedToMs) };
}

function failureGroupOf(message: FailureGroupMessage): FailureGroup {
  const { fingerprint, functionId, runId, type, reason, message: text, frame, key } = message;
  return {
    fingerprint,
    functionId,
    statuses: message.statuses.map(statusOf),
    count: Number(message.count),
    firstSeen: timeOf(message.firstSeenMs),
    lastSeen: timeOf(message.lastSeenMs),
    runId,
    type,
    reason,
    message: text,
    frame,
    key,
  };
}

export function journalEntryOf(message: JournalEntryMessage): JournalEntry {
  const { key, kind, target, attempt, runId } = message;
  return {
    key,
    kind,
    target,
    number: Number(message.number),
    attempt,
    startedAt: whenOf(message.startedMs),
    endedAt: whenOf(message.endedMs),
    until: whenOf(message.untilMs),
    output: valueOf(message.output, `the result of ${key}`),
    failure: failureOf(message.failure),
    runId,
  };
}

export function workerOf(message: Worker): WorkerInfo {
  const { $typeName: _, $unknown: __, openedMs, silentMs, ...rest } = message;
  return { ...rest, openedAt: timeOf(openedMs), silentMs: Number(silentMs) };
}

export function timeOf(ms: bigint): Date {
  return new Date(Number(ms));
}

function whenOf(ms: bigint): Date | undefined {
  return ms === 0n ? undefined : timeOf(ms);
}

/** Decoded JSON; the bytes themselves if another encoding was used. */
function valueOf(payload: Payload | undefined, what: string): unknown {
  if (payload === undefined || payload.data.byteLength === 0) return null;
  return payload.encoding === "" || payload.encoding === "json" ? codec.decode(payload.data, what) : payload.data;
}
