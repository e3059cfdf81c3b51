//! The launcher's end of the channel to the interceptor of a node's pods.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::privsep::{AsyncChannel, Channel};
use crate::server::launch_config::{POD_LIMITS, PodInbound, PodMessage};

/// Maximum time that the interceptor may be too busy to receive.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct PodChannel(AsyncChannel);

impl PodChannel {
    pub(super) fn new(channel: Channel) -> io::Result<Self> {
        AsyncChannel::from_channel(channel).map(Self)
    }

    /// Sends one message with its descriptors.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the pod has too many labels for a message.
    pub(super) fn send(&self, message: &PodMessage, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > POD_LIMITS.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pod has too many labels"));
        }
        self.0.send_blocking(&text, descriptors, SEND_TIMEOUT)
    }

    /// Receives the next message; `None` once the interceptor has ended.
    pub(super) async fn recv(&mut self) -> io::Result<Option<PodInbound>> {
        self.0.recv().await?.map(|message| message.parse_json()).transpose()
    }
}
