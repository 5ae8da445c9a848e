package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"log"
	"time"

	runkonv1 "runkon.dev/examples/clients/go/gen/runkon/v1"
)

const reconnectDelay = 200 * time.Millisecond

// caller starts runs and sees them through.
type caller struct {
	runs      runkonv1.RunServiceClient
	gates     runkonv1.GateServiceClient
	namespace string
}

// greet starts a run and follows it to its end, answering its gate on the way.
func (c *caller) greet(ctx context.Context, name, seconds string) error {
	started, err := c.runs.StartRun(ctx, &runkonv1.StartRunRequest{
		Namespace:  c.namespace,
		RequestId:  rand.Text(), // the same in every attempt of this call: it starts one run
		Definition: &runkonv1.StartRunRequest_Workflow{Workflow: "greeting"},
		Inputs:     map[string]string{"name": name, "seconds": seconds},
	})
	if err != nil {
		return err
	}
	log.Print("run ", started.GetRun().GetId())

	var finished *runkonv1.RunFinished
	for event, err := range c.events(ctx, started.GetRun().GetId()) {
		if err != nil {
			return err
		}
		fmt.Println(event.GetSeq(), event.GetKind(), stepName(event))
		switch payload := event.GetPayload().(type) {
		case *runkonv1.RunEvent_GateWaiting:
			if err := c.approve(ctx, payload.GateWaiting.GetGate()); err != nil {
				return err
			}
		case *runkonv1.RunEvent_RunFinished:
			finished = payload.RunFinished
		}
	}
	if finished.GetStatus() != runkonv1.RunStatus_RUN_STATUS_COMPLETED {
		return fmt.Errorf("%s: %s", finished.GetStatus(), finished.GetError())
	}
	return nil
}

// events are all events of a run, in order and each once, whatever happens to the connection, up
// to the run's end. An error is the last element.
func (c *caller) events(ctx context.Context, runID string) iter.Seq2[*runkonv1.RunEvent, error] {
	return func(yield func(*runkonv1.RunEvent, error) bool) {
		var seen int64
		for {
			err := c.read(ctx, runID, seen, func(event *runkonv1.RunEvent) bool {
				if event.GetSeq() <= seen {
					return true
				}
				seen = event.GetSeq()
				return yield(event, nil)
			})
			if err == nil {
				return
			}
			if isFinal(err) || ctx.Err() != nil {
				yield(nil, err)
				return
			}
			log.Printf("events lost after %d, reconnecting: %s", seen, describe(err))
			sleep(ctx, reconnectDelay)
		}
	}
}

// read hands the events of one stream to take, until that wants no more or the run has ended. A
// stream that closes before is an error, io.EOF if it closed in peace.
func (c *caller) read(
	ctx context.Context, runID string, after int64, take func(*runkonv1.RunEvent) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.runs.StreamRunEvents(ctx, &runkonv1.StreamRunEventsRequest{
		Namespace: c.namespace,
		RunId:     runID,
		Cursor:    &runkonv1.StreamRunEventsRequest_AfterSeq{AfterSeq: after},
	})
	if err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		if frame.GetEnd() != nil {
			return nil
		}
		for _, event := range frame.GetEvents().GetEvents() {
			if !take(event) {
				return nil
			}
		}
	}
}

// approve answers a gate. Somebody else may have been quicker, which is no trouble.
func (c *caller) approve(ctx context.Context, gate *runkonv1.Gate) error {
	_, err := c.gates.ResolveGate(ctx, &runkonv1.ResolveGateRequest{
		Namespace: c.namespace,
		RequestId: rand.Text(),
		Target:    &runkonv1.ResolveGateRequest_GateId{GateId: gate.GetId()},
		Decision:  runkonv1.GateDecision_GATE_DECISION_APPROVE,
		Feedback:  "Please do",
	})
	if reason(err) == "GATE_ALREADY_RESOLVED" {
		log.Print(describe(err))
		return nil
	}
	return err
}

// stepName is the name of the step that an event is about; empty if it is about none.
func stepName(event *runkonv1.RunEvent) string {
	return cmp.Or(
		event.GetStepStarted().GetStep().GetStepName(),
		event.GetStepCompleted().GetStep().GetStepName(),
		event.GetStepFailed().GetStep().GetStepName(),
		event.GetGateWaiting().GetStep().GetStepName(),
	)
}
