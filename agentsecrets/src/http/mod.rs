//! HTTP toward the agent: the server side of every exchange and the checks on its framing and headers.

mod activity;
pub(crate) mod error_response;
pub(crate) mod framing;
pub(crate) mod header_case;
mod http1_guard;
mod incoming_body;
pub(crate) mod override_headers;
pub(crate) mod proxy_endpoint;
pub(crate) mod server;
pub(crate) mod upgrade;
pub(crate) mod websocket;
