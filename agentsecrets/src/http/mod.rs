//! HTTP as the agent speaks it: the server's side of every exchange, and the one authority that all of
//! its names must agree on.

mod activity;
pub mod error_response;
pub mod framing;
pub mod header_case;
mod http1_guard;
pub mod incoming_body;
pub mod override_headers;
pub mod proxy_endpoint;
pub mod server;
pub mod upgrade;
pub mod websocket;
