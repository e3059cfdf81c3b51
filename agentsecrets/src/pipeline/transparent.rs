//! The way in of a connection that the kernel sent to us: whose it is, its record tells.

use std::sync::Arc;

use super::Interceptor;
use super::connection::{ConnectionError, IncomingConnection, until_revoked};
use crate::identity::process::Identifier;
use crate::intercept::Destination;
use crate::intercept::connection_limit::ConnectionPermit;
use crate::intercept::reset_on_drop::reset;
use crate::intercept::transparent::Accepted;
use crate::types::presented::PresentedCredentials;

impl Interceptor {
    /// Serves one connection that the kernel sent to us until it ends.
    pub async fn connection(
        self: Arc<Self>,
        accepted: Accepted,
        identifier: &Identifier,
        mut place: ConnectionPermit,
    ) {
        let Accepted { stream, destination, trace, .. } = accepted;
        let arrived = IncomingConnection {
            destination: Destination::Address(destination),
            caller: Arc::new(identifier.caller(&trace).await),
            shown: PresentedCredentials::default(),
        };
        let admitted = self.pipeline.capabilities.admit(&arrived.caller, &arrived.shown);
        let held = admitted.map(|admitted| admitted.held).unwrap_or_default();
        let serving = async {
            let hearing = self.detect(stream, &arrived);
            let heard = place.unless_given_up(hearing).await.unwrap_or(Err(ConnectionError::LimitReached));
            self.serve_detected(arrived, heard).await;
        };
        until_revoked(&held, serving).await;
    }

    /// Resets a connection for which there is no room.
    pub fn reject_over_limit(self: &Arc<Self>, accepted: Accepted, identifier: Arc<Identifier>) {
        let (intercept, destination) = (self.clone(), Destination::Address(accepted.destination));
        reset(accepted.stream);
        tokio::spawn(async move {
            let caller = identifier.caller(&accepted.trace).await.ok();
            intercept.record_failure(
                caller.as_ref(),
                &destination,
                &ConnectionError::LimitReached.to_string(),
            );
        });
    }
}
