// Errors of calls to the server: one class for each status code that a caller may want to tell apart.
//
// ApiError                      a StepwellError
// ├── InvalidArgumentError      the request is wrong; see violations
// ├── NotFoundError
// ├── AlreadyExistsError
// ├── FailedPreconditionError   the state does not allow it
// ├── AbortedError              somebody else was faster
// ├── ResourceExhaustedError    a limit; see retryAfterMs
// ├── PermissionDeniedError     not signed in, or not allowed
// ├── DeadlineExceededError
// └── UnavailableError          the server cannot be reached

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { StepwellError } from "./errors.js";

/** One field of a request that the server refused. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** What the server attached to an error. */
export interface ErrorDetails {
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;
}

const NO_DETAILS: ErrorDetails = { reason: "", metadata: {}, violations: [], retryAfterMs: undefined };

/** A call failed. `reason` is the machine-readable cause in UPPER_SNAKE; empty if the server gave none. */
export class ApiError extends StepwellError implements ErrorDetails {
  override readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: Code,
    /** What the server said, without the reason. */
    readonly said: string,
    details: Partial<ErrorDetails> = {},
  ) {
    const { reason, metadata, violations, retryAfterMs } = { ...NO_DETAILS, ...details };
    const fields = violations.map(({ field, description }) => `; ${field}: ${description}`).join("");
    super(`${reason || CODE_NAMES[code] || code}: ${said}${fields}`);
    this.reason = reason;
    this.metadata = metadata;
    this.violations = violations;
    this.retryAfterMs = retryAfterMs;
  }

  /**
   * The same call may succeed later without anybody's doing. CANCELLED comes from a server that stops: a call that is given up
   * here throws the reason of its signal.
   */
  get retriable(): boolean {
    return this.code === Code.Unavailable || this.code === Code.Canceled || this.retryAfterMs !== undefined;
  }

  static {
    this.prototype.name = "ApiError";
  }
}

export class InvalidArgumentError extends ApiError {
  static {
    this.prototype.name = "InvalidArgumentError";
  }
}

export class NotFoundError extends ApiError {
  static {
    this.prototype.name = "NotFoundError";
  }
}

export class AlreadyExistsError extends ApiError {
  static {
    this.prototype.name = "AlreadyExistsError";
  }
}

export class FailedPreconditionError extends ApiError {
  static {
    this.prototype.name = "FailedPreconditionError";
  }
}

export class AbortedError extends ApiError {
  static {
    this.prototype.name = "AbortedError";
  }
}

export class ResourceExhaustedError extends ApiError {
  static {
    this.prototype.name = "ResourceExhaustedError";
  }
}

export class PermissionDeniedError extends ApiError {
  static {
    this.prototype.name = "PermissionDeniedError";
  }
}

/** The call took longer than allowed; what it asked for may have happened. */
export class DeadlineExceededError extends ApiError {
  static {
    this.prototype.name = "DeadlineExceededError";
  }
}

export class UnavailableError extends ApiError {
  static {
    this.prototype.name = "UnavailableError";
  }
}

const CLASSES: Readonly<Partial<Record<Code, typeof ApiError>>> = {
  [Code.InvalidArgument]: InvalidArgumentError,
  [Code.OutOfRange]: InvalidArgumentError,
  [Code.NotFound]: NotFoundError,
  [Code.AlreadyExists]: AlreadyExistsError,
  [Code.FailedPrecondition]: FailedPreconditionError,
  [Code.Aborted]: AbortedError,
  [Code.ResourceExhausted]: ResourceExhaustedError,
  [Code.PermissionDenied]: PermissionDeniedError,
  [Code.Unauthenticated]: PermissionDeniedError,
  [Code.DeadlineExceeded]: DeadlineExceededError,
  [Code.Unavailable]: UnavailableError,
};

const CODE_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Code)
    .filter(([, code]) => typeof code === "number")
    .map(([name, code]) => [code, name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase()]),
);

/** How a broken connection looks from here; the server itself says these with a status. */
const BROKEN: ReadonlySet<Code> = new Set([Code.Aborted, Code.Canceled, Code.Internal, Code.Unknown]);

/** The error of a call, with the details that the server attached to it. */
export function fromRpcError(thrown: unknown): ApiError {
  const error = ConnectError.from(thrown);
  const fromServer = error.metadata.has("grpc-status");
  const code = !fromServer && BROKEN.has(error.code) ? Code.Unavailable : error.code;
  const made = errorOf(code, error.rawMessage, detailsOf(error));
  made.cause = thrown;
  return made;
}

/** The error of a status. */
export function errorOf(code: Code, said: string, details: Partial<ErrorDetails>): ApiError {
  const Kind = CLASSES[code] ?? ApiError;
  return new Kind(code, said, details);
}

function detailsOf(error: ConnectError): ErrorDetails {
  let details = NO_DETAILS;
  for (const detail of error.details) {
    if (!("type" in detail) || !("value" in detail)) continue;
    try {
      details = { ...details, ...READERS[detail.type]?.(detail.value) };
    } catch {
      // The code and the message stand without a detail that cannot be read.
    }
  }
  return details;
}

// The details of google.rpc, by their numbers: too few fields to generate code for.
const READERS: Readonly<Record<string, (data: Uint8Array) => Partial<ErrorDetails>>> = {
  "google.rpc.ErrorInfo": (data) => {
    const fields = fieldsOf(data);
    const pairs = fields.filter(({ no }) => no === 3).map(({ bytes }) => fieldsOf(bytes));
    return {
      reason: textOf(fields, 1),
      metadata: Object.fromEntries(pairs.map((pair) => [textOf(pair, 1), textOf(pair, 2)])),
    };
  },
  "google.rpc.BadRequest": (data) => ({
    violations: fieldsOf(data)
      .filter(({ no }) => no === 1)
      .map(({ bytes }) => fieldsOf(bytes))
      .map((fields) => ({ field: textOf(fields, 1), description: textOf(fields, 2) })),
  }),
  "google.rpc.RetryInfo": (data) => {
    const delay = fieldsOf(fieldsOf(data).find(({ no }) => no === 1)?.bytes ?? new Uint8Array());
    const number = (no: number) => delay.find((field) => field.no === no)?.number ?? 0;
    return { retryAfterMs: number(1) * 1000 + number(2) / 1e6 };
  },
};

interface Field {
  readonly no: number;
  readonly bytes: Uint8Array;
  readonly number: number;
}

function fieldsOf(data: Uint8Array): Field[] {
  const reader = new BinaryReader(data);
  const fields: Field[] = [];
  while (reader.pos < reader.len) {
    const [no, type] = reader.tag();
    if (type === WireType.LengthDelimited) fields.push({ no, bytes: reader.bytes(), number: 0 });
    else if (type === WireType.Varint) fields.push({ no, bytes: new Uint8Array(), number: Number(reader.int64()) });
    else reader.skip(type, no);
  }
  return fields;
}

function textOf(fields: readonly Field[], no: number): string {
  return new TextDecoder().decode(fields.find((field) => field.no === no)?.bytes);
}
