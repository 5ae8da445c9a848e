//! Runs one workflow and plays every part in it: starts a run, follows the run's events, answers
//! its gate, and executes its action as a worker.
//!
//!     cargo run [-- NAME [SECONDS]]
//!
//! RUNKON_ADDRESS and RUNKON_NAMESPACE say where. Events go to standard output, everything else to
//! standard error.

mod caller;
mod connection;
mod errors;
mod worker;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use caller::Caller;
use runkon::v1::{StepResult, TaskLease};
use worker::Worker;

/// The contract, as `build.rs` made it.
#[allow(clippy::large_enum_variant)] // a message has the size it has
mod runkon {
    pub mod v1 {
        tonic::include_proto!("runkon.v1");
    }
}

const CONCURRENCY: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or("Ada".into());
    let seconds = arguments.next().unwrap_or("1".into());
    let address = env::var("RUNKON_ADDRESS").unwrap_or("127.0.0.1:7411".into());
    let namespace = env::var("RUNKON_NAMESPACE").unwrap_or_default();

    let channel = connection::open(&address)?;
    let mut worker = Worker::new(channel.clone(), &namespace, CONCURRENCY);
    worker.handle("greet", |lease| Box::pin(greet(lease)));
    let mut caller = Caller::new(channel, &namespace);

    let (drain, draining) = oneshot::channel();
    let calling = async {
        let outcome = caller.greet(&name, &seconds).await;
        let _ = drain.send(()); // the worker may have ended
        outcome
    };
    let working = async { worker.run(draining).await.map_err(errors::describe) };
    // Whoever fails first ends the other.
    tokio::try_join!(calling, working)?;
    Ok(())
}

/// The action of this example.
async fn greet(lease: TaskLease) -> Result<StepResult, String> {
    let input = |name: &str| lease.inputs.get(name).cloned().unwrap_or_default();
    let seconds: f64 = input("seconds").parse().map_err(|_| "seconds: no number")?;
    let pause = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    sleep(pause).await;
    Ok(StepResult {
        context: format!("Hello, {}!", input("name")),
        ..Default::default()
    })
}
