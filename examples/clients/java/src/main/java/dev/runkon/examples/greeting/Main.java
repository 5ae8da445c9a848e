package dev.runkon.examples.greeting;

import dev.runkon.v1.StepResult;
import dev.runkon.v1.TaskLease;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;

/**
 * Runs one workflow and plays every part in it: starts a run, follows the run's events, answers its
 * gate, and executes its action as a worker.
 *
 * <pre>java -jar target/greeting.jar [NAME [SECONDS]]</pre>
 *
 * RUNKON_ADDRESS and RUNKON_NAMESPACE say where. Events go to standard output, everything else to
 * standard error.
 */
public final class Main {
  private static final int CONCURRENCY = 4;

  private Main() {}

  public static void main(String[] args) throws InterruptedException {
    var address = System.getenv().getOrDefault("RUNKON_ADDRESS", "127.0.0.1:7411");
    var namespace = System.getenv().getOrDefault("RUNKON_NAMESPACE", "");
    var name = args.length > 0 ? args[0] : "Ada";
    var seconds = args.length > 1 ? args[1] : "1";

    var channel = Connection.open(address);
    var worker = new Worker(channel, namespace, CONCURRENCY, Map.of("greet", Main::greet));
    var caller = new Caller(channel, namespace);
    var working = worker.start();
    var calling = CompletableFuture.runAsync(() -> caller.greet(name, seconds));
    var code = 0;
    try {
      CompletableFuture.anyOf(calling, working).join();
    } catch (CompletionException e) {
      System.err.println(Errors.describe(e.getCause()));
      code = 1;
    }
    worker.drain();
    working.exceptionally(told -> null).join();
    channel.shutdownNow().awaitTermination(1, TimeUnit.SECONDS);
    System.exit(code);
  }

  /** The action of this example. */
  private static StepResult greet(TaskLease lease) throws InterruptedException {
    var seconds = Double.parseDouble(lease.getInputsOrThrow("seconds"));
    TimeUnit.MILLISECONDS.sleep(Math.round(seconds * 1000));
    return StepResult.newBuilder()
        .setContext("Hello, " + lease.getInputsOrThrow("name") + "!")
        .build();
  }
}
