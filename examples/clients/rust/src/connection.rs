use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Response, Status};

use crate::errors::{describe, is_final};

/// How long to wait before a call or a stream is tried again.
pub const RETRY_DELAY: Duration = Duration::from_millis(200);

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 20;
const PRINCIPAL: &str = "ada";

/// A channel that connects with its first call, and again whenever the connection is lost. A peer
/// that does not answer a ping within 5 s is given up.
pub fn open(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// Makes a unary call until it gives an answer. The request is the same in every attempt, so a
/// change needs a `request_id`.
pub async fn retry<Q: Clone, A>(
    message: Q,
    mut call: impl AsyncFnMut(Request<Q>) -> Result<Response<A>, Status>,
) -> Result<A, Status> {
    let mut attempt = 1;
    loop {
        let mut request = Request::new(message.clone());
        request.set_timeout(CALL_TIMEOUT);
        let principal = PRINCIPAL.parse().expect("ASCII");
        request.metadata_mut().insert("runkon-principal", principal);
        match call(request).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if is_final(&status) || attempt == ATTEMPTS => return Err(status),
            Err(status) => eprintln!("trying again: {}", describe(status)),
        }
        attempt += 1;
        tokio::time::sleep(RETRY_DELAY).await;
    }
}
