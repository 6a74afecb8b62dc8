// What the compiler must accept, infer and refuse. There is nothing to run: `tsc --noEmit` is the test.

import * as z from "zod";
import { App, Client, type Event, type Jsonified, type StepPromise, event } from "../src/index.js";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles if A and B are one type. */
declare function same<A, B>(...differ: Equal<A, B> extends true ? [] : ["these types differ", A, B]): void;

const app = new App("types");
const signedUp = event("user/signed.up", z.object({ email: z.string(), at: z.coerce.date() }));
const bookingCreated = event<{ user_id: number; room: string }>("booking/created");

// --- what JSON makes of a type ---

interface Row {
  at: Date;
  note?: string;
  maybe: number | undefined;
  tags: readonly string[];
  pair: [number, Date];
  bytes: Uint8Array;
  id: bigint;
  nothing: null;
  either: "a" | 5 | Date;
}
interface RowAsJson {
  at: string;
  note?: string;
  maybe?: number;
  tags: string[];
  pair: [number, string];
  bytes: string;
  id: number | bigint;
  nothing: null;
  either: "a" | 5 | string;
}
declare const row: Jsonified<Row>;
export const rowAsJson: RowAsJson = row;
declare const back: RowAsJson;
export const asRow: Jsonified<Row> = back;
same<Jsonified<void>, null>();
same<Jsonified<undefined | string>, null | string>();
same<Jsonified<any>, any>();
same<Jsonified<unknown>, unknown>();
same<Jsonified<Map<string, string>>, never>();
same<Jsonified<() => void>, never>();
same<Jsonified<Date[]>, string[]>();

// --- functions and steps ---

const greet = app.function({ id: "greet", input: z.object({ name: z.string() }) }, async ({ event, step }) => {
  same<typeof event, Event<{ name: string }>>();
  const length = await step.run("length", () => event.data.name.length);
  same<typeof length, number>();
  return { length, at: new Date() };
});

export const drip = app.function({ id: "drip", on: signedUp, retries: 3 }, async ({ event, step }) => {
  same<typeof event.data, { email: string; at: Date }>();
  const sent = await step.run("send-welcome", async () => Promise.resolve({ to: event.data.email, when: new Date() }));
  same<typeof sent, { to: string; when: string }>();
  const nothing = await step.run("nothing", () => {
    // Returns nothing.
  });
  same<typeof nothing, null>();
  const charged = await step.run("charge", ({ input, signal, attempt }) => [input.cents, signal.aborted, attempt], {
    input: { cents: 5 },
  });
  same<typeof charged, (number | boolean)[]>();
  const date = await step.run("when", () => new Date(), { returns: z.coerce.date() });
  same<typeof date, Date>();

  const booking = await step.waitForEvent(bookingCreated, { match: "data.user_id", timeout: "4d" });
  same<typeof booking, Event<{ user_id: number; room: string }> | null>();
  const again = step.waitForEvent(signedUp);
  same<typeof again, StepPromise<Event<{ email: string; at: Date }> | null>>();

  const greeting = await step.invoke(greet, { name: event.data.email });
  same<typeof greeting, { length: number; at: string }>();
  const receipt = await step.invoke("billing/charge", { amount: 1 }, { returns: z.object({ id: z.string() }) });
  same<typeof receipt, { id: string }>();
  const free: number = await step.invoke("billing/anything");

  const id = await step.sendEvent(bookingCreated, { user_id: 1, room: "west" });
  same<typeof id, string>();
  await step.sendEvents([bookingCreated.with({ user_id: 1, room: "west" }), { name: "other" }]);

  const won = await step.race({
    booking: step.waitForEvent(bookingCreated),
    limit: step.sleep("1h"),
    branch: async (step) => (await step.run("x", () => 1)) + free,
  });
  if (won.name === "booking") same<typeof won.value, Event<{ user_id: number; room: string }> | null>();
  else if (won.name === "limit") same<typeof won.value, void>();
  else same<typeof won.value, number>();

  const [a, b] = await Promise.all([step.run("a", () => "a"), step.run("b", () => 2)]);
  same<typeof a, string>();
  same<typeof b, number>();

  // @ts-expect-error a plain promise could not be given up
  await step.race({ late: Promise.resolve(1) });
  // @ts-expect-error the input does not fit the function's
  await step.invoke(greet, { nam: "x" });
  // @ts-expect-error the data do not fit the event's type
  await step.sendEvent(bookingCreated, { user_id: "1", room: "west" });
  // @ts-expect-error a body is a function, not its result
  step.run("called", Promise.resolve(1));
  // @ts-expect-error a number has no unit
  await step.sleep(60);
  return "end";
});

app.function(
  { id: "several", on: [signedUp, { event: bookingCreated, if: "event.data.room == 'west'" }] },
  ({ event }) => {
    same<typeof event.data, { email: string; at: Date } | { user_id: number; room: string }>();
  },
);
app.function({ id: "named", on: "any/thing" }, ({ event }) => {
  same<typeof event, Event<any>>();
});
app.function({ id: "batch", on: signedUp, batch: { maxSize: 10, timeout: "1s" } }, ({ events }) => {
  same<typeof events, readonly Event<{ email: string; at: Date }>[]>();
  return events.length;
});
// @ts-expect-error a function that gathers events is given all of them
app.function({ id: "one of many", on: signedUp, batch: { maxSize: 10, timeout: "1s" } }, ({ event }) => event);
// @ts-expect-error a function without a batch is given one event
app.function({ id: "many of one", on: signedUp }, ({ events }) => events);
app.function(
  {
    id: "flowing",
    concurrency: [5, { limit: 1, key: "event.data.user", scope: "app", hold: "run" }],
    // @ts-expect-error a number has no unit
    throttle: { limit: 1, period: 60 },
  },
  () => null,
);
// @ts-expect-error a function needs an id
app.function({ on: "x" }, () => null);

const output = app.function({ id: "output", output: z.object({ at: z.coerce.date() }) }, () => ({ at: "2026-01-01" }));

// --- the client ---

export async function client(client: Client): Promise<void> {
  same<Awaited<ReturnType<typeof client.send>>, string>();
  await client.send(signedUp, { email: "a", at: "2026-01-01" });
  // @ts-expect-error the data do not fit the event's type
  await client.send(bookingCreated, { room: 5 });
  const made = await client.invoke(output, null);
  same<typeof made, { at: Date }>();
  const handle = await client.start(greet, { name: "Ada" });
  same<Awaited<ReturnType<typeof handle.result>>, { length: number; at: string }>();
  const named = await client.invoke("billing/charge", null, { returns: z.number(), timeout: "5s" });
  same<typeof named, number>();
}
