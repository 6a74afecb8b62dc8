// The id of a deployment: a hash of what an app registers and of its sources.

import { toBinary } from "@bufbuild/protobuf";
import { createHash } from "node:crypto";
import { type Dirent, readFileSync, readdirSync, realpathSync } from "node:fs";
import { dirname, extname, join, relative } from "node:path";
import type { App } from "./function.js";
import { FunctionSpecSchema } from "./v1/function_pb.js";

const SOURCES: ReadonlySet<string> = new Set([".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx", ".jsx", ".json"]);
const FILES_MAX = 5000;

/**
 * 16 hex digits: the same for the same code, on every machine (H15). Hashed are the registration, the code of the handlers, and all
 * sources below the folder of the program; a change in node_modules does not make another deployment.
 */
export function deploymentId(app: App, program = process.argv[1]): string {
  const hash = createHash("sha256");
  for (const spec of app.specs().sort((a, b) => (a.name < b.name ? -1 : 1)))
    hash.update(toBinary(FunctionSpecSchema, spec));
  for (const fn of app.functions.values()) hash.update(`\0${fn.name}\0${fn.handler.toString()}`);
  for (const { name, content } of program === undefined ? [] : sources(program)) {
    hash.update(`\0${name}\0${content.byteLength}\0`).update(content);
  }
  return hash.digest("hex").slice(0, 16);
}

function sources(program: string): { name: string; content: Buffer }[] {
  const folder = dirname(realpathSync(program));
  return files(folder)
    .map((file) => ({ name: relative(folder, file).replaceAll("\\", "/"), content: readFileSync(file) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function files(root: string): string[] {
  const found: string[] = [];
  const folders = [root];
  for (let folder = folders.pop(); folder !== undefined && found.length < FILES_MAX; folder = folders.pop()) {
    for (const entry of entriesOf(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== "node_modules" && !entry.name.startsWith(".")) folders.push(path);
      } else if (entry.isFile() && SOURCES.has(extname(entry.name))) found.push(path);
    }
  }
  return found;
}

function entriesOf(folder: string): Dirent[] {
  return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
}
