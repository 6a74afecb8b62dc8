// What listings are filtered by.

import { RunStatus as RunStatusMessage } from "./v1/run_pb.js";
import type { RunStatus } from "./values.js";

/** Which events a listing shows; all filters must fit. */
export interface EventFilter {
  readonly since?: Date;
  readonly until?: Date;
  /** CEL over `event`, judged by the server. */
  readonly condition?: string;
  readonly oldestFirst?: boolean;
  readonly pageSize?: number;
}

/** Which failures are gathered; all filters must fit. Without `statuses`: FAILED and TIMED_OUT. */
export interface FailureFilter {
  readonly functions?: readonly string[];
  readonly app?: string;
  readonly statuses?: readonly RunStatus[];
  readonly since?: Date;
  readonly until?: Date;
  readonly pageSize?: number;
  readonly pageToken?: string;
}

/** Which runs a listing shows; all filters must fit. */
export interface RunFilter {
  readonly function?: string;
  readonly app?: string;
  readonly statuses?: readonly RunStatus[];
  readonly eventId?: string;
  readonly parentRunId?: string;
  readonly since?: Date;
  readonly until?: Date;
  /** CEL over `run`, `output` and `event`, judged by the server. */
  readonly condition?: string;
  /** Of the failure, or of a cause of it. */
  readonly errorType?: string;
  readonly pageSize?: number;
}

/** Statuses on the wire; UNKNOWN has no number. */
export function numbersOf(statuses: readonly RunStatus[]): RunStatusMessage[] {
  return statuses.filter((one) => one !== "UNKNOWN").map((one) => RunStatusMessage[one]);
}
