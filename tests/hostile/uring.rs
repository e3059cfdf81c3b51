//! io_uring: system calls that no filter of system calls sees. The hooks see them all the same, in every
//! mode; the sandbox has no ring at all.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::range::Range;
use crate::launch::launch;
use crate::support::process::{command, finish};

/// The attacker, built into a folder that every user may enter.
fn attacker() -> (tempfile::TempDir, PathBuf) {
    let open = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let (source, program) = (folder.path().join("uring.c"), folder.path().join("uring"));
    std::fs::write(&source, include_str!("uring.c")).unwrap();
    finish(command("gcc").args(["-O1", "-o"]).args([&program, &source])).ok();
    (folder, program)
}

#[test]
fn io_uring_inline_async_and_with_a_thread_of_the_kernels() {
    let range = Range::new();
    let (_folder, program) = attacker();
    for mode in ["inline", "async", "sqpoll"] {
        let attack =
            format!("print(subprocess.run(['{}', '{mode}', there4, '443', mark]))", program.display());
        range.each_stops_of(&attack, &[&["as_connect4", "as_sendmsg4"], &["as_egress"]]);
    }
}

#[test]
fn the_sandbox_has_no_ring() {
    let (_folder, program) = attacker();
    let program = program.to_str().unwrap();
    let outcome = finish(&mut launch(&[], &[program, "inline", "127.0.0.1", "9", "x"]));
    assert!(outcome.stderr.contains("Function not implemented"), "{outcome:?}");
    let outside = finish(command(program).args(["inline", "127.0.0.1", "9", "x"]));
    assert!(outside.stdout.starts_with("datagram 1 "), "{outside:?}");
}
