// A log that a test can look into.

import type { Log } from "../../src/index.js";

export class Lines implements Log {
  readonly lines: string[] = [];
  info(message: string): void {
    this.lines.push(message);
  }
  warn(message: string): void {
    this.lines.push(`warning: ${message}`);
  }
  error(message: string): void {
    this.lines.push(`error: ${message}`);
  }
  get text(): string {
    return this.lines.join("\n");
  }
}
