//! Errors of the kernel side of interception.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;

/// Why the kernel side cannot be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel did not let us.
    #[error(
        "{doing}: the kernel does not allow it ({source}); run as root, or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON in the initial user namespace"
    )]
    NotAllowed {
        /// The operation.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No usable description of the kernel's structures.
    #[error("the kernel's types are not known: {reason}; use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// The missing part.
        reason: String,
    },
    /// No bpffs where the pins should be.
    #[error("no bpffs at {path}: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpffs {
        /// The expected path.
        path: PathBuf,
    },
    /// No cgroup v2 hierarchy, or a folder outside it.
    #[error("{path} is no cgroup v2 folder: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`")]
    NoCgroup2 {
        /// The path that was inspected.
        path: PathBuf,
    },
    /// The verifier refused a program.
    #[error("the kernel refuses the program {program}: {log}; it needs Linux 5.15 or newer")]
    Refused {
        /// The program's name.
        program: String,
        /// The end of the verifier's log.
        log: String,
    },
    /// A pinned file or folder cannot be made, read or removed.
    #[error("{path}: {source}; remove what is left there with `agentsecrets doctor`, or as root by hand")]
    Pin {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Any other call to the kernel failed.
    #[error("{doing}: {source}; `agentsecrets doctor` shows what this kernel lacks")]
    Kernel {
        /// The operation.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl EbpfError {
    /// A failed call, told apart by whether the kernel forbade it.
    pub(super) fn call(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::NotAllowed { doing, source }
        } else {
            Self::Kernel { doing, source }
        }
    }
}

/// A map's error as ours.
pub(super) fn failed(doing: impl Into<String>, error: MapError) -> EbpfError {
    match error {
        MapError::SyscallError(call) => EbpfError::call(doing, call.io_error),
        MapError::CreateError { io_error, .. } => EbpfError::call(doing, io_error),
        other => EbpfError::Kernel { doing: doing.into(), source: std::io::Error::other(other.to_string()) },
    }
}
