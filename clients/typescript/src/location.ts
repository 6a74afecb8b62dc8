// Where in the user's code a step was called.

const SDK = new URL(".", import.meta.url).href;

/** The line of the user's code that is executing, for example "app.js:12"; empty if there is none. */
export function location(): string {
  const lines = new Error().stack?.split("\n").slice(1) ?? [];
  for (const line of lines) {
    const place = /\(?((?:file:|\/|[A-Za-z]:\\)[^()]*:\d+):\d+\)?$/.exec(line)?.[1];
    if (place !== undefined && !place.startsWith(SDK)) return place.replaceAll("\\", "/").split("/").at(-1) ?? place;
  }
  return "";
}
