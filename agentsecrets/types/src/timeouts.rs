//! Time limits of the configuration. Every wait for a peer has one of them.

use std::time::Duration;

/// The waits that a person may set; `Default` is what holds where the configuration says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A client's first byte, then its TLS handshake.
    pub handshake: Duration,
    /// The head of a request, from its first byte to its last.
    pub head: Duration,
    /// For a connection without a request in flight.
    pub idle: Duration,
    /// From resolving a server's name to the end of the TLS handshake with it.
    pub connect: Duration,
    /// From the last byte of a request that a server took to the head of its answer.
    pub answer: Duration,
    /// For a body, in either direction, or a WebSocket that stands still.
    pub body_idle: Duration,
    /// For in-flight requests when the interceptor is told to end.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            handshake: Duration::from_secs(30),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(2 * MINUTE),
            connect: Duration::from_secs(10),
            // Longer than clients wait by default: a model may think for ten minutes.
            answer: Duration::from_secs(15 * MINUTE),
            body_idle: Duration::from_secs(15 * MINUTE),
            drain: Duration::from_secs(4),
        }
    }
}
