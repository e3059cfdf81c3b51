//! Requests of clients and the daemon's replies. A request is untrusted: it only decides which command is
//! started, while the kernel tells who requests it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Channel, Limits, Message};

/// The version of requests and replies.
pub const PROTOCOL_VERSION: u32 = 1;
/// Limits of a client's messages: arguments and an environment.
pub const CLIENT_LIMITS: Limits = Limits { length: 4 << 20, descriptors: 24 };
/// Limits of a forwarded request, which comes with the client's connection.
pub const FORWARDED_LIMITS: Limits = Limits { descriptors: CLIENT_LIMITS.descriptors + 1, ..CLIENT_LIMITS };
/// Time limit for a whole request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_ARGUMENTS: usize = 4096;
const MAX_VARIABLES: usize = 4096;

/// A command line, as a client sends it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Must be [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// Variables about the client's terminal; see [`is_display_variable`].
    pub display: Vec<(String, String)>,
    /// The caller's environment, for the commands that `run` and `env` start.
    pub environment: Vec<(OsString, OsString)>,
    /// The caller's umask, for the commands that `run` and `env` start.
    pub umask: u32,
    /// The person for whom root acts.
    pub acting_for: Option<u32>,
    /// The roles of the descriptors after the standard three.
    pub descriptor_roles: Vec<DescriptorRole>,
}

/// The role of a descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DescriptorRole {
    /// The working folder.
    Folder,
    /// The person's terminal.
    Terminal,
    /// The project file that applies, and its path.
    ProjectFile(PathBuf),
    /// A file that an argument names: the argument's index, and the offset of the path in it.
    File(usize, usize),
}

/// A request with its descriptors.
pub struct ClientRequest {
    /// The request itself.
    pub request: Request,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// The others, in the order of `request.descriptor_roles`.
    pub descriptors: Vec<OwnedFd>,
}

impl ClientRequest {
    /// Validates a client's message.
    ///
    /// # Errors
    /// If it is malformed, or its descriptors are not those that it announces.
    pub fn from_message(message: Message) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let request: Request = message.parse_json()?;
        if request.version != PROTOCOL_VERSION {
            return Err(wrong("the client speaks another version of the daemon's protocol"));
        }
        if request.arguments.len() > MAX_ARGUMENTS || request.environment.len() > MAX_VARIABLES {
            return Err(wrong("too many arguments or variables"));
        }
        if message.descriptors.len() != request.descriptor_roles.len() + 3 {
            return Err(wrong("not the descriptors that were announced"));
        }
        if !request.display.iter().all(|(name, value)| is_display_variable(name, value)) {
            return Err(wrong("a variable that is not passed on"));
        }
        let mut descriptors = message.descriptors.into_iter();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (descriptors.next(), descriptors.next(), descriptors.next())
        else {
            return Err(wrong("no standard descriptors"));
        };
        Ok(Self { request, stdio: [stdin, stdout, stderr], descriptors: descriptors.collect() })
    }

    /// The body and the descriptors of the same message.
    ///
    /// # Errors
    /// If an argument cannot be encoded.
    pub fn to_message_parts(&self) -> io::Result<(Vec<u8>, Vec<BorrowedFd<'_>>)> {
        let descriptors = self.stdio.iter().chain(&self.descriptors).map(AsFd::as_fd).collect();
        Ok((serde_json::to_vec(&self.request)?, descriptors))
    }

    /// The first descriptor whose role `wanted` accepts.
    pub fn find_descriptor<T>(&self, wanted: impl Fn(&DescriptorRole) -> Option<T>) -> Option<(T, &OwnedFd)> {
        let mut all = self.request.descriptor_roles.iter().zip(&self.descriptors);
        all.find_map(|(role, descriptor)| Some((wanted(role)?, descriptor)))
    }
}

const DISPLAY_VARIABLES: &[&str] =
    &["CLICOLOR_FORCE", "COLUMNS", "LANG", "LC_ALL", "LC_CTYPE", "LINES", "NO_COLOR", "TERM"];

/// Whether a variable only affects how text is shown: no path, no format.
pub fn is_display_variable(name: &str, value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    DISPLAY_VARIABLES.contains(&name) && value.len() <= 64 && value.bytes().all(plain)
}

/// The daemon's reply when the command has ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The exit code.
    pub exit: u8,
    /// The error, if no command ran that could report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The hint for that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Reply {
    /// Sends the reply. A client that is gone needs none.
    pub fn send(&self, client: &Channel) {
        let _ = client.set_send_timeout(Some(REPLY_TIMEOUT));
        let _ = client.send_json(self, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_display_variables_are_accepted() {
        assert!(is_display_variable("TERM", "xterm-256color") && is_display_variable("LANG", "de_DE.UTF-8"));
        for (name, value) in [
            ("TERM", "../../tmp/evil"),
            ("LANG", "/tmp/locale"),
            ("LD_PRELOAD", "x"),
            ("AGENTSECRETS_HOME", "x"),
            ("PATH", "x"),
        ] {
            assert!(!is_display_variable(name, value), "{name}={value}");
        }
    }

    #[test]
    fn malformed_request_is_rejected() {
        let descriptors = |count: usize| {
            (0..count).map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap())).collect()
        };
        let read = |body: &str, count| {
            ClientRequest::from_message(Message {
                body: zeroize::Zeroizing::new(body.into()),
                descriptors: descriptors(count),
            })
        };
        let sound =
            serde_json::to_string(&Request { version: PROTOCOL_VERSION, ..Request::default() }).unwrap();
        assert!(read(&sound, 3).is_ok());
        for count in [0, 2, 4] {
            assert!(read(&sound, count).is_err(), "{count} descriptors");
        }
        let newer = sound.replace("\"version\":1", "\"version\":2");
        let unknown = sound.replace("{\"version\"", "{\"x\":1,\"version\"");
        let variable = sound.replace("\"display\":[]", "\"display\":[[\"LD_PRELOAD\",\"x\"]]");
        for wrong in [&newer, &unknown, &variable, "{}", "[]", "\"", "null"] {
            assert!(read(wrong, 3).is_err(), "{wrong}");
        }
    }
}
