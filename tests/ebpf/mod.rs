//! What the kernel side holds an agent to. Each test makes a cgroup, attaches to it, and lets a small
//! program inside it try something. They need root and fail without it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where the machine is not as it needs"
)]

pub(crate) mod agent;
mod doors;
mod lifecycle;
mod loopback;
mod redirect;
mod refuse;

use agentsecrets::intercept::ebpf;

#[test]
fn this_machine_has_what_the_kernel_side_needs() {
    ebpf::probe().unwrap();
}
