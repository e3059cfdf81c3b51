//! The vault: its file format as an independent implementation reads and writes it, and commands on the whole
//! vault.

use std::fs;
use std::process::Command;

use agentsecrets::store::{Key, Store};
use agentsecrets::types::secret::Secret;
use agentsecrets::vault::{Unlock, Vault};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::home::{AGENTSECRETS, Home};
use crate::support::process::{Outcome, command, run, run_with_input};
use crate::support::python::{PYTHON, program};

/// The independent implementation in Python.
fn python(words: &[&str]) -> Command {
    let mut python = command(PYTHON);
    python.args(["-c", &program("stores/programs/vault.py")]).args(words);
    python
}

fn key(environment: &str, name: &str) -> Key {
    Key {
        project: "shop".parse().unwrap(),
        environment: environment.parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

/// Values of every kind with their keys and placeholders.
fn values() -> Vec<(Key, Vec<u8>, Option<&'static str>)> {
    let large: Vec<u8> = (0..1024 * 1024).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        (key("development", "PLAIN"), b"sk_live_example".to_vec(), None),
        (key("development", "SHAPED"), b"with a shape".to_vec(), Some("sk-proj-\u{2026}\"\\ 0000")),
        (key("production", "PLAIN"), b"the same name elsewhere".to_vec(), None),
        (key("my.own-env_1", "_"), vec![0, 255, 10, 13, 0, 128], None),
        (key("staging", "LARGE"), large, None),
    ]
}

/// The values in the independent implementation's JSON, in the vault's order.
fn as_json() -> Vec<Value> {
    let entry = |(key, value, placeholder): (Key, Vec<u8>, Option<&str>)| {
        json!([key.project, key.environment, key.name, STANDARD.encode(value), placeholder])
    };
    let mut entries: Vec<Value> = values().into_iter().map(entry).collect();
    entries.sort_by_key(|entry| format!("{}\0{}\0{}", entry[0], entry[1], entry[2]).replace('"', ""));
    entries
}

/// The ways to open a vault: for us, and for the independent implementation.
fn unlock_methods(folder: &std::path::Path) -> [(Unlock, [String; 2]); 2] {
    let path = folder.join("key");
    fs::write(&path, "a key file of at least thirty-two bytes\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let words = ["key-file".to_owned(), path.display().to_string()];
    let passphrase = "correct horse battery stäple";
    [
        (Unlock::KeyFile(path), words),
        (
            Unlock::Passphrase(Secret::new(passphrase.as_bytes().to_vec())),
            ["passphrase".to_owned(), passphrase.to_owned()],
        ),
    ]
}

#[test]
fn other_implementation_reads_vault() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (unlock, words)) in unlock_methods(folder.path()).into_iter().enumerate() {
        let path = folder.path().join(format!("vault-{number}"));
        let vault = Vault::create(&path, &unlock).unwrap();
        for (key, value, placeholder) in values() {
            vault.set(&key, Secret::new(value), placeholder).unwrap();
        }
        let read = run(&mut python(&["read", path.to_str().unwrap(), &words[0], &words[1]])).json();
        assert!(read == Value::from(as_json()), "{} reads something else", words[0]);
        // And again after everything was re-encrypted.
        vault.rekey(&unlock).unwrap();
        let read = run(&mut python(&["read", path.to_str().unwrap(), &words[0], &words[1]])).json();
        assert!(read == Value::from(as_json()), "{} reads something else after a change of key", words[0]);
    }
}

#[test]
fn vault_of_other_implementation_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (unlock, words)) in unlock_methods(folder.path()).into_iter().enumerate() {
        let path = folder.path().join(format!("vault-{number}"));
        let shown = path.to_str().unwrap();
        let input = Value::from(as_json()).to_string();
        run_with_input(&mut python(&["write", shown, &words[0], &words[1]]), input.as_bytes()).ok();
        let vault = Vault::open(&path, &unlock).unwrap();
        for (key, value, placeholder) in values() {
            assert!(vault.get(&key).unwrap().unwrap().expose() == value, "{key:?}");
            let listed = vault.list(&key.project, &key.environment).unwrap();
            let entry = listed.iter().find(|entry| entry.name == key.name).unwrap();
            assert_eq!(entry.placeholder.as_deref(), placeholder);
        }
        assert_eq!(vault.version().unwrap(), 7);
        vault.set(&key("zz", "NEW"), Secret::new(b"a new value".to_vec()), None).unwrap();
        let read = run(&mut python(&["read", shown, &words[0], &words[1]])).json();
        assert_eq!(read.as_array().unwrap().len(), values().len() + 1);
    }
}

/// Runs the program at a terminal and answers each prompt.
fn run_at_terminal(home: &Home, words: &[&str], answers: &[&str]) -> Outcome {
    let mut python = command(PYTHON);
    python.args(["-c", &program("stores/programs/terminal.py")]).args(answers).arg("--").arg(AGENTSECRETS);
    run(python.args(words).env("AGENTSECRETS_HOME", home.path()).current_dir("/tmp"))
}

#[test]
fn passphrase_change_invalidates_old() {
    let home = Home::new();
    let set = ["secrets", "set", "TOKEN"];
    let first =
        ["Value of TOKEN=a-value-of-the-token", "new vault=first passphrase", "again=first passphrase"];
    let made = run_at_terminal(&home, &set, &first);
    assert!(made.code == Some(0) && made.stdout.contains("(vault)"), "{made:?}");
    let change = ["secrets", "vault", "passphrase"];
    let differ = ["of the vault=first passphrase", "New passphrase=second one!", "again=second one?"];
    let differing = run_at_terminal(&home, &change, &differ);
    assert!(differing.code == Some(5) && differing.stdout.contains("differ"), "{differing:?}");
    let changed = ["of the vault=first passphrase", "New passphrase=second one!", "again=second one!"];
    let changed = run_at_terminal(&home, &change, &changed);
    assert!(changed.code == Some(0) && changed.stdout.contains("started again"), "{changed:?}");
    let old = run_at_terminal(&home, &["secrets", "get", "TOKEN"], &["of the vault=first passphrase"]);
    assert!(old.code == Some(5) && old.stdout.contains("does not open"), "{old:?}");
    let new = run_at_terminal(&home, &["secrets", "get", "TOKEN", "--reveal"], &["of the vault=second one!"]);
    assert!(new.code == Some(0) && new.stdout.contains("a-value-of-the-token"), "{new:?}");
    // To a key file, which needs no terminal.
    let key = home.key().display().to_string();
    let to_key = run_at_terminal(&home, &["secrets", "vault", "key", &key], &["of the vault=second one!"]);
    assert!(to_key.code == Some(0) && to_key.stdout.contains(&key), "{to_key:?}");
    run(&mut home.agentsecrets(["secrets", "get", "TOKEN"])).ok();
}

#[test]
fn vault_backup_and_restore_work() {
    let home = Home::new();
    home.set_secret("TOKEN", "a-value-of-the-token");
    let backup = home.path().join("a-backup");
    let file = backup.to_str().unwrap();
    let first = run(&mut home.agentsecrets(["secrets", "vault", "backup", file]));
    assert!(first.code == Some(0) && first.stderr.contains("1 secrets"), "{first:?}");
    let second = run(&mut home.agentsecrets(["secrets", "vault", "backup", file]));
    assert!(second.code == Some(2) && second.stderr.contains("name a new file"), "{second:?}");
    fs::write(home.path().join("vault"), "damage").unwrap();
    assert_eq!(run(&mut home.agentsecrets(["secrets", "list"])).code, Some(1));
    run(&mut home.agentsecrets(["secrets", "vault", "restore", file])).ok();
    assert!(run(&mut home.agentsecrets(["secrets", "list"])).ok().contains("TOKEN"));
}

#[test]
fn imported_env_file_is_removed_on_request() {
    let home = Home::new();
    let file = home.path().join("app.env");
    let shown = file.to_str().unwrap();
    let write = || fs::write(&file, "A=a-value-of-some-length\nPLAIN=localhost\n").unwrap();
    write();
    let dry = run(&mut home.agentsecrets(["secrets", "import", shown, "--dry-run"]));
    assert!(dry.stdout == "A\nPLAIN\n" && dry.stderr.contains("PLAIN is one plain word"), "{dry:?}");
    let unchanged = run(&mut home.agentsecrets(["secrets", "import", shown]));
    assert!(file.exists() && unchanged.stderr.contains("still holds the values"), "{unchanged:?}");
    let link = home.path().join("link.env");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let linked = run(&mut home.agentsecrets(["secrets", "import", link.to_str().unwrap(), "--remove"]));
    assert!(linked.code == Some(1) && file.exists() && linked.stderr.contains("is a link"), "{linked:?}");
    let removed = run(&mut home.agentsecrets(["secrets", "import", shown, "--remove"]));
    assert!(removed.code == Some(0) && !file.exists(), "{removed:?}");
    // At a terminal the operator is prompted.
    fs::remove_file(home.path().join("vault")).unwrap();
    for (answer, there) in [("no", true), ("y", false)] {
        write();
        let new = ["new vault=first passphrase", "again=first passphrase"];
        let again = ["of the vault=first passphrase"];
        let mut answers = if there { new.to_vec() } else { again.to_vec() };
        let question = format!("[y/N]={answer}");
        answers.push(&question);
        let prompted = run_at_terminal(&home, &["secrets", "import", shown], &answers);
        assert!(prompted.code == Some(0) && file.exists() == there, "{prompted:?}");
    }
}
