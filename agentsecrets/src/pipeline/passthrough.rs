//! A connection that is not opened: checked, recorded, and passed on byte for byte.

use std::io;

use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::Pipeline;
use super::record::Attempt;
use crate::authz::Admitted;
use crate::intercept::Destination;
use crate::intercept::reset_on_drop::reset;
use crate::policy::connection::PassthroughPermit;
use crate::tls::terminate::PendingHello;
use crate::types::rejection::Rejection;

impl Pipeline {
    /// Passes the connection of `hello` on to `destination`, under one record that is closed with it.
    pub(super) async fn pass_through(
        &self,
        hello: PendingHello,
        tunnel: &PassthroughPermit,
        admitted: &Admitted,
        destination: &Destination,
    ) {
        let caller = &admitted.caller;
        let attempt = Attempt::unopened(&self.audit, &self.environment, caller, hello.host(), tunnel.port());
        let attempt = attempt.tunnelled(tunnel);
        if let Err(hidden) = hello.check_server_name() {
            attempt.broken_off(&hidden.to_string());
            return hello.into_passthrough().reject().await;
        }
        let mut server = match self.upstream.open_tunnel(tunnel, destination).await {
            Ok(server) => server,
            Err(refusal) => return reject(hello, attempt, refusal).await,
        };
        let mut agent = hello.into_passthrough();
        let passed = async {
            server.write_all(&agent.initial_bytes).await?;
            agent.initial_bytes = Vec::new();
            copy_bidirectional(&mut agent.stream, &mut server).await
        };
        let failure = tokio::select! {
            passed = passed => passed.err().filter(|error| !is_disconnect(error)).map(|error| error.to_string()),
            why = admitted.held.ended() => Some(why),
        };
        // A program that is ended with its session may close first.
        let failure = failure.or_else(|| admitted.held.reason().map(str::to_owned));
        attempt.ended(None, false, failure);
    }
}

/// Refuses a connection that is not opened. What its server would not have answered ends in a reset.
pub(super) async fn reject(hello: PendingHello, attempt: Attempt, refusal: Rejection) {
    let answer = attempt.refused(refusal);
    let agent = hello.into_passthrough();
    if answer.status().is_server_error() {
        reset(agent.stream);
    } else {
        agent.reject().await;
    }
}

/// Whether one side simply left, as programs do.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}
