/**
 * Runs one workflow and plays every part in it: starts a run, follows the run's events, answers its
 * gate, and executes its action as a worker.
 *
 *     npm start [-- NAME [SECONDS]]
 *
 * RUNKON_ADDRESS and RUNKON_NAMESPACE say where. Events go to standard output, everything else to
 * standard error.
 */
import { setTimeout as sleep } from "node:timers/promises";

import { Caller } from "./caller.js";
import { describe } from "./errors.js";
import { Worker, type Action } from "./worker.js";

const CONCURRENCY = 4;

/** The action of this example. */
const greet: Action = async ({ inputs }, signal) => {
  await sleep(Number(inputs["seconds"]) * 1000, undefined, { signal });
  return { context: `Hello, ${inputs["name"]}!` };
};

const address = process.env["RUNKON_ADDRESS"] ?? "127.0.0.1:7411";
const namespace = process.env["RUNKON_NAMESPACE"] ?? "";
const [name = "Ada", seconds = "1"] = process.argv.slice(2);

const worker = new Worker(address, namespace, CONCURRENCY, { greet });
const working = worker.run();
const caller = new Caller(address, namespace);
try {
  await Promise.race([caller.greet(name, seconds), working]);
} catch (error) {
  console.error(describe(error));
  process.exitCode = 1;
} finally {
  caller.close();
  worker.drain();
  await working.catch(() => undefined); // told above
}
