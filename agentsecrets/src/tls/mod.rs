//! TLS on both sides: the local authority toward agents, verified certificates toward upstreams.

pub(crate) mod authority;
pub mod bundle;
mod cipher_suites;
pub(crate) mod client_certificate;
mod client_hello;
pub(crate) mod leaf;
mod recording_stream;
pub(crate) mod terminate;
pub(crate) mod verify;

pub use cipher_suites::provider;
