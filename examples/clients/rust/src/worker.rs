use std::collections::HashMap;
use std::pin::Pin;
use std::process;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Interval, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::connection::RETRY_DELAY;
use crate::errors::{describe, is_final};
use crate::runkon::v1::task_report::Outcome;
use crate::runkon::v1::worker_service_client::WorkerServiceClient;
use crate::runkon::v1::{
    StepResult, TaskCancelled, TaskFailure, TaskHeartbeat, TaskLease, TaskReport, WorkRequest,
    WorkResponse, WorkerDrain, WorkerHello,
};

type Done = Result<StepResult, String>;

/// Executes one task. It is dropped when the task is no longer wanted; an error is retried as often
/// as the workflow says.
pub type Action = fn(TaskLease) -> Pin<Box<dyn Future<Output = Done> + Send>>;

/// Executes tasks. What it holds outlives the stream by which it came: a lease belongs to its
/// token, and a report may go out on any later stream.
pub struct Worker {
    service: WorkerServiceClient<Channel>,
    namespace: String,
    concurrency: usize,
    actions: HashMap<String, Action>,
    work: JoinSet<Done>,
    running: HashMap<Id, (TaskLease, AbortHandle)>,
    unacked: HashMap<String, TaskReport>, // by token
    is_leaving: bool,
}

impl Worker {
    pub fn new(channel: Channel, namespace: &str, concurrency: usize) -> Self {
        Self {
            service: WorkerServiceClient::new(channel),
            namespace: namespace.into(),
            concurrency,
            actions: HashMap::new(),
            work: JoinSet::new(),
            running: HashMap::new(),
            unacked: HashMap::new(),
            is_leaving: false,
        }
    }

    pub fn handle(&mut self, name: &str, action: Action) {
        self.actions.insert(name.into(), action);
    }

    /// Works until it is told to drain and has finished what it holds, over as many streams as it
    /// takes.
    pub async fn run(&mut self, mut draining: oneshot::Receiver<()>) -> Result<(), Status> {
        loop {
            match self.serve(&mut draining).await {
                Err(status) if !is_final(&status) => {
                    eprintln!("work stream lost, reconnecting: {}", describe(status));
                    sleep(RETRY_DELAY).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Works over one stream. The work goes on when the stream ends.
    async fn serve(&mut self, draining: &mut oneshot::Receiver<()>) -> Result<(), Status> {
        let (outbox, requests) = mpsc::channel(1);
        let opening = outbox.send(self.hello());
        let call = self.service.work(ReceiverStream::new(requests));
        let (answer, _) = tokio::join!(call, opening);
        let mut frames = answer?.into_inner();
        let mut beat: Option<Interval> = None; // until the welcome says how often
        while !self.is_done() {
            let request = tokio::select! {
                frame = frames.message() => {
                    let closed = || Status::unavailable("the server closed the stream");
                    let frame = frame?.ok_or_else(closed)?;
                    if let Some(welcome) = &frame.welcome {
                        beat = Some(interval(duration(welcome.heartbeat_interval)));
                    }
                    if let Some(drain) = frame.drain {
                        sleep(duration(drain.reconnect_delay)).await;
                        return Err(Status::unavailable("the replica goes away"));
                    }
                    self.take(frame)
                }
                Some(ended) = self.work.join_next_with_id() => self.report(ended),
                () = tick(&mut beat) => WorkRequest {
                    heartbeats: self.heartbeats(),
                    reports: self.unacked.values().cloned().collect(), // again is no harm
                    ..Default::default()
                },
                _ = &mut *draining, if !self.is_leaving => {
                    self.is_leaving = true;
                    WorkRequest { drain: Some(WorkerDrain {}), ..Default::default() }
                }
            };
            if request != WorkRequest::default() {
                // It fails if the stream is lost, which the next frame tells.
                let _ = outbox.send(request).await;
            }
        }
        drop(outbox); // closes this side
        while let Ok(Some(_)) = frames.message().await {}
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.is_leaving && self.running.is_empty() && self.unacked.is_empty()
    }

    /// What opens a stream, with all that an earlier one may have lost.
    fn hello(&self) -> WorkRequest {
        let room = self.concurrency - self.running.len() - self.unacked.len();
        WorkRequest {
            hello: Some(WorkerHello {
                namespace: self.namespace.clone(),
                worker_id: format!("rust-{}", process::id()),
                actions: self.actions.keys().cloned().collect(),
                concurrency: self.concurrency as i32,
                client: "example-rust".into(),
                ..Default::default()
            }),
            reports: self.unacked.values().cloned().collect(),
            heartbeats: self.heartbeats(),
            credit: if self.is_leaving { 0 } else { room as i32 },
            drain: self.is_leaving.then_some(WorkerDrain {}),
        }
    }

    /// Keep the leases of everything in hand. With a `progress` they would also tell people how far
    /// the work is.
    fn heartbeats(&self) -> Vec<TaskHeartbeat> {
        let beat = |(lease, _): &(TaskLease, AbortHandle)| TaskHeartbeat {
            task_id: lease.task_id.clone(),
            token: lease.token.clone(),
            ..Default::default()
        };
        self.running.values().map(beat).collect()
    }

    /// Does what a frame says; gives back the credit of reports that were answered.
    fn take(&mut self, frame: WorkResponse) -> WorkRequest {
        for lease in frame.leases {
            let action = self.actions[&lease.action];
            let handle = self.work.spawn(action(lease.clone()));
            self.running.insert(handle.id(), (lease, handle));
        }
        for cancel in frame.cancels {
            for (lease, handle) in self.running.values() {
                if lease.token == cancel.token {
                    handle.abort();
                }
            }
        }
        let mut credit = 0;
        for ack in frame.acks {
            match ack.error {
                // The next heartbeat repeats the report.
                Some(error) if error.code == Code::Unavailable as i32 => continue,
                Some(error) => eprintln!("report: {}: {}", error.reason, error.message),
                None => {}
            }
            // A report that was repeated has two answers.
            if self.unacked.remove(&ack.token).is_some() {
                credit += 1;
            }
        }
        WorkRequest {
            credit,
            ..Default::default()
        }
    }

    /// Reports what came of a task.
    fn report(&mut self, ended: Result<(Id, Done), JoinError>) -> WorkRequest {
        let (id, outcome) = match ended {
            Ok((id, Ok(result))) => (id, Outcome::Result(result)),
            Ok((id, Err(message))) => (id, failure(message)),
            Err(error) if error.is_cancelled() => {
                (error.id(), Outcome::Cancelled(TaskCancelled::default()))
            }
            Err(error) => (error.id(), failure(error.to_string())),
        };
        let (lease, _) = self.running.remove(&id).expect("every task has its lease");
        let report = TaskReport {
            task_id: lease.task_id,
            token: lease.token.clone(),
            outcome: Some(outcome),
        };
        self.unacked.insert(lease.token, report.clone());
        WorkRequest {
            reports: vec![report],
            ..Default::default()
        }
    }
}

fn failure(message: String) -> Outcome {
    Outcome::Failure(TaskFailure {
        message,
        ..Default::default()
    })
}

/// The next beat of the interval; never, as long as there is none.
async fn tick(beat: &mut Option<Interval>) {
    match beat {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn duration(span: Option<prost_types::Duration>) -> Duration {
    span.and_then(|span| span.try_into().ok())
        .unwrap_or(RETRY_DELAY)
}
