//! `agentsecrets secrets` and `agentsecrets audit`, as an operator or a script uses them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use tempfile::TempDir;

struct Operator {
    folder: TempDir,
}

impl Operator {
    fn with_key_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self { folder }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentsecrets"));
        command.args(line.split_whitespace()).env_clear();
        command.env("AGENTSECRETS_HOME", self.folder.path().join("home"));
        command.env("AGENTSECRETS_VAULT_KEY_FILE", self.folder.path().join("key"));
        command.write_stdin("");
        command
    }

    fn run(&self, command: &mut Command) -> (i32, String, String) {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn secret_commands_never_print_value() {
    let person = Operator::with_key_file();
    let (code, out, _) = person.run(person.command("secrets set TOKEN").write_stdin("a-real-value\n"));
    assert_eq!((code, &*out), (0, ""));
    let (code, out, _) = person.run(&mut person.command("secrets list --json"));
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &listed[0]["name"], &listed[0]["environment"]),
        (0, &"TOKEN".into(), &"development".into())
    );
    let (code, out, err) = person.run(&mut person.command("secrets get TOKEN"));
    assert_eq!(code, 0);
    assert!(out.contains("AS_SECRET_TOKEN") && !out.contains("a-real-value") && err.is_empty());
    assert_eq!(person.run(&mut person.command("--environment production secrets get TOKEN")).0, 3);
    assert_eq!(person.run(&mut person.command("secrets delete TOKEN")).0, 0);
    assert_eq!(person.run(&mut person.command("secrets delete TOKEN")).0, 3);
}

#[test]
fn reveal_into_pipe_is_refused() {
    let person = Operator::with_key_file();
    person.run(person.command("secrets set TOKEN").write_stdin("a-real-value"));
    let (code, out, err) = person.run(&mut person.command("secrets get TOKEN --reveal"));
    assert_eq!((code, &*out), (4, ""));
    assert!(err.contains("terminal"));
}

#[test]
fn store_errors_have_advice() {
    let person = Operator::with_key_file();
    let (code, _, err) = person.run(&mut person.command("secrets list"));
    assert!(code == 5 && err.contains("secrets set NAME"), "{err}");
    let (code, _, err) = person.run(
        person
            .command("secrets set TOKEN")
            .env_remove("AGENTSECRETS_VAULT_KEY_FILE")
            .write_stdin("value-1234"),
    );
    assert!(code == 5 && err.contains("AGENTSECRETS_VAULT_KEY_FILE"), "{err}");
    person.run(person.command("secrets set TOKEN").write_stdin("a-real-value"));
    let key = person.folder.path().join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, err) = person.run(&mut person.command("secrets list"));
    assert!(code == 5 && err.contains("chmod 600"), "{err}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "another key, also of thirty-two bytes and more").unwrap();
    let (code, _, err) = person.run(&mut person.command("secrets list"));
    assert!(code == 5 && err.contains("does not open the vault"), "{err}");
    fs::write(person.folder.path().join("home/vault"), "{}").unwrap();
    let (code, _, err) = person.run(&mut person.command("secrets list"));
    assert!(code == 1 && err.contains("damaged"), "{err}");
}

#[test]
fn env_import_is_atomic() {
    let person = Operator::with_key_file();
    let file = person.folder.path().join(".env");
    fs::write(&file, "A=value-one\nB='value two'\nnonsense\n").unwrap();
    let import = format!("secrets import {}", file.display());
    let (code, _, err) = person.run(&mut person.command(&import));
    assert!(code == 1 && err.contains("line 3"), "{err}");
    assert_eq!(person.run(&mut person.command("secrets list")).0, 5);
    fs::write(&file, "A=value-one\nB='value two'\n").unwrap();
    let (code, out, _) = person.run(&mut person.command(&format!("{import} --dry-run")));
    assert_eq!((code, &*out), (0, "A\nB\n"));
    assert_eq!(person.run(&mut person.command("secrets list")).0, 5);
    assert_eq!(person.run(&mut person.command(&import)).0, 0);
    assert_eq!(person.run(&mut person.command("secrets get B")).0, 0);
}

#[test]
fn missing_audit_log_is_empty_and_valid() {
    let person = Operator::with_key_file();
    let (code, out, _) = person.run(&mut person.command("audit list --json"));
    assert_eq!((code, &*out), (0, ""));
    let (code, out, _) = person.run(&mut person.command("audit verify --json"));
    assert_eq!((code, &*out), (0, "{\"ok\":true,\"lines\":0}\n"));
}
