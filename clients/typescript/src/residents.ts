// The runs in a worker's memory: which, their hash for the heartbeat, and which are parked since when.

import type { Attempt } from "./bodies.js";
import { runDigest } from "./hashing.js";
import type { Reentry, Turns } from "./reentry.js";
import type { Assign, Outcome } from "./v1/step_pb.js";

export const HASH_MODULUS = 1n << 64n;

/** A resident as Hello names it. */
export interface Listed {
  readonly runId: string;
  readonly turn: number;
  readonly parked: boolean;
}

/** A run in memory. */
export class Resident {
  readonly runId: string;
  readonly turn: number;
  readonly digest: bigint;
  /** Its assignment, while that is still arriving in parts; then there is no re-entry yet. */
  assign: Assign | undefined;
  /** Outcomes that came before the last part. */
  readonly early: Outcome[] = [];
  reentry: Reentry | undefined;
  /** What the core has to do yet, in order; and what it does now. */
  readonly inputs: (() => Turns)[] = [];
  turns: Turns | undefined;
  /** Bodies that execute, by key. */
  readonly attempts = new Map<string, Attempt>();
  parked = false;
  evicted = false;

  constructor(assign: Assign) {
    this.runId = assign.runId;
    this.turn = assign.turn;
    this.digest = runDigest(assign.runId, assign.turn);
    this.assign = assign;
  }
}

/** All residents by run. */
export class Residents {
  readonly #runs = new Map<string, Resident>();
  readonly #parked = new Map<string, Resident>();
  hash = 0n;

  get size(): number {
    return this.#runs.size;
  }

  /** How many are parked. */
  get parked(): number {
    return this.#parked.size;
  }

  get(runId: string): Resident | undefined {
    return this.#runs.get(runId);
  }

  all(): Resident[] {
    return [...this.#runs.values()];
  }

  /** The parked ones, in the order in which they parked. */
  longestParked(): Resident[] {
    return [...this.#parked.values()];
  }

  /** Takes a run in. */
  add(resident: Resident): void {
    this.#runs.set(resident.runId, resident);
    this.hash = (this.hash + resident.digest) % HASH_MODULUS;
  }

  /** Forgets a run. */
  remove(resident: Resident): void {
    if (!this.#runs.delete(resident.runId)) return;
    this.#parked.delete(resident.runId);
    this.hash = (this.hash - resident.digest + HASH_MODULUS) % HASH_MODULUS;
  }

  /** Notes that a run has parked, or goes on. */
  setParked(resident: Resident, parked: boolean): void {
    if (resident.parked === parked) return;
    resident.parked = parked;
    if (parked) this.#parked.set(resident.runId, resident);
    else this.#parked.delete(resident.runId);
  }

  /** The residents as Hello says them. One whose assignment is still arriving is not: the rest of it is lost. */
  listing(): Listed[] {
    return this.all()
      .filter((one) => one.assign === undefined)
      .map(({ runId, turn, parked }) => ({ runId, turn, parked }));
  }
}
