//! Types that every stage uses: validated names and hosts, the request target, secrets, rejections and bodies.
#![forbid(unsafe_code)]

pub mod body;
pub mod failure;
pub mod hex;
pub mod hop_by_hop;
pub mod host;
pub mod json_path;
pub mod name;
pub mod presented;
pub mod printable;
pub mod process_facts;
pub mod rejection;
pub mod response_capture;
pub mod secret;
pub mod shell_quote;
pub mod store;
pub mod sync;
pub mod target;
pub mod timeouts;
