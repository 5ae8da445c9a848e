package dev.runkon.examples.greeting;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** How this program talks to the server. */
final class Connection {
  /** How long to wait before a stream is opened again. */
  static final Duration RECONNECT_DELAY = Duration.ofMillis(200);

  /** What a unary call may take, with all its attempts. */
  static final Duration CALL_TIMEOUT = Duration.ofSeconds(30);

  private static final String PRINCIPAL = "ada";

  /**
   * Lets gRPC repeat calls that fail with UNAVAILABLE, and wait for a server that is away.
   * Repeating a change is safe because it carries a request_id.
   */
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(
                      Map.of("service", "runkon.v1.RunService"),
                      Map.of("service", "runkon.v1.GateService"),
                      Map.of("service", "runkon.v1.WorkflowService"),
                      Map.of("service", "runkon.v1.WorkerService"),
                      Map.of("service", "runkon.v1.AdminService")),
                  "waitForReady",
                  true,
                  "retryPolicy",
                  Map.of(
                      "maxAttempts",
                      5.0,
                      "initialBackoff",
                      "0.2s",
                      "maxBackoff",
                      "2s",
                      "backoffMultiplier",
                      2.0,
                      "retryableStatusCodes",
                      List.of("UNAVAILABLE")))));

  private Connection() {}

  /**
   * A channel that connects with its first call. A peer that does not answer a ping within 5 s is
   * given up.
   */
  static ManagedChannel open(String address) {
    var headers = new Metadata();
    headers.put(Metadata.Key.of("runkon-principal", Metadata.ASCII_STRING_MARSHALLER), PRINCIPAL);
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(5, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        .intercept(MetadataUtils.newAttachHeadersInterceptor(headers))
        .build();
  }
}
