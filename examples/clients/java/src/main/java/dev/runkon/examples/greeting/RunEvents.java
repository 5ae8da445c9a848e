package dev.runkon.examples.greeting;

import dev.runkon.v1.RunEvent;
import dev.runkon.v1.RunServiceGrpc;
import dev.runkon.v1.StreamRunEventsRequest;
import dev.runkon.v1.StreamRunEventsResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Queue;
import java.util.concurrent.locks.LockSupport;

/**
 * All events of a run, in order and each once, whatever happens to the connection, up to the run's
 * end. Throws {@link StatusRuntimeException} if the server refuses.
 */
final class RunEvents implements Iterator<RunEvent> {
  private final RunServiceGrpc.RunServiceBlockingStub runs;
  private final StreamRunEventsRequest request;
  private final Queue<RunEvent> atHand = new ArrayDeque<>();
  private Iterator<StreamRunEventsResponse> frames;
  private long seen;
  private boolean hasEnded;

  RunEvents(RunServiceGrpc.RunServiceBlockingStub runs, String namespace, String runId) {
    this.runs = runs;
    this.request =
        StreamRunEventsRequest.newBuilder().setNamespace(namespace).setRunId(runId).build();
  }

  @Override
  public boolean hasNext() {
    while (atHand.isEmpty() && !hasEnded) {
      try {
        read();
      } catch (StatusRuntimeException e) {
        if (Errors.isFinal(e)) {
          throw e;
        }
        System.err.println("events lost after " + seen + ", reconnecting: " + Errors.describe(e));
        frames = null;
        LockSupport.parkNanos(Connection.RECONNECT_DELAY.toNanos());
      }
    }
    return !atHand.isEmpty();
  }

  @Override
  public RunEvent next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    return atHand.remove();
  }

  /** Takes in one frame, of a new stream if there is none. */
  private void read() {
    if (frames == null) {
      frames = runs.streamRunEvents(request.toBuilder().setAfterSeq(seen).build());
    }
    if (!frames.hasNext()) {
      throw Status.UNAVAILABLE.withDescription("the stream was closed").asRuntimeException();
    }
    var frame = frames.next();
    for (var event : frame.getEvents().getEventsList()) {
      if (event.getSeq() > seen) {
        seen = event.getSeq();
        atHand.add(event);
      }
    }
    hasEnded = frame.hasEnd();
  }
}
