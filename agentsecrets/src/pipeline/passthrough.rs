//! A connection that is not opened: checked, recorded, and passed on byte for byte.

use std::io;

use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::Pipeline;
use super::record::Attempt;
use crate::authz::Admitted;
use crate::intercept::Destination;
use crate::intercept::reset_on_drop::reset;
use crate::policy::connection::Tunnel;
use crate::tls::terminate::Hello;
use crate::types::rejection::Rejection;

impl Pipeline {
    /// Passes the connection of `hello` on to `destination`, under one record that is closed with it.
    pub(super) async fn pass_through(
        &self,
        hello: Hello,
        tunnel: &Tunnel,
        admitted: &Admitted,
        destination: &Destination,
    ) {
        let caller = &admitted.caller;
        let attempt = Attempt::unopened(&self.audit, &self.environment, caller, hello.host(), tunnel.port());
        let attempt = attempt.tunnelled(tunnel);
        if let Err(hidden) = hello.is_plain() {
            attempt.broken_off(&hidden.to_string());
            return hello.unopened().refuse().await;
        }
        let mut server = match self.upstream.open_tunnel(tunnel, destination).await {
            Ok(server) => server,
            Err(refusal) => return turn_away(hello, attempt, &refusal).await,
        };
        let mut agent = hello.unopened();
        let passed = async {
            server.write_all(&agent.first).await?;
            agent.first = Vec::new();
            copy_bidirectional(&mut agent.stream, &mut server).await
        };
        let failure = tokio::select! {
            passed = passed => passed.err().filter(|error| !is_an_end(error)).map(|error| error.to_string()),
            why = admitted.held.ended() => Some(why),
        };
        attempt.ended(None, false, failure);
    }
}

/// Refuses a connection that is not opened. What its server would not have answered ends in a reset.
pub(super) async fn turn_away(hello: Hello, attempt: Attempt, refusal: &Rejection) {
    let answer = attempt.refused(refusal);
    let agent = hello.unopened();
    if answer.status().is_server_error() {
        reset(agent.stream);
    } else {
        agent.refuse().await;
    }
}

/// Whether one side simply left, as programs do.
fn is_an_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}
