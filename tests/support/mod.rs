//! Test support: servers, a second network, a home with secrets and a policy, and searches for values.
#![allow(dead_code, reason = "each system's tests use their share of it")]

pub(crate) mod capture;
pub(crate) mod certificate;
pub(crate) mod endpoints;
pub(crate) mod faulty_server;
pub(crate) mod home;
pub(crate) mod keychain;
pub(crate) mod nameserver;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod python;
pub(crate) mod terminal;
pub(crate) mod upstream;
pub(crate) mod value_search;
