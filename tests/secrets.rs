//! What a person or a script does with `agentsecrets secrets` and `agentsecrets audit`, and what
//! they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use tempfile::TempDir;

struct Person {
    folder: TempDir,
}

impl Person {
    fn with_key_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self { folder }
    }

    fn types(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentsecrets"));
        command.args(line.split_whitespace()).env_clear();
        command.env("AGENTSECRETS_HOME", self.folder.path().join("home"));
        command.env("AGENTSECRETS_VAULT_KEY_FILE", self.folder.path().join("key"));
        command.write_stdin("");
        command
    }

    /// Exit code, standard output, standard error.
    fn sees(&self, command: &mut Command) -> (i32, String, String) {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_secret_is_set_listed_and_deleted_and_its_value_never_printed() {
    let person = Person::with_key_file();
    let (code, out, _) = person.sees(person.types("secrets set TOKEN").write_stdin("a-real-value\n"));
    assert_eq!((code, &*out), (0, ""));
    let (code, out, _) = person.sees(&mut person.types("secrets list --json"));
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &listed[0]["name"], &listed[0]["environment"]),
        (0, &"TOKEN".into(), &"development".into())
    );
    let (code, out, err) = person.sees(&mut person.types("secrets get TOKEN"));
    assert_eq!(code, 0);
    assert!(out.contains("AS_SECRET_TOKEN") && !out.contains("a-real-value") && err.is_empty());
    assert_eq!(person.sees(&mut person.types("--environment production secrets get TOKEN")).0, 3);
    assert_eq!(person.sees(&mut person.types("secrets delete TOKEN")).0, 0);
    assert_eq!(person.sees(&mut person.types("secrets delete TOKEN")).0, 3);
}

#[test]
fn a_value_is_not_revealed_into_a_pipe() {
    let person = Person::with_key_file();
    person.sees(person.types("secrets set TOKEN").write_stdin("a-real-value"));
    let (code, out, err) = person.sees(&mut person.types("secrets get TOKEN --reveal"));
    assert_eq!((code, &*out), (4, ""));
    assert!(err.contains("terminal"));
}

#[test]
fn what_is_wrong_with_the_store_is_said_with_its_fix() {
    let person = Person::with_key_file();
    let (code, _, err) = person.sees(&mut person.types("secrets list"));
    assert!(code == 5 && err.contains("secrets set NAME"), "{err}");
    let (code, _, err) = person.sees(
        person.types("secrets set TOKEN").env_remove("AGENTSECRETS_VAULT_KEY_FILE").write_stdin("value-1234"),
    );
    assert!(code == 5 && err.contains("AGENTSECRETS_VAULT_KEY_FILE"), "{err}");
    person.sees(person.types("secrets set TOKEN").write_stdin("a-real-value"));
    let key = person.folder.path().join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, err) = person.sees(&mut person.types("secrets list"));
    assert!(code == 5 && err.contains("chmod 600"), "{err}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "another key, also of thirty-two bytes and more").unwrap();
    let (code, _, err) = person.sees(&mut person.types("secrets list"));
    assert!(code == 5 && err.contains("does not open the vault"), "{err}");
    fs::write(person.folder.path().join("home/vault"), "{}").unwrap();
    let (code, _, err) = person.sees(&mut person.types("secrets list"));
    assert!(code == 1 && err.contains("damaged"), "{err}");
}

#[test]
fn a_env_file_is_imported_whole_or_not_at_all() {
    let person = Person::with_key_file();
    let file = person.folder.path().join(".env");
    fs::write(&file, "A=value-one\nB='value two'\nnonsense\n").unwrap();
    let import = format!("secrets import {}", file.display());
    let (code, _, err) = person.sees(&mut person.types(&import));
    assert!(code == 1 && err.contains("line 3"), "{err}");
    assert_eq!(person.sees(&mut person.types("secrets list")).0, 5);
    fs::write(&file, "A=value-one\nB='value two'\n").unwrap();
    let (code, out, _) = person.sees(&mut person.types(&format!("{import} --dry-run")));
    assert_eq!((code, &*out), (0, "A\nB\n"));
    assert_eq!(person.sees(&mut person.types("secrets list")).0, 5);
    assert_eq!(person.sees(&mut person.types(&import)).0, 0);
    assert_eq!(person.sees(&mut person.types("secrets get B")).0, 0);
}

#[test]
fn an_audit_log_that_has_not_begun_is_empty_and_sound() {
    let person = Person::with_key_file();
    let (code, out, _) = person.sees(&mut person.types("audit list --json"));
    assert_eq!((code, &*out), (0, ""));
    let (code, out, _) = person.sees(&mut person.types("audit verify --json"));
    assert_eq!((code, &*out), (0, "{\"ok\":true,\"lines\":0}\n"));
}
