// Answers calls, one JSON line each, for as long as somebody asks.

import { createInterface } from "node:readline";

import { call } from "./calls.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { name, args } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await call(name, args))}\n`);
}
