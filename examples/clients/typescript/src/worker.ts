import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

import { credentials, status, type ClientDuplexStream } from "@grpc/grpc-js";

import type { Duration } from "../gen/google/protobuf/duration.js";
import { StepResult } from "../gen/runkon/v1/types.js";
import {
  TaskReport,
  WorkRequest,
  WorkerServiceClient,
  type DeepPartial,
  type TaskHeartbeat,
  type TaskLease,
  type WorkResponse,
} from "../gen/runkon/v1/workers.js";
import { CHANNEL_OPTIONS, RECONNECT_DELAY_MS } from "./connection.js";
import { describe, isFinal } from "./errors.js";

/**
 * Executes one task. The signal says that it is no longer wanted; an error is retried as often as
 * the workflow says.
 */
export type Action = (lease: TaskLease, signal: AbortSignal) => Promise<DeepPartial<StepResult>>;

interface Running {
  readonly lease: TaskLease;
  readonly abort: AbortController;
}

/**
 * Executes tasks. What it holds outlives the stream by which it came: a lease belongs to its token,
 * and a report may go out on any later stream.
 */
export class Worker {
  readonly #service: WorkerServiceClient;
  readonly #running = new Map<string, Running>(); // by token
  readonly #unacked = new Map<string, TaskReport>(); // by token
  #stream: ClientDuplexStream<WorkRequest, WorkResponse> | undefined;
  #isLeaving = false;

  constructor(
    address: string,
    private readonly namespace: string,
    private readonly concurrency: number,
    private readonly actions: Readonly<Record<string, Action>>,
  ) {
    this.#service = new WorkerServiceClient(address, credentials.createInsecure(), CHANNEL_OPTIONS);
  }

  /** Works until the worker is drained, over as many streams as it takes. */
  async run(): Promise<void> {
    try {
      while (!this.#isDone) {
        try {
          await this.#serve();
        } catch (error) {
          if (isFinal(error)) throw error;
          console.error(`work stream lost, reconnecting: ${describe(error)}`);
        }
        if (!this.#isDone) await sleep(RECONNECT_DELAY_MS);
      }
    } finally {
      this.#service.close();
    }
  }

  /** Lets the worker finish what it holds and end. */
  drain(): void {
    this.#isLeaving = true;
    this.#send({ drain: {} });
    this.#leaveIfDone();
  }

  get #isDone(): boolean {
    return this.#isLeaving && this.#running.size + this.#unacked.size === 0;
  }

  /** Works over one stream. The work goes on when the stream ends. */
  async #serve(): Promise<void> {
    const stream = this.#service.work();
    let beat: NodeJS.Timeout | undefined;
    this.#stream = stream;
    this.#send(this.#hello());
    this.#leaveIfDone();
    try {
      for await (const frame of stream as AsyncIterable<WorkResponse>) {
        if (frame.welcome) {
          beat = setInterval(() => this.#beat(), milliseconds(frame.welcome.heartbeatInterval));
        }
        this.#take(frame);
        if (frame.drain) {
          await sleep(milliseconds(frame.drain.reconnectDelay));
          return;
        }
      }
    } finally {
      clearInterval(beat);
      this.#stream = undefined;
      stream.on("error", () => undefined); // the cancel is one
      stream.cancel();
    }
  }

  /** What opens a stream, with all that an earlier one may have lost. */
  #hello(): DeepPartial<WorkRequest> {
    const room = this.concurrency - this.#running.size - this.#unacked.size;
    return {
      hello: {
        namespace: this.namespace,
        workerId: `${hostname()}-${process.pid}`,
        actions: Object.keys(this.actions),
        concurrency: this.concurrency,
        client: "example-typescript",
      },
      reports: [...this.#unacked.values()],
      heartbeats: this.#heartbeats(),
      ...(this.#isLeaving ? { drain: {} } : { credit: room }),
    };
  }

  /** Keeps what is in hand, and repeats reports without an answer: again is no harm. */
  #beat(): void {
    this.#send({ heartbeats: this.#heartbeats(), reports: [...this.#unacked.values()] });
  }

  /** With a `progress` they would also tell people how far the work is. */
  #heartbeats(): DeepPartial<TaskHeartbeat>[] {
    return [...this.#running.values()].map(({ lease: { taskId, token } }) => ({ taskId, token }));
  }

  #send(request: DeepPartial<WorkRequest>): void {
    this.#stream?.write(WorkRequest.fromPartial(request));
  }

  #leaveIfDone(): void {
    if (this.#isDone) this.#stream?.end();
  }

  /** Does what a frame says. */
  #take({ leases, cancels, acks }: WorkResponse): void {
    for (const lease of leases) {
      const abort = new AbortController();
      this.#running.set(lease.token, { lease, abort });
      void this.#work(lease, abort.signal);
    }
    for (const { token } of cancels) this.#running.get(token)?.abort.abort();
    for (const { token, error } of acks) {
      if (error && error.code === status.UNAVAILABLE) continue; // the next heartbeat repeats it
      if (error) console.error(`report: ${error.reason}: ${error.message}`);
      // A report gives no credit back by itself. One that was repeated has two answers.
      if (this.#unacked.delete(token)) this.#send({ credit: 1 });
    }
    this.#leaveIfDone();
  }

  /** Works on one task and reports what came of it. */
  async #work(lease: TaskLease, signal: AbortSignal): Promise<void> {
    const report = TaskReport.fromPartial({
      taskId: lease.taskId,
      token: lease.token,
      outcome: await this.#execute(lease, signal),
    });
    this.#running.delete(lease.token);
    this.#unacked.set(lease.token, report);
    this.#send({ reports: [report] });
  }

  async #execute(
    lease: TaskLease,
    signal: AbortSignal,
  ): Promise<DeepPartial<TaskReport>["outcome"]> {
    try {
      const result = await this.actions[lease.action]!(lease, signal);
      return { $case: "result", value: StepResult.fromPartial(result) };
    } catch (error) {
      if (signal.aborted) return { $case: "cancelled", value: {} };
      return { $case: "failure", value: { message: String(error) } };
    }
  }
}

function milliseconds(duration: Duration | undefined): number {
  return duration ? duration.seconds * 1000 + duration.nanos / 1e6 : RECONNECT_DELAY_MS;
}
