package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// serviceConfig lets gRPC repeat calls that fail with UNAVAILABLE, and wait for a server that is
// away. Repeating a change is safe because it carries a request_id.
const serviceConfig = `{"methodConfig": [{
  "name": [
    {"service": "runkon.v1.RunService"},
    {"service": "runkon.v1.GateService"},
    {"service": "runkon.v1.WorkflowService"},
    {"service": "runkon.v1.WorkerService"},
    {"service": "runkon.v1.AdminService"}
  ],
  "waitForReady": true,
  "retryPolicy": {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
  }
}]}`

const (
	principal   = "ada"
	callTimeout = 30 * time.Second
)

// dial connects with the first call. A peer that does not answer a ping within 5 s is given up.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                20 * time.Second,
			Timeout:             5 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.WithNoProxy(),
		grpc.WithUnaryInterceptor(asPrincipal),
	)
}

// asPrincipal says with every call who is calling, and gives it a deadline.
func asPrincipal(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "runkon-principal", principal)
	return invoke(ctx, method, request, response, conn, options...)
}

// sleep waits for d, or less if the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
