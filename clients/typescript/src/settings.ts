// Settings of clients and workers: the only reader of the environment variables STEPWELL_*.

import { hostname } from "node:os";
import { parseAddresses } from "./addresses.js";
import { type Duration } from "./duration.js";
import { UsageError, durationMs } from "./errors.js";
import { type Labels, labelsOf } from "./flow.js";
import type { Tracer } from "./trace.js";

const CAPACITY_MAX = 100_000;
/** A server takes up a session of at most both together. */
const PARKED_MAX = 50_000;
const DEFAULT_ADDRESS = "127.0.0.1:7777";

/**
 * The server's address: as given, else STEPWELL_ADDRESS, else 127.0.0.1:7777. "https://" in front asks for TLS. Several, with
 * commas between them, are nodes of one server. Throws UsageError for what is none.
 */
export function resolveAddress(given: string | undefined): string {
  const address = given || process.env["STEPWELL_ADDRESS"] || DEFAULT_ADDRESS;
  parseAddresses(address);
  return address;
}

/** The environment: as given, else STEPWELL_ENVIRONMENT, else empty, which is the server's default. */
export function resolveEnvironment(given: string | undefined): string {
  return given ?? process.env["STEPWELL_ENVIRONMENT"] ?? "";
}

/** How a worker process behaves. */
export interface WorkerOptions {
  /** "host:port", or several with commas between them: the first is drawn, the next is tried when one fails or drains. */
  readonly address?: string;
  readonly environment?: string;
  /** The id of this build; by default a hash of the registration and of the app's sources. */
  readonly deployment?: string;
  /** The name of this process, for people; by default host and process id. */
  readonly instance?: string;
  /** Runs that execute at once; parked runs do not count. 500 by default. */
  readonly capacity?: number;
  /** Parked runs kept in memory; the longest parked beyond that are given back. 1,000 by default. */
  readonly maxParked?: number;
  /** After a stop signal, how long executing bodies may take to finish; "30s" by default. */
  readonly drain?: Duration;
  /** What this worker is, for functions that ask for it; else STEPWELL_LABELS, for example "gpu=a100,region=eu". */
  readonly labels?: Labels;
  /** Makes spans of what the worker executes: `tracing()` of "stepwell/tracing". Nothing is traced without it. */
  readonly tracer?: Tracer;
  /** Where the worker writes what it has to say; stderr by default. */
  readonly log?: Log;
}

/** What the worker writes its messages to; `console` fits. */
export interface Log {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export type WorkerSettings = Required<Omit<WorkerOptions, "drain" | "tracer">> & {
  readonly drainMs: number;
  readonly tracer: Tracer | undefined;
};

/** Fills what was not given from the environment variables and the defaults. */
export function resolveWorker(options: WorkerOptions): WorkerSettings {
  const { capacity = 500, maxParked = 1000 } = options;
  within("capacity", capacity, 1, CAPACITY_MAX);
  within("maxParked", maxParked, 0, PARKED_MAX);
  return {
    address: resolveAddress(options.address),
    environment: resolveEnvironment(options.environment),
    deployment: options.deployment || process.env["STEPWELL_DEPLOYMENT"] || "",
    instance: options.instance || `${hostname()}:${process.pid}`,
    capacity,
    maxParked,
    drainMs: durationMs(options.drain ?? "30s", "drain"),
    labels: labelsOf(options.labels ?? namedLabels(process.env["STEPWELL_LABELS"] ?? "")),
    log: options.log ?? stderrLog,
    tracer: options.tracer,
  };
}

/** Reads "gpu=a100,region=eu". */
function namedLabels(text: string): Labels {
  const labels: Record<string, string> = {};
  if (text.trim() === "") return labels;
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at).trim();
    if (at < 0 || Object.hasOwn(labels, name)) {
      throw new UsageError(`STEPWELL_LABELS: ${JSON.stringify(part)} is not name=value, or its name stands twice`);
    }
    labels[name] = part.slice(at + 1).trim();
  }
  return labels;
}

function within(option: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UsageError(`${option}: ${value} is no whole number between ${least} and ${most}`);
}

/** Writes to stderr, so that stdout stays the app's. */
const stderrLog: Log = {
  info: (message) => console.error(`stepwell: ${message}`),
  warn: (message) => console.error(`stepwell: warning: ${message}`),
  error: (message) => console.error(`stepwell: error: ${message}`),
};
