//! Injection of secrets into requests. [`apply`] returns the request together with its redactor, so that
//! no caller can inject and forget to redact.

mod apply;
mod aws_chunks;
mod aws_signature;
mod body;
mod headers;
mod hmac;
mod injector;
mod outbound;
pub(crate) mod placeholder;
mod proxy_headers;
mod references;
mod sign;
mod signer;
mod sigv4;
mod url;
mod urlencoded;
mod websocket;

pub(crate) use apply::apply;
pub(crate) use body::{BodyBudget, QuotedPlaceholders, RequestBody};
pub(crate) use outbound::{Isolation, Outbound, TlsRequirements, outbound_token_request};
pub(crate) use proxy_headers::{RequestedInjections, injection_header};
pub(crate) use references::References;
pub(crate) use sign::sign;
pub(crate) use websocket::MessageInjector;
