use std::collections::VecDeque;

use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use uuid::Uuid;

use crate::connection::{RETRY_DELAY, retry};
use crate::errors::{describe, is_final, reason};
use crate::runkon::v1::gate_service_client::GateServiceClient;
use crate::runkon::v1::resolve_gate_request::Target;
use crate::runkon::v1::run_event::Payload;
use crate::runkon::v1::run_service_client::RunServiceClient;
use crate::runkon::v1::start_run_request::Definition;
use crate::runkon::v1::stream_run_events_request::Cursor;
use crate::runkon::v1::stream_run_events_response::Frame;
use crate::runkon::v1::{
    GateDecision, ResolveGateRequest, RunEvent, RunStatus, StartRunRequest, Step,
    StreamRunEventsRequest, StreamRunEventsResponse,
};

/// Starts runs and sees them through.
pub struct Caller {
    runs: RunServiceClient<Channel>,
    gates: GateServiceClient<Channel>,
    namespace: String,
}

impl Caller {
    pub fn new(channel: Channel, namespace: &str) -> Self {
        Self {
            runs: RunServiceClient::new(channel.clone()),
            gates: GateServiceClient::new(channel),
            namespace: namespace.into(),
        }
    }

    /// Starts a run and follows it to its end, answering its gate on the way.
    pub async fn greet(&mut self, name: &str, seconds: &str) -> Result<(), String> {
        let run_id = self.start(name, seconds).await.map_err(describe)?;
        eprintln!("run {run_id}");

        let mut events = Events::of(self.runs.clone(), &self.namespace, &run_id);
        let mut finished = None;
        while let Some(event) = events.next().await.map_err(describe)? {
            println!(
                "{} {} {}",
                event.seq,
                event.kind().as_str_name(),
                step_name(&event)
            );
            match event.payload {
                Some(Payload::GateWaiting(waiting)) => {
                    let gate_id = waiting.gate.unwrap_or_default().id;
                    self.approve(gate_id).await.map_err(describe)?;
                }
                Some(Payload::RunFinished(payload)) => finished = Some(payload),
                _ => {}
            }
        }
        let finished = finished.unwrap_or_default();
        match finished.status() {
            RunStatus::Completed => Ok(()),
            status => Err(format!("{}: {}", status.as_str_name(), finished.error)),
        }
    }

    async fn start(&mut self, name: &str, seconds: &str) -> Result<String, Status> {
        let inputs = [("name", name), ("seconds", seconds)];
        let request = StartRunRequest {
            namespace: self.namespace.clone(),
            // The same in every attempt of this call: it starts one run.
            request_id: Uuid::new_v4().to_string(),
            definition: Some(Definition::Workflow("greeting".into())),
            inputs: inputs.map(|(key, value)| (key.into(), value.into())).into(),
            ..Default::default()
        };
        let answer = retry(request, async |request| self.runs.start_run(request).await).await?;
        Ok(answer.run.unwrap_or_default().id)
    }

    /// Answers a gate. Somebody else may have been quicker, which is no trouble.
    async fn approve(&mut self, gate_id: String) -> Result<(), Status> {
        let request = ResolveGateRequest {
            namespace: self.namespace.clone(),
            request_id: Uuid::new_v4().to_string(),
            target: Some(Target::GateId(gate_id)),
            decision: GateDecision::Approve.into(),
            feedback: "Please do".into(),
            ..Default::default()
        };
        match retry(request, async |request| {
            self.gates.resolve_gate(request).await
        })
        .await
        {
            Err(status) if reason(&status) == "GATE_ALREADY_RESOLVED" => {
                eprintln!("{}", describe(status));
                Ok(())
            }
            answer => answer.map(drop),
        }
    }
}

/// All events of a run, in order and each once, whatever happens to the connection.
struct Events {
    runs: RunServiceClient<Channel>,
    namespace: String,
    run_id: String,
    seen: i64,
    stream: Option<Streaming<StreamRunEventsResponse>>,
    at_hand: VecDeque<RunEvent>,
}

impl Events {
    fn of(runs: RunServiceClient<Channel>, namespace: &str, run_id: &str) -> Self {
        Self {
            runs,
            namespace: namespace.into(),
            run_id: run_id.into(),
            seen: 0,
            stream: None,
            at_hand: VecDeque::new(),
        }
    }

    /// The next event; none after the run has ended.
    async fn next(&mut self) -> Result<Option<RunEvent>, Status> {
        loop {
            if let Some(event) = self.at_hand.pop_front() {
                if event.seq > self.seen {
                    self.seen = event.seq;
                    return Ok(Some(event));
                }
                continue;
            }
            match self.frame().await {
                Ok(Some(Frame::Events(batch))) => self.at_hand = batch.events.into(),
                Ok(Some(Frame::End(_))) => return Ok(None),
                Ok(_) => {}
                Err(status) if is_final(&status) => return Err(status),
                Err(status) => {
                    let after = self.seen;
                    eprintln!(
                        "events lost after {after}, reconnecting: {}",
                        describe(status)
                    );
                    self.stream = None;
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// The next frame of a stream, which is opened if there is none.
    async fn frame(&mut self) -> Result<Option<Frame>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let request = StreamRunEventsRequest {
                    namespace: self.namespace.clone(),
                    run_id: self.run_id.clone(),
                    cursor: Some(Cursor::AfterSeq(self.seen)),
                    ..Default::default()
                };
                none.insert(self.runs.stream_run_events(request).await?.into_inner())
            }
        };
        let response = stream.message().await?;
        let closed = || Status::unavailable("the stream was closed before the run had ended");
        Ok(response.ok_or_else(closed)?.frame)
    }
}

/// The name of the step that an event is about; empty if it is about none.
fn step_name(event: &RunEvent) -> &str {
    let step: Option<&Step> = match &event.payload {
        Some(Payload::StepStarted(payload)) => payload.step.as_ref(),
        Some(Payload::StepCompleted(payload)) => payload.step.as_ref(),
        Some(Payload::StepFailed(payload)) => payload.step.as_ref(),
        Some(Payload::GateWaiting(payload)) => payload.step.as_ref(),
        _ => None,
    };
    step.map_or("", |step| &step.step_name)
}
