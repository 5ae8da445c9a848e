import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { credentials } from "@grpc/grpc-js";

import { EventKind, type RunEvent, type RunFinished } from "../gen/runkon/v1/events.js";
import {
  GateDecision,
  GateServiceClient,
  ResolveGateRequest,
  type Gate,
} from "../gen/runkon/v1/gates.js";
import {
  RunServiceClient,
  StartRunRequest,
  StreamRunEventsRequest,
  type StreamRunEventsResponse,
} from "../gen/runkon/v1/runs.js";
import { RunStatus } from "../gen/runkon/v1/types.js";
import { CHANNEL_OPTIONS, RECONNECT_DELAY_MS, call } from "./connection.js";
import { describe, isFinal, reasonOf } from "./errors.js";

/** Starts runs and sees them through. */
export class Caller {
  readonly #runs: RunServiceClient;
  readonly #gates: GateServiceClient;

  constructor(
    address: string,
    private readonly namespace: string,
  ) {
    this.#runs = new RunServiceClient(address, credentials.createInsecure(), CHANNEL_OPTIONS);
    this.#gates = new GateServiceClient(address, credentials.createInsecure(), CHANNEL_OPTIONS);
  }

  close(): void {
    this.#runs.close();
    this.#gates.close();
  }

  /** Starts a run and follows it to its end, answering its gate on the way. */
  async greet(name: string, seconds: string): Promise<void> {
    const { run } = await call(
      this.#runs.startRun.bind(this.#runs),
      StartRunRequest.fromPartial({
        namespace: this.namespace,
        requestId: randomUUID(), // the same in every attempt of this call: it starts one run
        definition: { $case: "workflow", value: "greeting" },
        inputs: { name, seconds },
      }),
    );
    const runId = run?.id ?? "";
    console.error(`run ${runId}`);

    let finished: RunFinished | undefined;
    for await (const event of this.events(runId)) {
      console.log(`${event.seq} ${EventKind[event.kind]} ${stepName(event)}`.trimEnd());
      switch (event.payload?.$case) {
        case "gateWaiting":
          await this.#approve(event.payload.value.gate);
          break;
        case "runFinished":
          finished = event.payload.value;
          break;
      }
    }
    if (finished?.status !== RunStatus.RUN_STATUS_COMPLETED) {
      throw new Error(`${RunStatus[finished?.status ?? 0]}: ${finished?.error}`);
    }
  }

  /**
   * All events of a run, in order and each once, whatever happens to the connection, up to the
   * run's end.
   */
  async *events(runId: string): AsyncGenerator<RunEvent> {
    let seen = 0;
    for (;;) {
      try {
        for await (const frame of this.#frames(runId, seen)) {
          if (frame?.$case === "end") return;
          if (frame?.$case !== "events") continue;
          for (const event of frame.value.events) {
            if (event.seq <= seen) continue;
            seen = event.seq;
            yield event;
          }
        }
      } catch (error) {
        if (isFinal(error)) throw error;
        console.error(`events lost after ${seen}, reconnecting: ${describe(error)}`);
      }
      await sleep(RECONNECT_DELAY_MS);
    }
  }

  /** The frames of one stream. */
  async *#frames(
    runId: string,
    afterSeq: number,
  ): AsyncGenerator<StreamRunEventsResponse["frame"]> {
    const stream = this.#runs.streamRunEvents(
      StreamRunEventsRequest.fromPartial({
        namespace: this.namespace,
        runId,
        cursor: { $case: "afterSeq", value: afterSeq },
      }),
    );
    try {
      for await (const { frame } of stream as AsyncIterable<StreamRunEventsResponse>) yield frame;
    } finally {
      stream.on("error", () => undefined); // the cancel is one
      stream.cancel();
    }
  }

  /** Answers a gate. Somebody else may have been quicker, which is no trouble. */
  async #approve(gate: Gate | undefined): Promise<void> {
    const request = ResolveGateRequest.fromPartial({
      namespace: this.namespace,
      requestId: randomUUID(),
      target: { $case: "gateId", value: gate?.id ?? "" },
      decision: GateDecision.GATE_DECISION_APPROVE,
      feedback: "Please do",
    });
    try {
      await call(this.#gates.resolveGate.bind(this.#gates), request);
    } catch (error) {
      if (reasonOf(error) !== "GATE_ALREADY_RESOLVED") throw error;
      console.error(describe(error));
    }
  }
}

/** The name of the step that an event is about; empty if it is about none. */
function stepName({ payload }: RunEvent): string {
  return payload && "step" in payload.value ? (payload.value.step?.stepName ?? "") : "";
}
