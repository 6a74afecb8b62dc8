// Hosts runs: applies the server's frames to residents, lets their code run, executes their bodies, sends what came of it.

import { create, fromBinary } from "@bufbuild/protobuf";
import { type Attempt, Bodies } from "./bodies.js";
import type { App } from "./function.js";
import { type Decision, split } from "./frames.js";
import { quiescent } from "./quiescence.js";
import { Reentry, type Turns } from "./reentry.js";
import { type Listed, Resident, Residents } from "./residents.js";
import type { Log } from "./settings.js";
import { type Tracer, tracedRun } from "./trace.js";
import type { Digest, News } from "./news.js";
import { Pulse } from "./pulse.js";
import {
  type Assign,
  type Cancel,
  ConnectResponseSchema,
  type Limits,
  LimitsSchema,
  type Outcome,
  type Refused,
  ReleaseSchema,
  type Work,
} from "./v1/step_pb.js";

/** After so many rounds in a row the event loop gets its turn. */
const ROUNDS_MAX = 500;

/** What the host needs of the worker. */
export interface HostOptions {
  readonly maxParked: number;
  readonly log: Log;
  readonly tracer?: Tracer | undefined;
  /** Takes decisions, and the digest of the residents once they are sent. */
  readonly send: (decisions: readonly Decision[], digest: Digest) => void;
  /** A draining host has nothing left to do. */
  readonly idle: () => void;
}

/** Holds every run of a worker. */
export class Host {
  readonly residents = new Residents();
  readonly bodies: Bodies;
  draining = false;
  /** The stream to send on; 0: there is none. */
  stream = 0;
  epoch = 0n;
  #applied = 0;
  readonly #pulses = new Map<number, Pulse>();
  #limits: Limits = create(LimitsSchema);
  #outgoing: Decision[] = [];
  #aheadMs = 0;
  readonly #active = new Set<Resident>();
  #pumping = false;

  constructor(
    private readonly app: App,
    private readonly options: HostOptions,
  ) {
    this.bodies = new Bodies(
      () => this.nowMs(),
      (attempt) => this.#attemptEnded(attempt),
      options.log,
    );
  }

  /** The server's time as far as it is known: a dev server's clock may be days ahead of this machine's. */
  nowMs(): number {
    return Date.now() + this.#aheadMs;
  }

  /** What executes at this moment, in words. */
  executing(): string[] {
    const code = [...this.#active].filter((one) => one.turns !== undefined);
    return [...this.bodies.names(), ...code.map((one) => `the code of ${one.reentry?.fn.id ?? "?"} (${one.runId})`)];
  }

  /** Fences every run, then unwinds it and stops its bodies. */
  evictAll(): void {
    for (const resident of this.residents.all()) this.#evict(resident);
    this.#outgoing = [];
  }

  /** Starts no more bodies, and gives back what is parked. `idle` is called once nothing executes. */
  drain(): void {
    this.draining = true;
    this.flush();
  }

  /** Applies what the I/O thread has to tell. */
  apply(news: News): void {
    if (news.kind === "arrived") {
      if (this.#pulses.get(news.stream)?.overslept) return;
      const { frame } = fromBinary(ConnectResponseSchema, news.frame);
      // A frame of another kind counts as well: heartbeats say how many were applied.
      if (news.stream === this.stream) this.#applied += 1;
      if (frame.case === "work") this.#applyWork(news.stream === this.stream, frame.value);
    } else if (news.kind === "opened") this.#applyOpened(news);
    else if (news.kind === "lost") {
      this.#pulses.delete(news.stream);
      this.stream = news.stream === this.stream ? 0 : this.stream;
    } else this.evictAll();
    this.flush();
  }

  #applyOpened(news: Extract<News, { kind: "opened" }>): void {
    const { frame } = fromBinary(ConnectResponseSchema, news.welcome);
    if (frame.case !== "welcome") throw new Error("a stream opens with Welcome");
    const welcome = frame.value;
    this.stream = news.stream;
    this.#pulses.set(news.stream, new Pulse(news.pulse));
    this.epoch = welcome.epoch;
    this.#applied = 1;
    this.#limits = welcome.limits ?? create(LimitsSchema);
    this.#aheadMs = welcome.nowMs > 0n ? Number(welcome.nowMs) - Date.now() : 0;
    this.#outgoing = []; // all of it is sent again below
    const refused = new Set(welcome.refused.map((one) => one.runId));
    const listed = new Map(news.listed.map((one) => [one.runId, one.turn]));
    for (const resident of this.residents.all()) {
      // What Hello could not name is no longer this session's: the server has queued it anew.
      if (listed.get(resident.runId) !== resident.turn || refused.has(resident.runId)) this.#evict(resident);
    }
    for (const [runId, turn] of listed) {
      // Forgotten between Hello and Welcome, in a frame that was not sent.
      if (this.residents.get(runId) === undefined && !refused.has(runId)) this.#release(runId, turn);
    }
    for (const { runId, reentry } of this.residents.all()) {
      if (reentry !== undefined) this.#outgoing.push(...split(runId, reentry.unacknowledged()));
    }
  }

  /** Applies a frame in the order of its fields. Of a stream that was left, only facts about runs count. */
  #applyWork(current: boolean, work: Work): void {
    for (const { runId, turn, number } of work.acks) {
      const resident = this.#find(runId, turn);
      if (resident?.reentry === undefined) continue;
      const { reentry } = resident;
      this.#guard(resident, () => {
        reentry.ack(Number(number));
        // While the core decides, the end of the decision sees to what the number allows.
        if (resident.turns === undefined) this.#proceed(resident);
      });
    }
    if (current) {
      for (const assign of work.assigns) this.#assign(assign);
      for (const part of work.journalParts) {
        const resident = this.#find(part.runId, part.turn);
        if (resident?.assign === undefined) continue;
        resident.assign.journal.push(...part.journal);
        resident.assign.open.push(...part.open);
        if (!part.more) this.#enter(resident, resident.assign);
      }
    }
    for (const outcome of work.outcomes) this.#deliver(outcome);
    for (const cancel of work.cancels) this.#cancel(cancel);
    if (!current) return;
    for (const { runId, turn } of work.evicts) {
      const resident = this.#find(runId, turn);
      if (resident !== undefined) this.#evict(resident);
    }
    for (const refused of work.refused) this.#refused(refused);
  }

  #find(runId: string, turn: number): Resident | undefined {
    const resident = this.residents.get(runId);
    return resident?.turn === turn ? resident : undefined;
  }

  #assign(assign: Assign): void {
    const before = this.residents.get(assign.runId);
    if (before !== undefined) {
      if (before.turn >= assign.turn) return; // the same assignment twice
      this.#evict(before);
    }
    const resident = new Resident(assign);
    this.residents.add(resident);
    if (!assign.more) this.#enter(resident, assign);
  }

  /** Runs the function's code for the first time, or again over its journal. */
  #enter(resident: Resident, assign: Assign): void {
    resident.assign = undefined;
    this.#learnTime(assign.createdMs);
    const fn = this.app.functions.get(assign.functionId.slice(assign.functionId.indexOf("/") + 1));
    if (fn === undefined) {
      this.options.log.error(`run ${assign.runId} is of ${assign.functionId}, which this app has not got: forgotten`);
      this.#evict(resident);
      return;
    }
    const wake = () => this.#input(resident, (reentry) => reentry.outside());
    resident.reentry = new Reentry(fn, assign, this.#limits, wake);
    const { tracer } = this.options;
    if (tracer !== undefined) {
      resident.reentry.trace = tracer.run(tracedRun(fn.app, fn.name, assign, () => this.#aheadMs));
    }
    for (const outcome of resident.early) this.#input(resident, (reentry) => reentry.resolve(outcome));
    this.#input(resident, (reentry) => reentry.start());
  }

  #deliver(outcome: Outcome): void {
    this.#learnTime(outcome.timeMs);
    const resident = this.#find(outcome.runId, outcome.turn);
    if (resident?.assign !== undefined) resident.early.push(outcome);
    else if (resident !== undefined) this.#input(resident, (reentry) => reentry.resolve(outcome));
  }

  #cancel({ runId, turn, failure }: Cancel): void {
    const resident = this.#find(runId, turn);
    if (resident?.assign !== undefined) {
      resident.assign.cancelled = true;
      if (failure !== undefined) resident.assign.cancelFailure = failure;
    } else if (resident !== undefined) this.#input(resident, (reentry) => reentry.cancel(failure?.message));
  }

  #refused({ runId, turn, key, reason, message }: Refused): void {
    const { log } = this.options;
    const resident = this.#find(runId, turn);
    if (resident === undefined) return;
    if (reason === "NOT_RESIDENT") log.warn(`run ${runId} is no longer this worker's: ${message}`);
    else log.error(`a command of run ${runId}, step "${key}" was refused: ${reason}: ${message}`);
    this.#evict(resident);
  }

  #learnTime(serverMs: bigint): void {
    this.#aheadMs += Math.max(0, Number(serverMs) - this.nowMs());
  }

  // --- the code of runs ---

  /** Queues work for the core of a run. */
  #input(resident: Resident, work: (reentry: Reentry) => Turns): void {
    const { reentry } = resident;
    if (reentry === undefined || resident.evicted) return;
    resident.inputs.push(() => work(reentry));
    this.#active.add(resident);
    if (!this.#pumping) void this.#pump();
  }

  /**
   * Lets the code of all active runs run, each until it is quiescent, in rounds. Between two rounds everything is quiescent;
   * so nothing that a body does in microtasks falls into a turn of its run's code.
   */
  async #pump(): Promise<void> {
    this.#pumping = true;
    for (let round = 1; this.#active.size > 0; round += 1) {
      await (round % ROUNDS_MAX === 0 ? new Promise(setImmediate) : quiescent());
      for (const resident of [...this.#active]) this.#guard(resident, () => this.#turn(resident));
      this.flush();
    }
    this.#pumping = false;
  }

  #turn(resident: Resident): void {
    resident.turns ??= resident.inputs.shift()?.();
    if (resident.evicted || resident.turns === undefined) {
      this.#active.delete(resident);
      return;
    }
    if (resident.turns.next().done !== true) return;
    resident.turns = undefined;
    this.#proceed(resident);
  }

  /** Takes what a decision left behind: commands go out, bodies begin. */
  #proceed(resident: Resident): void {
    const { reentry } = resident;
    if (resident.evicted || reentry === undefined) return;
    const commands = reentry.takeCommands();
    if (commands.length > 0) this.#outgoing.push({ runId: resident.runId, commands });
    for (const key of reentry.interrupts.splice(0)) this.#interrupt(resident, key);
    if (!this.draining) {
      for (const body of reentry.bodies.splice(0)) this.bodies.start(resident, body);
    }
    if (reentry.state === "FENCED") this.#evict(resident);
    else if (reentry.settled) {
      this.#forget(resident);
      if (reentry.traced !== undefined) reentry.trace?.end(reentry.traced);
    } else this.residents.setParked(resident, reentry.state === "PARKED");
  }

  #interrupt(resident: Resident, key: string): void {
    const attempt = resident.attempts.get(key);
    resident.attempts.delete(key);
    if (attempt !== undefined) this.bodies.interrupt(attempt);
  }

  #attemptEnded(attempt: Attempt): void {
    const { owner, body, startedMs, endedMs, end } = attempt;
    if (owner.evicted || owner.attempts.get(body.key) !== attempt) return;
    owner.attempts.delete(body.key);
    this.#input(owner, (reentry) => reentry.finish(body.key, body.attempt, { ...end, startedMs, endedMs }));
  }

  /** Gives a run up that breaks the worker's own rules, and only that one. */
  #guard(resident: Resident, act: () => void): void {
    try {
      act();
    } catch (error) {
      const why = error instanceof Error ? error.stack : String(error);
      this.options.log.error(`run ${resident.runId} broke the worker's own rules; it is forgotten here: ${why}`);
      this.#evict(resident);
    }
  }

  /** Forgets a run: first its code is fenced, so that what it does while it unwinds is not heard (H3). */
  #evict(resident: Resident): void {
    if (resident.evicted) return;
    this.#forget(resident);
    resident.reentry?.evict();
    for (const attempt of resident.attempts.values()) this.bodies.interrupt(attempt);
    resident.attempts.clear();
  }

  #forget(resident: Resident): void {
    resident.evicted = true;
    this.residents.remove(resident);
    this.#active.delete(resident);
  }

  // --- outwards ---

  /** Sends what the runs have to say. */
  flush(): void {
    const excess = this.residents.parked - (this.draining ? 0 : this.options.maxParked);
    if (excess > 0) this.#releaseParked(excess);
    const decisions = this.#outgoing;
    this.#outgoing = [];
    if (this.stream !== 0) this.options.send(decisions, this.digest());
    if (this.draining && this.#isIdle()) this.options.idle();
  }

  /** The residents as of the frames that were applied. */
  digest(): Digest {
    return { residents: this.residents.size, hash: this.residents.hash, framesRead: this.#applied };
  }

  /** The residents for Hello. */
  listing(): Listed[] {
    return this.residents.listing();
  }

  /** Gives the longest parked runs back. One with results under way stays: they would be lost with the stream. */
  #releaseParked(excess: number): void {
    for (const resident of this.residents.longestParked().slice(0, excess)) {
      if (resident.reentry?.pending !== false || this.#active.has(resident)) continue;
      this.#release(resident.runId, resident.turn);
      this.#evict(resident);
    }
  }

  #release(runId: string, turn: number): void {
    this.#outgoing.push({ runId, commands: [create(ReleaseSchema, { runId, turn })] });
  }

  #isIdle(): boolean {
    return this.residents
      .all()
      .every((one) => one.attempts.size === 0 && one.reentry?.pending !== true && !this.#active.has(one));
  }
}
