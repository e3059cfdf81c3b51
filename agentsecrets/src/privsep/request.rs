//! What a client asks for, and what it is told. Everything in it is the client's word, and decides nothing
//! but what is started; who asks is the kernel's.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::privsep::frame::Parcel;

/// The protocol's version.
pub const VERSION: u32 = 1;
/// The most arguments.
const MOST_ARGUMENTS: usize = 4096;
/// The most variables.
const MOST_VARIABLES: usize = 4096;

/// A command line, as a client sends it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The protocol's version.
    pub version: u32,
    /// The arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// How the client's terminal wants to be written to; see [`is_plain`].
    pub display: Vec<(String, String)>,
    /// The caller's environment, for the commands that `run` and `env` start.
    pub environment: Vec<(OsString, OsString)>,
    /// The caller's mask for new files, for the commands that `run` and `env` start.
    pub umask: u32,
    /// Whom root acts for.
    pub acting_for: Option<u32>,
    /// What each descriptor is that follows the standard three.
    pub carried: Vec<Role>,
}

/// What a descriptor is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The working folder.
    Folder,
    /// The terminal that the person sits at.
    Terminal,
    /// The project file that applies, and where it is.
    ProjectFile(PathBuf),
    /// A file that an argument names, from this byte of the argument on.
    File(usize, usize),
}

/// A request with its descriptors, each where it belongs.
pub struct Asked {
    /// The request.
    pub request: Request,
    /// Standard input, output and error.
    pub standard: [OwnedFd; 3],
    /// The others, in the order of `request.carried`.
    pub carried: Vec<OwnedFd>,
}

impl Asked {
    /// Reads a parcel.
    pub fn read(parcel: Parcel) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let request: Request = serde_json::from_slice(&parcel.body)?;
        if request.version != VERSION {
            return Err(wrong("the client speaks another version of the door's protocol"));
        }
        if request.arguments.len() > MOST_ARGUMENTS || request.environment.len() > MOST_VARIABLES {
            return Err(wrong("too many arguments or variables"));
        }
        if parcel.descriptors.len() != request.carried.len() + 3 {
            return Err(wrong("not the descriptors that were announced"));
        }
        if !request.display.iter().all(|(name, value)| is_plain(name, value)) {
            return Err(wrong("a variable that is not passed on"));
        }
        let mut descriptors = parcel.descriptors.into_iter();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (descriptors.next(), descriptors.next(), descriptors.next())
        else {
            return Err(wrong("no standard descriptors"));
        };
        Ok(Self { request, standard: [stdin, stdout, stderr], carried: descriptors.collect() })
    }

    /// The body and the descriptors of a parcel with the same.
    pub fn parts(&self) -> io::Result<(Vec<u8>, Vec<BorrowedFd<'_>>)> {
        use std::os::fd::AsFd;
        let descriptors = self.standard.iter().chain(&self.carried).map(AsFd::as_fd).collect();
        Ok((serde_json::to_vec(&self.request)?, descriptors))
    }

    /// The first descriptor whose role `wanted` takes.
    pub fn find<T>(&self, wanted: impl Fn(&Role) -> Option<T>) -> Option<(T, &OwnedFd)> {
        let mut all = self.request.carried.iter().zip(&self.carried);
        all.find_map(|(role, descriptor)| Some((wanted(role)?, descriptor)))
    }
}

/// Variables that say how text is shown, and how long they may be.
const DISPLAY: &[&str] =
    &["CLICOLOR_FORCE", "COLUMNS", "LANG", "LC_ALL", "LC_CTYPE", "LINES", "NO_COLOR", "TERM"];

/// Whether a variable only says how text is shown, in plain words: no path, no format.
pub fn is_plain(name: &str, value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    DISPLAY.contains(&name) && value.len() <= 64 && value.bytes().all(plain)
}

/// What the client hears at the end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The exit code.
    pub exit: u8,
    /// What to say, where the verb never came to say something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Reply {
    /// Tells it. A client that is gone needs to hear nothing.
    pub fn tell(&self, mut client: &UnixStream) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let _ = client.set_write_timeout(Some(std::time::Duration::from_secs(1)));
            let _ = client.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_how_text_is_shown_is_passed_and_nothing_that_could_lead_somewhere() {
        assert!(is_plain("TERM", "xterm-256color") && is_plain("LANG", "de_DE.UTF-8"));
        for (name, value) in [
            ("TERM", "../../tmp/evil"),
            ("LANG", "/tmp/locale"),
            ("LD_PRELOAD", "x"),
            ("AGENTSECRETS_HOME", "x"),
            ("PATH", "x"),
        ] {
            assert!(!is_plain(name, value), "{name}={value}");
        }
    }

    #[test]
    fn a_request_is_read_whole_or_refused() {
        let descriptors = |count: usize| {
            (0..count).map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap())).collect()
        };
        let read =
            |body: &str, count| Asked::read(Parcel { body: body.into(), descriptors: descriptors(count) });
        let sound = serde_json::to_string(&Request { version: VERSION, ..Request::default() }).unwrap();
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
