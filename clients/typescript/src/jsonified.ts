// The type that a value has once it went through JSON.

type Refused = ((...args: never[]) => unknown) | symbol | ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> | Error;

/** What a function without a return statement returns. */
type Nothing = ReturnType<() => void>;

type Flat<T> = { [K in keyof T]: T[K] };

type JsonObject<T> = Flat<
  { [K in keyof T as K extends symbol ? never : undefined extends T[K] ? never : K]: Jsonified<T[K]> } & {
    [K in keyof T as K extends symbol ? never : undefined extends T[K] ? K : never]?: Jsonified<
      Exclude<T[K], undefined>
    >;
  }
>;

/**
 * What the code gets back for a T: a Date becomes text, undefined becomes null (a property: is left out), bytes become
 * base64 text, a bigint becomes a number where a number holds it exactly. `never` stands for what is refused.
 */
export type Jsonified<T> = 0 extends 1 & T
  ? T
  : unknown extends T
    ? unknown
    : T extends string | number | boolean | null
      ? T
      : T extends bigint
        ? number | bigint
        : T extends undefined | Nothing
          ? null
          : T extends Uint8Array
            ? string
            : T extends { toJSON(key?: string): infer R }
              ? Jsonified<R>
              : T extends Refused
                ? never
                : T extends readonly unknown[]
                  ? { -readonly [K in keyof T]: Jsonified<T[K]> }
                  : T extends object
                    ? JsonObject<T>
                    : never;
