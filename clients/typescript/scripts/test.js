// Compiles and runs the tests: all, or those of the folders of test/ that are named. With REPORT set to a file, the counts go
// there as JUnit XML.

import { spawnSync } from "node:child_process";
import { copyFileSync, readdirSync, rmSync } from "node:fs";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const wanted = process.argv.slice(2);

function run(...args) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

rmSync(join(root, "build"), { recursive: true, force: true });
run(join("node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.test.json");
const apps = join("test", "e2e", "apps");
for (const name of readdirSync(join(root, apps))) {
  if (name.endsWith(".py")) copyFileSync(join(root, apps, name), join(root, "build", apps, name));
}
const files = readdirSync(join(root, "build", "test"), { recursive: true })
  .filter((name) => name.endsWith(".test.js"))
  .filter((name) => wanted.length === 0 || wanted.some((folder) => name.startsWith(folder + sep)))
  .map((name) => join("build", "test", name));
const report = process.env.REPORT ? ["--test-reporter=junit", `--test-reporter-destination=${process.env.REPORT}`] : [];
run("--test", "--test-reporter=spec", "--test-reporter-destination=stdout", ...report, ...files.sort());
