//! The compiled kernel programs.

/// The programs, built by `cargo xtask ebpf` from `agentsecrets-ebpf/src`.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../../agentsecrets-ebpf/agentsecrets-ebpf.o");
