import * as grpc from "@grpc/grpc-js";

const CALL_TIMEOUT_MS = 30_000;
const PRINCIPAL = "ada";

/**
 * gRPC repeats calls that fail with UNAVAILABLE and waits for a server that is away. Repeating a
 * change is safe because it carries a `requestId`.
 */
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [
        "RunService",
        "GateService",
        "WorkflowService",
        "WorkerService",
        "AdminService",
      ].map((name) => ({ service: `runkon.v1.${name}` })),
      waitForReady: true,
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

/** For every client of one process: those with equal options and address share a connection. */
export const CHANNEL_OPTIONS: grpc.ClientOptions = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.enable_http_proxy": 0,
};

/** How long to wait before a stream is opened again. */
export const RECONNECT_DELAY_MS = 200;

type Method<Request, Response> = (
  request: Request,
  metadata: grpc.Metadata,
  options: Partial<grpc.CallOptions>,
  callback: (error: grpc.ServiceError | null, response: Response) => void,
) => grpc.ClientUnaryCall;

/** Makes a unary call with a deadline, in the name of a principal. */
export function call<Request, Response>(
  method: Method<Request, Response>,
  request: Request,
): Promise<Response> {
  const metadata = new grpc.Metadata();
  metadata.set("runkon-principal", PRINCIPAL);
  return new Promise((resolve, reject) => {
    method(request, metadata, { deadline: Date.now() + CALL_TIMEOUT_MS }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}
