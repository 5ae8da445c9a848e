package dev.runkon.examples.greeting;

import static dev.runkon.examples.greeting.Connection.CALL_TIMEOUT;

import dev.runkon.v1.Gate;
import dev.runkon.v1.GateDecision;
import dev.runkon.v1.GateServiceGrpc;
import dev.runkon.v1.ResolveGateRequest;
import dev.runkon.v1.RunEvent;
import dev.runkon.v1.RunFinished;
import dev.runkon.v1.RunServiceGrpc;
import dev.runkon.v1.RunStatus;
import dev.runkon.v1.StartRunRequest;
import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import java.util.UUID;

/** Starts runs and sees them through. */
final class Caller {
  private final RunServiceGrpc.RunServiceBlockingStub runs;
  private final GateServiceGrpc.GateServiceBlockingStub gates;
  private final String namespace;

  Caller(Channel channel, String namespace) {
    this.runs = RunServiceGrpc.newBlockingStub(channel);
    this.gates = GateServiceGrpc.newBlockingStub(channel);
    this.namespace = namespace;
  }

  /** Starts a run and follows it to its end, answering its gate on the way. */
  void greet(String name, String seconds) {
    var runId = start(name, seconds);
    System.err.println("run " + runId);

    var finished = RunFinished.getDefaultInstance();
    for (var events = new RunEvents(runs, namespace, runId); events.hasNext(); ) {
      var event = events.next();
      System.out.println(event.getSeq() + " " + event.getKind() + " " + stepName(event));
      switch (event.getPayloadCase()) {
        case GATE_WAITING -> approve(event.getGateWaiting().getGate());
        case RUN_FINISHED -> finished = event.getRunFinished();
        default -> {}
      }
    }
    if (finished.getStatus() != RunStatus.RUN_STATUS_COMPLETED) {
      throw new IllegalStateException(finished.getStatus() + ": " + finished.getError());
    }
  }

  private String start(String name, String seconds) {
    var request =
        StartRunRequest.newBuilder()
            .setNamespace(namespace)
            // The same in every attempt of this call: it starts one run.
            .setRequestId(UUID.randomUUID().toString())
            .setWorkflow("greeting")
            .putInputs("name", name)
            .putInputs("seconds", seconds)
            .build();
    return runs.withDeadlineAfter(CALL_TIMEOUT).startRun(request).getRun().getId();
  }

  /** Answers a gate. Somebody else may have been quicker, which is no trouble. */
  private void approve(Gate gate) {
    var request =
        ResolveGateRequest.newBuilder()
            .setNamespace(namespace)
            .setRequestId(UUID.randomUUID().toString())
            .setGateId(gate.getId())
            .setDecision(GateDecision.GATE_DECISION_APPROVE)
            .setFeedback("Please do")
            .build();
    try {
      gates.withDeadlineAfter(CALL_TIMEOUT).resolveGate(request);
    } catch (StatusRuntimeException e) {
      if (!Errors.reason(e).equals("GATE_ALREADY_RESOLVED")) {
        throw e;
      }
      System.err.println(Errors.describe(e));
    }
  }

  /** The name of the step that an event is about; empty if it is about none. */
  private static String stepName(RunEvent event) {
    return switch (event.getPayloadCase()) {
      case STEP_STARTED -> event.getStepStarted().getStep().getStepName();
      case STEP_COMPLETED -> event.getStepCompleted().getStep().getStepName();
      case STEP_FAILED -> event.getStepFailed().getStep().getStepName();
      case GATE_WAITING -> event.getGateWaiting().getStep().getStepName();
      default -> "";
    };
  }
}
