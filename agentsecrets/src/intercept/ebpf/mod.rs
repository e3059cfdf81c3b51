//! The kernel side of interception: whatever an agent's cgroup sends comes to our two doors or goes
//! nowhere. The programs are attached before an agent starts and stay, pinned, when we are gone, so an
//! agent without an interceptor is offline. A connection whose origin the kernel did not record is
//! nobody's: nothing here guesses.
#![allow(unsafe_code)]

mod error;
mod flows;
mod link;
mod load;
mod mounts;
mod object;
mod offsets;
mod pins;
mod probe;
mod shared;

pub use agentsecrets_ebpf::{Flow, Origin, SELF_TEST};

pub use error::EbpfError;
pub use flows::{FlowMap, original};
pub use load::{Attachment, Ports, SecondAttachment, allow_inbound, attach, attach_second, detach};
pub use mounts::{cgroup2_mount, is_bpffs, mount_bpffs};
pub use pins::{PinFolder, PinnedHooks, collect};
pub use probe::probe;
pub use shared::{Hooks, SharedPrograms};
