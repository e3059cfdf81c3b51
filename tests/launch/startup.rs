//! Start of a command, and its exit code.

use super::{launch, run_script, script_output};

fn exit_code(words: &[&str]) -> Option<i32> {
    launch(&[], words).output().unwrap().status.code()
}

#[test]
fn exit_code_is_forwarded() {
    assert_eq!(exit_code(&["true"]), Some(0));
    assert_eq!(exit_code(&["sh", "-c", "exit 3"]), Some(3));
    assert_eq!(exit_code(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(exit_code(&["sh", "-c", "kill -KILL $$"]), Some(128 + 9));
}

#[test]
fn missing_command_is_127_and_not_executable_126() {
    assert_eq!(exit_code(&["no-such-command"]), Some(127));
    assert_eq!(exit_code(&["/no/such/command"]), Some(127));
    assert_eq!(exit_code(&["/etc/passwd"]), Some(126));
    let unreachable = launch(&[], &["no-such-command"]).env("PATH", "/root:/usr/bin:/bin").output().unwrap();
    assert_eq!(unreachable.status.code(), Some(127), "a closed folder in PATH does not make it 126");
}

#[test]
fn failed_interceptor_starts_nothing() {
    let output = launch(&["--interceptor", "/bin/false"], &["echo", "started"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
}

#[test]
fn non_root_gets_advice() {
    let program = tempfile::tempdir_in("/tmp").unwrap();
    let copy = program.path().join("agentsecrets");
    std::fs::copy(env!("CARGO_BIN_EXE_agentsecrets"), &copy).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = std::os::unix::process::CommandExt::uid(&mut std::process::Command::new(&copy), 65534)
        .args(["run", "--", "echo", "a b"])
        .env("HOME", "/tmp")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stdout = String::from_utf8(output.stderr).unwrap();
    assert!(stdout.contains("sudo ") && stdout.contains("run -- echo 'a b'"), "{stdout}");
}

#[test]
fn environment_has_placeholders_and_no_store_variables() {
    let output = launch(&[], &["env"])
        .env("STRIPE_KEY", "sk_live_real")
        .env("AGENTSECRETS_VAULT_KEY_FILE", "/tmp/none")
        .env("HTTPS_PROXY", "http://proxy.example")
        .env("SSH_AUTH_SOCK", "/tmp/none.sock")
        .env("EDITOR", "vi")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("STRIPE_KEY=AS_SECRET_STRIPE_KEY\n"));
    assert!(text.contains("EDITOR=vi\n"));
    for withheld in ["sk_live_real", "VAULT_KEY", "AGENTSECRETS_HOME", "PROXY", "SSH_AUTH_SOCK"] {
        assert!(!text.contains(withheld), "{withheld}");
    }
}

#[test]
fn ca_variables_include_system_roots() {
    let text = script_output("cat $SSL_CERT_FILE; echo ===; cat $NODE_EXTRA_CA_CERTS");
    let (bundle, ours) = text.split_once("===\n").unwrap();
    assert!(bundle.ends_with(ours), "ours is the last of the bundle");
    assert_eq!(ours.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(script_output("touch /run/agentsecrets/x 2>/dev/null || echo refused").contains("refused"));
}

#[test]
fn working_directory_is_kept_or_home() {
    assert_eq!(script_output("pwd"), "/tmp\n");
    let closed = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let output = launch(&[], &["sh", "-c", "pwd; echo $HOME"]).current_dir(closed.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (folder, home) = text.trim().split_once('\n').unwrap();
    assert_eq!(folder, home);
    assert!(String::from_utf8(output.stderr).unwrap().contains("may not enter"));
}

#[test]
fn sigpipe_has_default_action() {
    assert_eq!(run_script("(yes; echo $? >&2) | head -n1 >/dev/null").stderr, b"141\n");
}
