//! Compiles a policy file into the rules that requests are matched against. The request path does not use
//! this module.

mod agents;
mod diagnostics;
mod inject_rules;
mod load;
#[cfg(test)]
mod load_tests;
mod minted_credentials;
mod pod;
mod public_suffix;
mod response_capture;
mod rules;
pub(super) mod schema;
mod signing;
mod units;
mod upstream_options;

pub(crate) use load::{read_file, yaml_error_message};
pub(crate) use units::parse_duration;
