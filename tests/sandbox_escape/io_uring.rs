//! io_uring: operations that no seccomp filter sees. The hooks see them in every mode, and the sandbox has no
//! io_uring.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::attack_range::AttackRange;
use crate::launch::launch;
use crate::support::process::{command, run};

/// Builds the attacker in a folder that every user may enter.
fn attacker() -> (tempfile::TempDir, PathBuf) {
    let open = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let (source, program) = (folder.path().join("uring.c"), folder.path().join("uring"));
    std::fs::write(&source, include_str!("uring.c")).unwrap();
    run(command("gcc").args(["-O1", "-o"]).args([&program, &source])).ok();
    (folder, program)
}

#[test]
fn io_uring_traffic_is_blocked_in_every_mode() {
    let range = AttackRange::new();
    let (_folder, program) = attacker();
    for mode in ["inline", "async", "sqpoll"] {
        let attack =
            format!("print(subprocess.run(['{}', '{mode}', there4, '443', mark]))", program.display());
        range.assert_each_group_blocks(&attack, &[&["as_connect4", "as_sendmsg4"], &["as_egress"]]);
    }
}

#[test]
fn io_uring_is_unavailable_in_sandbox() {
    let (_folder, program) = attacker();
    let program = program.to_str().unwrap();
    let outcome = run(&mut launch(&[], &[program, "inline", "127.0.0.1", "9", "x"]));
    assert!(outcome.stderr.contains("Function not implemented"), "{outcome:?}");
    let outside = run(command(program).args(["inline", "127.0.0.1", "9", "x"]));
    assert!(outside.stdout.starts_with("datagram 1 "), "{outside:?}");
}
