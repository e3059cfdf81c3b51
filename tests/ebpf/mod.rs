//! The eBPF programs. Each test creates a cgroup, attaches to it, and runs a small program inside. They need
//! root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where the machine is not as it needs"
)]

mod denied;
mod dns;
pub(crate) mod fixture;
mod lifecycle;
mod loopback;
mod redirect;

use agentsecrets::intercept::ebpf;

#[test]
fn kernel_prerequisites_are_met() {
    ebpf::probe().unwrap();
}
