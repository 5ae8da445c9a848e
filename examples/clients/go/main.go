// Command greeting runs one workflow and plays every part in it: it starts a run, follows the
// run's events, answers its gate, and executes its action as a worker.
//
//	greeting [NAME [SECONDS]]
//
// RUNKON_ADDRESS and RUNKON_NAMESPACE say where. Events go to standard output, everything else to
// standard error.
package main

//go:generate buf generate

import (
	"cmp"
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	runkonv1 "runkon.dev/examples/clients/go/gen/runkon/v1"
)

const concurrency = 4

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(describe(err))
	}
}

func run(ctx context.Context, args []string) error {
	name, seconds := "Ada", "1"
	if len(args) > 0 {
		name = args[0]
	}
	if len(args) > 1 {
		seconds = args[1]
	}
	conn, err := dial(cmp.Or(os.Getenv("RUNKON_ADDRESS"), "127.0.0.1:7411"))
	if err != nil {
		return err
	}
	defer conn.Close()

	namespace := os.Getenv("RUNKON_NAMESPACE")
	ctx, giveUp := context.WithCancelCause(ctx)
	drain := startWorker(ctx, conn, namespace, giveUp)
	defer drain()
	caller := &caller{
		runs:      runkonv1.NewRunServiceClient(conn),
		gates:     runkonv1.NewGateServiceClient(conn),
		namespace: namespace,
	}
	if err := caller.greet(ctx, name, seconds); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return nil
}

// startWorker serves the action in the background and gives up if it cannot. The answer drains the
// worker and waits for its end.
func startWorker(
	ctx context.Context, conn *grpc.ClientConn, namespace string, giveUp context.CancelCauseFunc,
) (drain func()) {
	worker := newWorker(runkonv1.NewWorkerServiceClient(conn), namespace, concurrency)
	worker.handle("greet", greet)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := worker.run(ctx); err != nil {
			giveUp(err)
		}
	}()
	return func() {
		worker.drain()
		<-done
	}
}
