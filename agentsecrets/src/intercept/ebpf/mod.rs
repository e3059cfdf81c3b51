//! The kernel side of interception: whatever an agent's cgroup sends comes to our two doors or goes
//! nowhere. The programs are attached before an agent starts and stay, pinned, when we are gone, so an
//! agent without an interceptor is offline. A connection whose origin the kernel did not record is
//! nobody's: nothing here guesses.
#![allow(unsafe_code)]

mod flows;
mod link;
mod load;
mod offsets;
mod pins;
mod probe;
mod shared;

use std::io;
use std::path::PathBuf;

pub use agentsecrets_ebpf::{Flow, Origin, SELF_TEST};

pub use flows::{FlowMap, original};
pub use load::{Attachment, Ports, SecondAttachment, allow_inbound, attach, attach_second, detach};
pub use pins::{PinFolder, PinnedHooks, collect};
pub use probe::{cgroup2_mount, is_bpffs, mount_bpffs, probe};
pub use shared::{Hooks, SharedPrograms};

/// The programs, built by `cargo xtask ebpf` from `agentsecrets-ebpf/src`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../agentsecrets-ebpf/agentsecrets-ebpf.o");

/// Why the kernel side cannot be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel did not let us.
    #[error(
        "{doing}: the kernel does not allow it ({source}); run as root, or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON in the initial user namespace"
    )]
    NotAllowed {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No usable description of the kernel's structures.
    #[error("the kernel's types are not known: {reason}; use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// What is missing.
        reason: String,
    },
    /// No bpffs where the pins should be.
    #[error("no bpffs at {path}: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
    },
    /// No cgroup v2 hierarchy, or a folder outside it.
    #[error("{path} is no cgroup v2 folder: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`")]
    NoCgroup2 {
        /// What was looked at.
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
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl EbpfError {
    /// A failed call, told apart by whether the kernel forbade it.
    fn call(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::NotAllowed { doing, source }
        } else {
            Self::Kernel { doing, source }
        }
    }
}
