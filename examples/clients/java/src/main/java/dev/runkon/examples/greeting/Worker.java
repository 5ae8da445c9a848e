package dev.runkon.examples.greeting;

import dev.runkon.v1.StepResult;
import dev.runkon.v1.TaskCancelled;
import dev.runkon.v1.TaskFailure;
import dev.runkon.v1.TaskHeartbeat;
import dev.runkon.v1.TaskLease;
import dev.runkon.v1.TaskReport;
import dev.runkon.v1.WorkRequest;
import dev.runkon.v1.WorkResponse;
import dev.runkon.v1.WorkerDrain;
import dev.runkon.v1.WorkerHello;
import dev.runkon.v1.WorkerServiceGrpc;
import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * Executes tasks. What it holds outlives the stream by which it came: a lease belongs to its token,
 * and a report may go out on any later stream.
 */
final class Worker {
  /**
   * Executes one task. It is interrupted when the task is no longer wanted; an exception is retried
   * as often as the workflow says.
   */
  interface Action {
    StepResult execute(TaskLease lease) throws Exception;
  }

  private record Running(TaskLease lease, Thread thread) {}

  private final WorkerServiceGrpc.WorkerServiceStub service;
  private final String namespace;
  private final int concurrency;
  private final Map<String, Action> actions;
  private final CompletableFuture<Void> end = new CompletableFuture<>();

  /** The thread that everything below belongs to. */
  private final ScheduledExecutorService loop = Executors.newSingleThreadScheduledExecutor();

  private final Map<String, Running> running = new HashMap<>(); // by token
  private final Map<String, TaskReport> unacked = new HashMap<>(); // by token
  private Session session; // null between two streams
  private boolean isLeaving;

  Worker(Channel channel, String namespace, int concurrency, Map<String, Action> actions) {
    this.service = WorkerServiceGrpc.newStub(channel);
    this.namespace = namespace;
    this.concurrency = concurrency;
    this.actions = Map.copyOf(actions);
  }

  /** Works until the worker is drained, over as many streams as it takes. */
  CompletableFuture<Void> start() {
    loop.execute(this::connect);
    return end.whenComplete((nothing, error) -> loop.shutdownNow());
  }

  /** Lets the worker finish what it holds and end. */
  void drain() {
    if (end.isDone()) {
      return;
    }
    loop.execute(
        () -> {
          isLeaving = true;
          send(WorkRequest.newBuilder().setDrain(WorkerDrain.getDefaultInstance()));
          closeIfDone();
        });
  }

  private boolean isDone() {
    return isLeaving && running.isEmpty() && unacked.isEmpty();
  }

  private void connect() {
    session = new Session();
    session.requests = service.work(session);
    send(hello());
    closeIfDone();
  }

  private void send(WorkRequest.Builder request) {
    if (session != null) {
      session.requests.onNext(request.build());
    }
  }

  private void closeIfDone() {
    if (isDone() && session != null) {
      session.requests.onCompleted();
    }
  }

  /** What opens a stream, with all that an earlier one may have lost. */
  private WorkRequest.Builder hello() {
    var hello =
        WorkerHello.newBuilder()
            .setNamespace(namespace)
            .setWorkerId("java-" + ProcessHandle.current().pid())
            .addAllActions(actions.keySet())
            .setConcurrency(concurrency)
            .setClient("example-java");
    var request =
        WorkRequest.newBuilder()
            .setHello(hello)
            .addAllReports(unacked.values())
            .addAllHeartbeats(heartbeats());
    return isLeaving
        ? request.setDrain(WorkerDrain.getDefaultInstance())
        : request.setCredit(concurrency - running.size() - unacked.size());
  }

  /** With a `progress` they would also tell people how far the work is. */
  private List<TaskHeartbeat> heartbeats() {
    return running.values().stream()
        .map(Running::lease)
        .map(
            lease ->
                TaskHeartbeat.newBuilder()
                    .setTaskId(lease.getTaskId())
                    .setToken(lease.getToken())
                    .build())
        .toList();
  }

  /** Works on one task; not in the loop. */
  private void work(TaskLease lease) {
    var report = TaskReport.newBuilder().setTaskId(lease.getTaskId()).setToken(lease.getToken());
    try {
      report.setResult(actions.get(lease.getAction()).execute(lease));
    } catch (InterruptedException e) {
      report.setCancelled(TaskCancelled.getDefaultInstance());
    } catch (Exception e) { // whatever an action fails of
      report.setFailure(TaskFailure.newBuilder().setMessage(e.toString()));
    }
    loop.execute(() -> report(report.build()));
  }

  private void report(TaskReport report) {
    running.remove(report.getToken());
    unacked.put(report.getToken(), report);
    send(WorkRequest.newBuilder().addReports(report));
  }

  /** One stream. The work goes on when it ends. */
  private final class Session implements StreamObserver<WorkResponse> {
    private StreamObserver<WorkRequest> requests;
    private Future<?> beat = CompletableFuture.completedFuture(null);

    @Override
    public void onNext(WorkResponse frame) {
      loop.execute(() -> take(frame));
    }

    @Override
    public void onError(Throwable error) {
      loop.execute(() -> lost(error, Connection.RECONNECT_DELAY));
    }

    @Override
    public void onCompleted() {
      onError(Status.UNAVAILABLE.withDescription("the stream was closed").asRuntimeException());
    }

    private void lost(Throwable error, Duration delay) {
      if (session != this) {
        return; // a stream that was left before
      }
      session = null;
      beat.cancel(false);
      if (isDone()) {
        end.complete(null);
      } else if (Errors.isFinal(error)) {
        end.completeExceptionally(error);
      } else {
        System.err.println("work stream lost, reconnecting: " + Errors.describe(error));
        loop.schedule(Worker.this::connect, delay.toMillis(), TimeUnit.MILLISECONDS);
      }
    }

    /** Does what a frame says. */
    private void take(WorkResponse frame) {
      if (frame.hasWelcome()) {
        var interval = frame.getWelcome().getHeartbeatInterval();
        var millis = duration(interval).toMillis();
        beat = loop.scheduleAtFixedRate(this::beat, millis, millis, TimeUnit.MILLISECONDS);
      }
      for (var lease : frame.getLeasesList()) {
        var thread = new Thread(() -> work(lease), lease.getStepName());
        running.put(lease.getToken(), new Running(lease, thread));
        thread.start();
      }
      for (var cancel : frame.getCancelsList()) {
        var task = running.get(cancel.getToken());
        if (task != null) {
          task.thread().interrupt();
        }
      }
      for (var ack : frame.getAcksList()) {
        if (ack.getError().getCode() == Status.Code.UNAVAILABLE.value()) {
          continue; // the next heartbeat repeats the report
        }
        if (ack.hasError()) {
          System.err.println(ack.getError().getReason() + ": " + ack.getError().getMessage());
        }
        // A report gives no credit back by itself. One that was repeated has two answers.
        if (unacked.remove(ack.getToken()) != null) {
          send(WorkRequest.newBuilder().setCredit(1));
        }
      }
      closeIfDone();
      if (frame.hasDrain()) {
        requests.onCompleted();
        var away = Status.UNAVAILABLE.withDescription("the replica goes away");
        lost(away.asRuntimeException(), duration(frame.getDrain().getReconnectDelay()));
      }
    }

    /** Keeps what is in hand, and repeats reports without an answer: again is no harm. */
    private void beat() {
      send(WorkRequest.newBuilder().addAllHeartbeats(heartbeats()).addAllReports(unacked.values()));
    }
  }

  private static Duration duration(com.google.protobuf.Duration span) {
    return Duration.ofSeconds(span.getSeconds(), span.getNanos());
  }
}
