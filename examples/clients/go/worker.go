package main

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	runkonv1 "runkon.dev/examples/clients/go/gen/runkon/v1"
)

// action executes one task. Its context ends when the task is no longer wanted; an error is
// retried as often as the workflow says.
type action func(ctx context.Context, lease *runkonv1.TaskLease) (*runkonv1.StepResult, error)

// greet is the action of this example.
func greet(ctx context.Context, lease *runkonv1.TaskLease) (*runkonv1.StepResult, error) {
	seconds, err := strconv.ParseFloat(lease.GetInputs()["seconds"], 64)
	if err != nil {
		return nil, err
	}
	sleep(ctx, time.Duration(seconds*float64(time.Second)))
	return &runkonv1.StepResult{Context: "Hello, " + lease.GetInputs()["name"] + "!"}, ctx.Err()
}

// worker executes tasks. What it holds outlives the stream by which it came: a lease belongs to its
// token, and a report may go out on any later stream.
type worker struct {
	service     runkonv1.WorkerServiceClient
	namespace   string
	concurrency int
	actions     map[string]action

	// Of the goroutine in run alone:
	running map[string]*task                // by token
	unacked map[string]*runkonv1.TaskReport // by token
	leaving bool

	ended    chan *runkonv1.TaskReport
	draining chan struct{}
}

// task is a lease and the way to stop the work on it.
type task struct {
	lease  *runkonv1.TaskLease
	cancel context.CancelFunc
}

func newWorker(
	service runkonv1.WorkerServiceClient, namespace string, concurrency int,
) *worker {
	return &worker{
		service:     service,
		namespace:   namespace,
		concurrency: concurrency,
		actions:     map[string]action{},
		running:     map[string]*task{},
		unacked:     map[string]*runkonv1.TaskReport{},
		ended:       make(chan *runkonv1.TaskReport, concurrency),
		draining:    make(chan struct{}),
	}
}

// handle registers an action; not while the worker runs.
func (w *worker) handle(name string, do action) { w.actions[name] = do }

// drain lets the worker finish what it holds and end; once only.
func (w *worker) drain() { close(w.draining) }

// run works until the worker is drained, over as many streams as it takes.
func (w *worker) run(ctx context.Context) error {
	for {
		err := w.serve(ctx)
		if err == nil || isFinal(err) || ctx.Err() != nil {
			return err
		}
		log.Print("work stream lost, reconnecting: ", describe(err))
		sleep(ctx, reconnectDelay)
	}
}

// errServerDrains ends a stream whose replica goes away.
var errServerDrains = errors.New("the replica goes away")

// serve works over one stream; nil if the worker was drained and everything is reported. The work
// goes on when the stream ends.
func (w *worker) serve(ctx context.Context) error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.service.Work(streamCtx)
	if err != nil {
		return err
	}
	// What Send fails of, Recv tells.
	_ = stream.Send(w.hello())
	frames, lost := receive(streamCtx, stream)
	draining := w.draining
	beat := time.NewTicker(time.Minute) // until the welcome says how often
	defer beat.Stop()
	for !w.leaving || len(w.running)+len(w.unacked) > 0 {
		request := &runkonv1.WorkRequest{}
		select {
		case frame := <-frames:
			if welcome := frame.GetWelcome(); welcome != nil {
				beat.Reset(welcome.GetHeartbeatInterval().AsDuration())
			}
			if drain := frame.GetDrain(); drain != nil {
				sleep(ctx, drain.GetReconnectDelay().AsDuration())
				return errServerDrains
			}
			w.take(ctx, frame, request)
		case report := <-w.ended:
			delete(w.running, report.GetToken())
			w.unacked[report.GetToken()] = report
			request.Reports = append(request.Reports, report)
		case <-beat.C:
			request.Heartbeats = w.heartbeats()
			request.Reports = slices.Collect(maps.Values(w.unacked)) // again is no harm
		case <-draining:
			draining, w.leaving = nil, true
			request.Drain = &runkonv1.WorkerDrain{}
		case err := <-lost:
			return err
		}
		if proto.Size(request) > 0 {
			_ = stream.Send(request)
		}
	}
	_ = stream.CloseSend()
	if err := <-lost; !errors.Is(err, io.EOF) {
		log.Print("work stream: ", describe(err)) // everything was acknowledged
	}
	return nil
}

// hello opens a stream, with all that an earlier one may have lost.
func (w *worker) hello() *runkonv1.WorkRequest {
	hostname, _ := os.Hostname()
	request := &runkonv1.WorkRequest{
		Hello: &runkonv1.WorkerHello{
			Namespace:   w.namespace,
			WorkerId:    hostname + "-" + strconv.Itoa(os.Getpid()),
			Actions:     slices.Sorted(maps.Keys(w.actions)),
			Concurrency: int32(w.concurrency),
			Client:      "example-go",
		},
		Reports:    slices.Collect(maps.Values(w.unacked)),
		Heartbeats: w.heartbeats(),
		Credit:     int32(w.concurrency - len(w.running) - len(w.unacked)),
	}
	if w.leaving {
		request.Credit, request.Drain = 0, &runkonv1.WorkerDrain{}
	}
	return request
}

// heartbeats keep the leases of everything in hand. With a `progress` they would also tell people
// how far the work is.
func (w *worker) heartbeats() []*runkonv1.TaskHeartbeat {
	var beats []*runkonv1.TaskHeartbeat
	for token, task := range w.running {
		beats = append(beats, &runkonv1.TaskHeartbeat{TaskId: task.lease.GetTaskId(), Token: token})
	}
	return beats
}

// take does what a frame says; what is to be answered goes into the next request.
func (w *worker) take(
	ctx context.Context, frame *runkonv1.WorkResponse, request *runkonv1.WorkRequest,
) {
	for _, lease := range frame.GetLeases() {
		taskCtx, cancel := context.WithCancel(ctx)
		w.running[lease.GetToken()] = &task{lease, cancel}
		go func() {
			defer cancel()
			w.ended <- w.execute(taskCtx, lease)
		}()
	}
	for _, cancelled := range frame.GetCancels() {
		if task := w.running[cancelled.GetToken()]; task != nil {
			task.cancel()
		}
	}
	for _, ack := range frame.GetAcks() {
		if w.unacked[ack.GetToken()] == nil {
			continue // of a report that was repeated
		}
		if codes.Code(ack.GetError().GetCode()) == codes.Unavailable {
			continue // the next heartbeat repeats it
		}
		if ack.GetError() != nil {
			log.Printf("report: %s: %s", ack.GetError().GetReason(), ack.GetError().GetMessage())
		}
		delete(w.unacked, ack.GetToken())
		request.Credit++ // a report gives none back by itself
	}
}

// execute works on one task.
func (w *worker) execute(ctx context.Context, lease *runkonv1.TaskLease) *runkonv1.TaskReport {
	report := &runkonv1.TaskReport{TaskId: lease.GetTaskId(), Token: lease.GetToken()}
	result, err := w.actions[lease.GetAction()](ctx, lease)
	switch {
	case ctx.Err() != nil:
		report.Outcome = &runkonv1.TaskReport_Cancelled{Cancelled: &runkonv1.TaskCancelled{}}
	case err != nil:
		report.Outcome = &runkonv1.TaskReport_Failure{
			Failure: &runkonv1.TaskFailure{Message: err.Error()},
		}
	default:
		report.Outcome = &runkonv1.TaskReport_Result{Result: result}
	}
	return report
}

// receive reads a stream in the background: frames, then what ended it.
func receive(
	ctx context.Context, stream runkonv1.WorkerService_WorkClient,
) (<-chan *runkonv1.WorkResponse, <-chan error) {
	frames, lost := make(chan *runkonv1.WorkResponse), make(chan error, 1)
	go func() {
		for {
			frame, err := stream.Recv()
			if err != nil {
				lost <- err
				return
			}
			select {
			case frames <- frame:
			case <-ctx.Done():
				return
			}
		}
	}()
	return frames, lost
}
