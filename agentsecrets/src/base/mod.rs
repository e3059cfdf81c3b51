//! What every stage may use: validated names and hosts, secrets that cannot be printed, files with
//! the right modes, and the one door to system calls that the standard library does not offer.

pub mod failure;
pub mod files;
pub mod followed;
pub mod hex;
pub mod home;
pub mod host;
pub mod name;
#[cfg(target_os = "linux")]
pub mod privileges;
pub mod prompt;
pub mod refusal;
pub mod secret;
pub mod shown;
pub mod sys;
pub mod timeouts;
pub mod words;
