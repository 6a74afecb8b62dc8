// What the two threads of a worker tell each other. Frames travel as their bytes, which are moved, not copied.

import type { Code } from "@connectrpc/connect";
import type { ErrorDetails } from "./api_errors.js";
import type { Listed } from "./residents.js";

/** The residents as of a number of applied server frames, for the heartbeat. */
export interface Digest {
  readonly residents: number;
  readonly hash: bigint;
  readonly framesRead: number;
}

/** What happened to the session: from the I/O thread to the one that runs the code. */
export type News =
  /** A stream is open: from now on it is the one to send to. `listed` is what Hello named. */
  | {
      readonly kind: "opened";
      readonly stream: number;
      /** Of its Pulse. */
      readonly pulse: SharedArrayBuffer;
      readonly welcome: Uint8Array;
      readonly listed: readonly Listed[];
    }
  /** A frame of the server arrived. */
  | { readonly kind: "arrived"; readonly stream: number; readonly frame: Uint8Array }
  /** The stream is gone; the session may be taken up again. */
  | { readonly kind: "lost"; readonly stream: number }
  /** The lease is nearly over: the runs may be elsewhere soon. */
  | { readonly kind: "lapsed" };

/** All that the I/O thread says. */
export type FromIo =
  | News
  /** Asks for the residents, to name them in Hello. */
  | { readonly kind: "list" }
  /** A heartbeat is due: asks for what there is to send, and for the digest. */
  | { readonly kind: "beat" }
  /** What was sent is written: there is room for more. */
  | { readonly kind: "written"; readonly stream: number }
  /** Asks for a sign that the thread is not blocked. */
  | { readonly kind: "ping" }
  | { readonly kind: "log"; readonly level: "info" | "warn" | "error"; readonly message: string }
  /** The session has been left, or the server refuses the registration. */
  | { readonly kind: "ended"; readonly refusal: Refusal | undefined };

/** An ApiError, in parts that can pass from thread to thread. */
export interface Refusal extends ErrorDetails {
  readonly code: Code;
  readonly said: string;
}

/** All that the I/O thread is told. */
export type ToIo =
  | { readonly kind: "residents"; readonly listed: readonly Listed[] }
  /** Frames for a stream, and the digest once they are written. `beat`: a heartbeat follows them. */
  | {
      readonly kind: "send";
      readonly stream: number;
      readonly frames: readonly Uint8Array[];
      readonly digest: Digest;
      readonly beat: boolean;
    }
  /** Runs that execute at once; 0: the worker drains. */
  | { readonly kind: "capacity"; readonly capacity: number }
  /** Says Goodbye, and leaves. */
  | { readonly kind: "goodbye" }
  /** Leaves at once. */
  | { readonly kind: "abort" }
  | { readonly kind: "pong"; readonly debugged: boolean };

/** The name of the symbol under which the main thread can be asked what it executes. */
export const EXECUTING = "stepwell.executing";
