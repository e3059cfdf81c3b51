//! Fuzz targets for our own files with foreign content: the vault and the audit log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::input::Input;
use crate::audit::{self, Log, Opening, Outcome, Status};
use crate::store::Store;
use crate::vault::{self, Unlock, Vault};

/// Key file of the vaults in the corpus.
const KEY_FILE: &str = "the key file of the fuzzer's vaults\n";
/// Key of the audit logs in the corpus.
const AUDIT_KEY: [u8; 32] = *b"the key of the fuzzer's logs 32b";
/// Secrets in those vaults.
const VALUES: [(&str, &[u8]); 2] = [("A", b"value-of-the-first"), ("B", b"value-of-the-second")];

/// Opens a vault file. A first byte of 1 seals it with a valid last line, as if its writer had the keys;
/// nothing else passes the integrity check.
pub(super) fn vault(bytes: &[u8]) {
    let mut input = Input(bytes);
    let proven = input.byte() == 1;
    let folder = folder();
    let unlock = Unlock::KeyFile(write(&folder, "key", KEY_FILE.as_bytes()));
    let mut file = input.0.to_vec();
    if proven {
        let Ok(content) = std::str::from_utf8(input.0) else { return };
        let Some(resealed) = vault::resealed(content, &unlock) else { return };
        file = resealed.into_bytes();
    }
    let path = write(&folder, "vault", &file);
    let Ok(vault) = Vault::open(&path, &unlock) else { return };
    let (project, environment) = (Default::default(), Default::default());
    for entry in vault.list(&project, &environment).unwrap() {
        let key = crate::store::Key {
            project: Default::default(),
            environment: Default::default(),
            name: entry.name,
        };
        // A value decrypts only under the name it was stored under.
        if let Ok(Some(value)) = vault.get(&key) {
            let stored = VALUES.iter().find(|(name, _)| *name == key.name.as_str());
            assert_eq!(stored.map(|(_, value)| *value), Some(value.expose()));
        }
    }
}

/// Verifies an audit log: the anchor's line, then the log.
pub(super) fn audit(bytes: &[u8]) {
    let folder = folder();
    let home = folder.path().join("audit");
    fs::create_dir(&home).unwrap();
    write(&folder, "audit.key", &AUDIT_KEY);
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (head, log) = bytes.split_at(end);
    if head.len() > 1 {
        write(&folder, "audit.head", head);
    }
    write(&folder, "audit/audit.jsonl", log);

    let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    let sound = audit::query::verify(&home).ok();
    assert!(sound.is_none_or(|proven| proven == lines), "{sound:?} of {lines}");
    if let Ok(contents) = audit::query::read(&home) {
        assert_eq!(contents.fault.is_none(), sound.is_some());
        for record in &contents.records {
            let texts = [&record.id, &record.method, &record.target_url, &record.domain, &record.environment];
            assert!(texts.iter().all(|text| !text.contains(char::is_control)), "{record:?}");
        }
    }
    let mut copy = Vec::new();
    let _ = audit::query::export(&home, &mut copy).unwrap();
    append(&home, sound);
}

/// A valid log accepts another record and stays valid; appending never makes an invalid log valid.
fn append(home: &Path, sound: Option<u64>) {
    let Ok(log) = Log::open(home) else { return assert_eq!(sound, None) };
    let opening = Opening {
        environment: Default::default(),
        agent_id: None,
        identity_level: Default::default(),
        process: None,
        session_id: None,
        token_id: None,
        method: "GET".into(),
        target_url: "https://api.test/".into(),
        domain: "api.test".into(),
    };
    let outcome = Outcome { status: Status::Ok, status_code: Some(200), reason: None, redacted: false };
    let written = log.begin(opening).finish(outcome).is_ok();
    drop(log);
    if let Some(before) = sound {
        assert!(written);
        assert_eq!(audit::query::verify(home).ok(), Some(before + 1));
    }
}

/// A temporary folder, in memory if possible.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}
