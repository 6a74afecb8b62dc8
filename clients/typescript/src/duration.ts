// Durations as people write them ("90s", "1h30m", "4d"), in milliseconds.

/** Text such as "90s", "1h30m", "4d" or "2w". Numbers are refused: nobody agrees on their unit. */
export type Duration = string;

export const DURATION_MS_MAX = 366 * 24 * 3600 * 1000;

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};
const PART = /(\d+(?:\.\d+)?)(ms|s|m|h|d|w)/g;
const WHOLE = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w)\s*)+$/;

/** The value is no duration, or out of range. */
export class DurationError extends RangeError {}

/** Milliseconds, rounded up so that a wait is never shorter than asked for. Throws DurationError. */
export function toMs(value: Duration): number {
  if (typeof value !== "string" || !WHOLE.test(value.trim())) {
    throw new DurationError(`${show(value)} is no duration; write for example "90s", "1h30m" or "4d"`);
  }
  let total = 0;
  for (const [, amount, unit] of value.matchAll(PART)) total += Number(amount) * (UNIT_MS[unit as string] as number);
  // To microseconds first: 1.1 minutes would else be a millisecond too long.
  const ms = Math.ceil(Math.round(total * 1000) / 1000);
  if (ms > DURATION_MS_MAX) throw new DurationError(`${show(value)} is longer than 366 days`);
  return ms;
}

function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
