//! A closer look at a process, for those who need more than `Process` tells: the script that it runs, and
//! whose child it is. It costs more, and is taken only when somebody asks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IdentityError, Process};

/// Details of a process that the snapshot lacks. Blocks.
pub trait ProcessDetails: Send + Sync {
    /// The facts of the process `pid` now.
    fn process(&self, pid: u32) -> Result<Process, IdentityError>;

    /// The id in the initial namespace of the process that `who` sees as `pid`.
    fn inside(&self, pid: u32, who: &Process) -> Result<u32, IdentityError>;

    /// The script that an interpreter says it runs: its first argument, where that names a file here. It is
    /// the program's own say: whoever may run an interpreter may write any argument for it.
    fn script(&self, process: &Process) -> Result<Option<Script>, IdentityError>;

    /// The process's parent, that one's parent and so on, the nearest first, as far as can be seen.
    fn ancestry(&self, process: &Process) -> Result<Vec<Ancestor>, IdentityError>;
}

/// A script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The path, without links.
    pub path: PathBuf,
    /// SHA-256 of what lies there now.
    pub sha256: String,
}

/// A process above another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its id in the initial namespace.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
    /// Its executable, where that may be seen.
    pub exe: Option<String>,
    /// Its cgroup.
    pub cgroup: String,
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Timed, ancestry, inside, script};

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{File, OpenOptions, read_link, read_to_string};
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use super::{Ancestor, IdentityError, Process, Script};
    use crate::identity::ancestry::{Ancestry, start_of};
    use crate::identity::container::cgroup_of;
    use crate::identity::executable::sha256;

    /// A result with the start time of the process that it is about.
    pub(in crate::identity) type Timed<T> = (u64, T);

    const MAX_ANCESTORS: usize = 24;
    /// In characters.
    const MAX_PATH_LEN: usize = 256;
    /// In bytes.
    const MAX_COMMAND_LINE_LEN: u64 = 8192;
    /// The largest script that is looked at, in bytes.
    const MAX_SCRIPT_SIZE: u64 = 16 << 20;

    /// The script of the process `pid`.
    pub(in crate::identity) fn script(pid: u32) -> Result<Timed<Option<Script>>, IdentityError> {
        let start_time = start_of(pid).ok_or(IdentityError::Gone)?;
        let mut line = Vec::new();
        File::open(format!("/proc/{pid}/cmdline"))?.take(MAX_COMMAND_LINE_LEN).read_to_end(&mut line)?;
        let argument = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
        if argument.is_empty() || argument.starts_with(b"-") {
            return Ok((start_time, None));
        }
        let named = Path::new(std::ffi::OsStr::from_bytes(argument));
        let named = if named.is_absolute() {
            named.to_path_buf()
        } else {
            read_link(format!("/proc/{pid}/cwd"))?.join(named)
        };
        Ok((start_time, read(&named)))
    }

    /// Reads the script at `path`; `None` if it is not a readable file.
    fn read(path: &Path) -> Option<Script> {
        let path = path.canonicalize().ok()?;
        // It may be a pipe that nobody writes to.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_SCRIPT_SIZE {
            return None;
        }
        let sha256 = sha256(file.take(MAX_SCRIPT_SIZE)).ok()?;
        Some(Script { path, sha256 })
    }

    /// The processes above `pid`.
    pub(in crate::identity) fn ancestry(pid: u32) -> Result<Timed<Vec<Ancestor>>, IdentityError> {
        let started = start_of(pid).ok_or(IdentityError::Gone)?;
        let line = Ancestry::since((pid, started));
        let above = line.iter().skip(1).take(MAX_ANCESTORS).map(|(pid, start_time)| {
            let exe = read_link(format!("/proc/{pid}/exe")).ok();
            let exe = exe.map(|exe| exe.to_string_lossy().chars().take(MAX_PATH_LEN).collect());
            let cgroup = cgroup_of(pid).ok().flatten().unwrap_or_default();
            let cgroup = cgroup.chars().take(MAX_PATH_LEN).collect();
            Ancestor { pid: *pid, start_time: *start_time, exe, cgroup }
        });
        Ok((started, above.collect()))
    }

    /// The process that those in the namespace of `who` know as `pid`: one in its cgroup.
    pub(in crate::identity) fn inside(pid: u32, who: &Process) -> Result<u32, IdentityError> {
        let ids =
            std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut there =
            ids.filter(|id| cgroup_of(id).is_ok_and(|cgroup| cgroup.as_ref() == Some(&who.cgroup)));
        let is_it = |id: &u32| {
            let status = read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            ids.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok()) == Some(pid)
        };
        there.find(is_it).ok_or(IdentityError::Gone)
    }

    #[cfg(test)]
    mod tests {
        use std::process::{Command, Stdio};

        use super::*;

        /// A process that waits, started as `command`.
        fn waiting(command: &mut Command) -> std::process::Child {
            command.stdin(Stdio::piped()).spawn().unwrap()
        }

        #[test]
        fn script_is_first_argument_that_names_a_file() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().canonicalize().unwrap().join("s.sh");
            std::fs::write(&path, "read line\n").unwrap();
            let there = path.to_str().unwrap();
            for (words, found) in
                [(&[there][..], true), (&["-u", there], false), (&["s.sh"], true), (&[], false)]
            {
                let mut child = waiting(Command::new("/bin/sh").args(words).current_dir(&folder));
                // Until it has become the shell, it is what started it.
                let line = format!("/proc/{}/cmdline", child.id());
                while !std::fs::read(&line).unwrap().starts_with(b"/bin/sh\0") {
                    std::thread::yield_now();
                }
                let (_, script) = script(child.id()).unwrap();
                let expected = sha256(&b"read line\n"[..]).unwrap();
                assert_eq!(
                    script,
                    found.then(|| Script { path: path.clone(), sha256: expected }),
                    "{words:?}"
                );
                drop(child.stdin.take());
                child.wait().unwrap();
            }
        }

        #[test]
        fn ancestors_are_ordered_and_older() {
            let mut child = waiting(&mut Command::new("cat"));
            let (started, above) = ancestry(child.id()).unwrap();
            assert_eq!(above[0].pid, std::process::id());
            assert!(above[0].start_time <= started);
            assert!(above.windows(2).all(|pair| pair[1].start_time <= pair[0].start_time));
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(matches!(ancestry(child.id()), Err(IdentityError::Gone)));
        }
    }
}
