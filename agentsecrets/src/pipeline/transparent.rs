//! The way in of a connection that the kernel sent to us: whose it is, its record tells.

use std::sync::Arc;

use super::Intercept;
use super::connection::{Arrived, Broken, unless_over};
use crate::base::shown::Shown;
use crate::connection::Destination;
use crate::connection::ending::reset;
use crate::connection::room::Place;
use crate::connection::transparent::Accepted;
use crate::identity::process::Identifier;

impl Intercept {
    /// Serves one connection that the kernel sent to us until it ends.
    pub async fn connection(self: Arc<Self>, accepted: Accepted, identifier: &Identifier, mut place: Place) {
        let Accepted { stream, destination, trace, .. } = accepted;
        let arrived = Arrived {
            destination: Destination::Address(destination),
            caller: Arc::new(identifier.caller(&trace).await),
            shown: Shown::default(),
        };
        let admitted = self.pipeline.capabilities.admit(&arrived.caller, &arrived.shown);
        let held = admitted.map(|admitted| admitted.held).unwrap_or_default();
        let serving = async {
            let hearing = self.hear(stream, &arrived);
            let heard = place.unless_given_up(hearing).await.unwrap_or(Err(Broken::NoRoom));
            self.converse(arrived, heard).await;
        };
        unless_over(&held, serving).await;
    }

    /// Resets a connection for which there is no room.
    pub fn no_room(self: &Arc<Self>, accepted: Accepted, identifier: Arc<Identifier>) {
        let (intercept, destination) = (self.clone(), Destination::Address(accepted.destination));
        reset(accepted.stream);
        tokio::spawn(async move {
            let caller = identifier.caller(&accepted.trace).await.ok();
            intercept.record_broken(caller.as_ref(), &destination, &Broken::NoRoom.to_string());
        });
    }
}
