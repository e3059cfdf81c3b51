//! The vault returns values unchanged, to the holder of the key alone, and notices every change to its file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::MAX_VALUE_SIZE;
use crate::maintenance::restore;

/// A folder with a key file of 32 `k`.
pub(super) struct TestVault {
    folder: tempfile::TempDir,
}

impl TestVault {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let test_vault = Self { folder };
        test_vault.file("key", &[b'k'; 32]);
        test_vault
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("vault")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn unlock(&self) -> Unlock {
        Unlock::KeyFile(self.folder.path().join("key"))
    }

    pub(super) fn open(&self) -> Result<Vault, StoreError> {
        Vault::open(&self.path(), &self.unlock())
    }

    pub(super) fn make(&self) -> Vault {
        Vault::open_or_create(&self.path(), &self.unlock()).unwrap()
    }
}

pub(super) fn key(name: &str) -> Key {
    in_environment("development", name)
}

fn in_environment(environment: &str, name: &str) -> Key {
    Key {
        project: Project::default(),
        environment: environment.parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

pub(super) fn secret(value: impl AsRef<[u8]>) -> Secret {
    Secret::new(value.as_ref().to_vec())
}

pub(super) fn shown(vault: &Vault, name: &str) -> Option<Vec<u8>> {
    vault.get(&key(name)).unwrap().map(|value| value.expose().to_vec())
}

fn message<T>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn stored_secret_is_read_listed_and_deleted() {
    let test_vault = TestVault::new();
    let vault = test_vault.make();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    vault.set(&key("A"), secret("alpha"), Some("sk-proj-x")).unwrap();
    vault.set(&in_environment("production", "A"), secret("other"), None).unwrap();

    let again = test_vault.open().unwrap();
    assert_eq!(shown(&again, "A").unwrap(), b"alpha");
    assert_eq!(shown(&again, "C"), None);
    let listed = again.list(&Project::default(), &Environment::default()).unwrap();
    let names: Vec<_> =
        listed.iter().map(|entry| (entry.name.as_str(), entry.placeholder.as_deref())).collect();
    assert_eq!(names, [("A", Some("sk-proj-x")), ("B", None)]);
    assert!(again.delete(&key("A")).unwrap());
    assert!(!again.delete(&key("A")).unwrap());
    assert_eq!(shown(&vault, "A"), None);
    let other = vault.get(&in_environment("production", "A")).unwrap().unwrap();
    assert_eq!(other.expose(), b"other");
}

#[test]
fn open_vault_sees_change_of_another_process() {
    let test_vault = TestVault::new();
    let (reader, writer) = (test_vault.make(), test_vault.make());
    let before = reader.version().unwrap();
    writer.set(&key("A"), secret("one"), None).unwrap();
    assert!(reader.version().unwrap() > before);
    assert_eq!(shown(&reader, "A").unwrap(), b"one");
    writer.set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(shown(&reader, "A").unwrap(), b"two");
}

#[test]
fn replaced_vault_of_equal_generation_is_a_change() {
    let test_vault = TestVault::new();
    let reader = test_vault.make();
    reader.set(&key("A"), secret("one"), None).unwrap();
    let before = reader.version().unwrap();
    fs::remove_file(test_vault.path()).unwrap();
    test_vault.make().set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(test_vault.open().unwrap().version().unwrap(), before, "it has come as far");
    assert_ne!(reader.version().unwrap(), before);
    assert_eq!(shown(&reader, "A").unwrap(), b"two");
}

#[test]
fn concurrent_writers_lose_nothing() {
    let test_vault = TestVault::new();
    let reader = test_vault.make();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let vault = test_vault.open().unwrap();
            scope.spawn(move || {
                for n in 0..10 {
                    vault.set(&key(&format!("K{writer}_{n}")), secret(format!("{n}")), None).unwrap();
                }
            });
        }
        for _ in 0..200 {
            reader.list(&Project::default(), &Environment::default()).unwrap();
        }
    });
    assert_eq!(reader.list(&Project::default(), &Environment::default()).unwrap().len(), 40);
    assert_eq!(reader.version().unwrap(), 40);
}

#[test]
fn hanging_writer_is_an_error_after_the_timeout() {
    let test_vault = TestVault::new();
    test_vault.make();
    let lock_guard = lock(&test_vault.path()).unwrap();
    let error = message(lock_within(&test_vault.path(), Duration::from_millis(50)));
    assert!(error.contains("fuser") && error.contains("vault.lock"), "{error}");
    // Reading takes no lock.
    test_vault.open().unwrap();
    drop(lock_guard);
    lock_within(&test_vault.path(), Duration::from_millis(50)).unwrap();
}

#[test]
fn value_is_not_on_disk_and_files_are_private() {
    let test_vault = TestVault::new();
    test_vault.make().set(&key("A"), secret("a-very-particular-value"), None).unwrap();
    for entry in fs::read_dir(test_vault.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(
            !text.contains("particular")
                && !text.contains(&crate::encoding::encode(b"a-very-particular-value"))
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn empty_and_oversized_values_are_refused() {
    let vault = TestVault::new().make();
    assert!(message(vault.set(&key("A"), secret(""), None)).contains("empty"));
    assert!(message(vault.set(&key("A"), Secret::new(vec![1; MAX_VALUE_SIZE + 1]), None)).contains("1 MiB"));
}

/// Writes over a file in its test_vault: emptying it first would make the file system wait for the disk.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn change_of_any_byte_is_detected() {
    let test_vault = TestVault::new();
    test_vault.make().set(&key("A"), secret("alpha"), Some("sk-1")).unwrap();
    let sound = fs::read(test_vault.path()).unwrap();
    for at in 0..sound.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bad = sound.clone();
            bad[at] ^= flip;
            overwrite(&test_vault.path(), &bad);
            assert!(test_vault.open().is_err(), "byte {at} changed by {flip:#x} went unnoticed");
        }
    }
    for length in 0..sound.len() {
        overwrite(&test_vault.path(), &sound[..length]);
        assert!(test_vault.open().is_err(), "a cut at {length} went unnoticed");
    }
    overwrite(&test_vault.path(), &sound);
    test_vault.open().unwrap();
}

#[test]
fn removed_swapped_repeated_or_old_line_is_detected() {
    let test_vault = TestVault::new();
    let vault = test_vault.make();
    vault.set(&key("A"), secret("old"), None).unwrap();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    let old = fs::read_to_string(test_vault.path()).unwrap();
    vault.set(&key("A"), secret("new"), None).unwrap();
    let new = fs::read_to_string(test_vault.path()).unwrap();
    let lines: Vec<_> = new.lines().collect();
    let old_item = old.lines().nth(2).unwrap();
    for forged in [
        vec![lines[0], lines[1], lines[3], lines[4]],
        vec![lines[0], lines[1], lines[3], lines[2], lines[4]],
        vec![lines[0], lines[1], lines[2], lines[2], lines[3], lines[4]],
        vec![lines[0], lines[1], old_item, lines[3], lines[4]],
    ] {
        fs::write(test_vault.path(), forged.join("\n") + "\n").unwrap();
        assert!(matches!(test_vault.open(), Err(StoreError::Damaged(_))));
        assert!(vault.get(&key("A")).is_err());
    }
    // A whole older file is sound in itself: only who had the newer one open can tell.
    fs::write(test_vault.path(), &old).unwrap();
    assert!(message(vault.get(&key("A"))).contains("rolled back"));
}

#[test]
fn wrong_key_is_an_error_with_its_fix() {
    let test_vault = TestVault::new();
    test_vault.make();
    test_vault.file("key", &[b'x'; 32]);
    assert!(message(test_vault.open()).contains("does not open the vault"));
    let passphrase = Unlock::Passphrase(secret("something typed"));
    assert!(message(Vault::open(&test_vault.path(), &passphrase)).contains("AGENTSECRETS_VAULT_KEY_FILE"));
}

#[test]
fn short_or_public_key_file_is_refused() {
    let test_vault = TestVault::new();
    test_vault.make();
    test_vault.file("key", b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\n");
    test_vault.open().unwrap();
    let short = Unlock::KeyFile(test_vault.file("short", b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\n"));
    assert!(message(Vault::open(&test_vault.path(), &short)).contains("at least 32 bytes"));
    let shared = test_vault.file("key", &[b'k'; 32]);
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(message(test_vault.open()).contains("chmod 600"));
    fs::remove_file(&shared).unwrap();
    assert!(message(test_vault.open()).contains("there is no key file"));
}

#[test]
fn missing_vault_is_locked_and_newer_format_is_refused() {
    let test_vault = TestVault::new();
    assert!(matches!(test_vault.open(), Err(StoreError::Locked(text)) if text.contains("secrets set")));
    fs::write(test_vault.path(), "{\"format\":\"agentsecrets-vault\",\"version\":2,\"more\":1}\n{}\n")
        .unwrap();
    assert!(message(test_vault.open()).contains("newer agentsecrets"));
}

#[test]
fn excessive_argon2_cost_in_header_is_refused() {
    let test_vault = TestVault::new();
    let passphrase = Unlock::Passphrase(secret("correct horse"));
    fs::write(test_vault.path(), PASSPHRASE_VECTOR.replace(":64,", ":4194304,")).unwrap();
    assert!(message(Vault::open(&test_vault.path(), &passphrase)).contains("cost"));
}

#[test]
fn replaced_vault_is_opened_by_the_key_file() {
    let test_vault = TestVault::new();
    let vault = test_vault.make();
    vault.set(&key("A"), secret("one"), None).unwrap();
    fs::remove_file(test_vault.path()).unwrap();
    test_vault.make().set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(shown(&vault, "A").unwrap(), b"two");
}

#[test]
fn vault_with_passphrase_opens_by_it_alone() {
    let test_vault = TestVault::new();
    let made = Vault::create(&test_vault.path(), &Unlock::Passphrase(secret("correct horse"))).unwrap();
    made.set(&key("A"), secret("alpha"), None).unwrap();
    let again = Vault::open(&test_vault.path(), &Unlock::Passphrase(secret("correct horse"))).unwrap();
    assert_eq!(shown(&again, "A").unwrap(), b"alpha");
    let wrong = Vault::open(&test_vault.path(), &Unlock::Passphrase(secret("Correct horse")));
    assert!(matches!(wrong, Err(StoreError::Locked(_))));
}

#[test]
fn rekey_encrypts_every_value_anew() {
    let test_vault = TestVault::new();
    let vault = test_vault.make();
    vault.set(&key("A"), secret("alpha"), Some("sk-proj-x")).unwrap();
    vault.set(&in_environment("production", "B"), secret([0, 255, 10]), None).unwrap();
    let before = read_text(&test_vault.path());
    let passphrase = || Unlock::Passphrase(secret("correct horse"));
    test_vault.open().unwrap().rekey(&passphrase()).unwrap();
    assert!(message(test_vault.open()).contains("opened by a passphrase"));
    let changed = Vault::open(&test_vault.path(), &passphrase()).unwrap();
    assert_eq!(shown(&changed, "A").unwrap(), b"alpha");
    assert_eq!(changed.get(&in_environment("production", "B")).unwrap().unwrap().expose(), [0, 255, 10]);
    let entry = &changed.list(&Project::default(), &Environment::default()).unwrap()[0];
    assert_eq!(entry.placeholder.as_deref(), Some("sk-proj-x"));
    // Not a byte of what was sealed is left, and the numbers go on.
    let after = read_text(&test_vault.path());
    for line in before.lines() {
        let sealed = line.split("\"sealed\":\"").nth(1).map(|rest| &rest[..20]);
        assert!(sealed.is_none_or(|sealed| !after.contains(sealed)));
    }
    assert_eq!(changed.version().unwrap(), 3);
    let new = Unlock::KeyFile(test_vault.file("new key", &[b'n'; 40]));
    changed.rekey(&new).unwrap();
    assert!(Vault::open(&test_vault.path(), &passphrase()).is_err() && test_vault.open().is_err());
    assert_eq!(shown(&Vault::open(&test_vault.path(), &new).unwrap(), "A").unwrap(), b"alpha");
    // Who had it open by the old key file spends nothing more.
    assert!(matches!(vault.get(&key("A")), Err(StoreError::Locked(_))));
}

#[test]
fn replaced_key_file_keeps_readers_working() {
    let test_vault = TestVault::new();
    let reader = test_vault.make();
    reader.set(&key("A"), secret("alpha"), None).unwrap();
    let new = test_vault.file("new", &[b'n'; 40]);
    test_vault.open().unwrap().rekey(&Unlock::KeyFile(new.clone())).unwrap();
    fs::rename(new, test_vault.folder.path().join("key")).unwrap();
    assert_eq!(shown(&reader, "A").unwrap(), b"alpha");
}

#[test]
fn damaged_backup_is_neither_written_nor_restored() {
    let test_vault = TestVault::new();
    let vault = test_vault.make();
    vault.set(&key("A"), secret("alpha"), None).unwrap();
    let backup = test_vault.folder.path().join("backup");
    assert_eq!(vault.backup(&backup).unwrap(), 1);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(vault.backup(&backup), Err(StoreError::Refused(_))));
    vault.set(&key("A"), secret("changed"), None).unwrap();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    assert_eq!(restore(&test_vault.path(), &backup, &test_vault.unlock()).unwrap(), 1);
    // Who had it open takes it for a change, not for a theft.
    assert_eq!(shown(&vault, "A").unwrap(), b"alpha");
    assert_eq!(shown(&vault, "B"), None);
    let kept =
        Vault::open(&test_vault.path().with_file_name("vault.before-restore"), &test_vault.unlock()).unwrap();
    assert_eq!(shown(&kept, "B").unwrap(), b"beta");
    // Over a vault that is damaged, it is what is left.
    fs::write(test_vault.path(), "damage").unwrap();
    assert!(vault.backup(&test_vault.folder.path().join("second")).is_err());
    restore(&test_vault.path(), &backup, &test_vault.unlock()).unwrap();
    assert_eq!(shown(&test_vault.open().unwrap(), "A").unwrap(), b"alpha");
    let mut forged = fs::read(&backup).unwrap();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    fs::write(&backup, forged).unwrap();
    assert!(restore(&test_vault.path(), &backup, &test_vault.unlock()).is_err());
    assert_eq!(shown(&test_vault.open().unwrap(), "A").unwrap(), b"alpha");
}

/// Made once by another implementation of the module's description; the key is 32 `k`.
const KEY_FILE_VECTOR: &str = include_str!("../vectors/key-file.vault");
/// The same secrets; the passphrase is `correct horse`, at a cost that suits tests.
const PASSPHRASE_VECTOR: &str = include_str!("../vectors/passphrase.vault");

#[test]
fn vault_of_another_implementation_opens() {
    let test_vault = TestVault::new();
    for (vector, unlock) in [
        (KEY_FILE_VECTOR, test_vault.unlock()),
        (PASSPHRASE_VECTOR, Unlock::Passphrase(secret("correct horse"))),
    ] {
        fs::write(test_vault.path(), vector).unwrap();
        let vault = Vault::open(&test_vault.path(), &unlock).unwrap();
        assert_eq!(shown(&vault, "STRIPE_KEY").unwrap(), b"sk_live_example");
        let binary = vault.get(&in_environment("production", "BLOB")).unwrap().unwrap();
        assert_eq!(binary.expose(), [0, 255, 10, 34]);
        assert_eq!(vault.version().unwrap(), 7);
        let listed = vault.list(&Project::default(), &Environment::default()).unwrap();
        assert_eq!(listed[0].placeholder.as_deref(), Some("sk-proj-…"));
        // What we write over it is read by the same description: the lines we did not touch stay.
        vault.set(&key("NEW"), secret("n"), None).unwrap();
        let kept =
            |file: &str| file.lines().filter(|line| line.contains("sealed")).map(String::from).collect();
        let (before, after): (Vec<_>, Vec<_>) = (kept(vector), kept(&read_text(&test_vault.path())));
        assert!(before.iter().all(|line| after.contains(line)));
    }
}

fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_value_is_read_back_unchanged(value in proptest::collection::vec(any::<u8>(), 1..2000), placeholder in ".{0,20}") {
        let test_vault = TestVault::new();
        test_vault.make().set(&key("A"), secret(&value), Some(&placeholder)).unwrap();
        let vault = test_vault.open().unwrap();
        prop_assert_eq!(shown(&vault, "A").unwrap(), value);
        let listed = vault.list(&Project::default(), &Environment::default()).unwrap();
        prop_assert_eq!(listed[0].placeholder.as_deref(), Some(&*placeholder));
    }

    #[test]
    fn arbitrary_text_is_an_error(text in ".{0,300}") {
        let test_vault = TestVault::new();
        fs::write(test_vault.path(), text).unwrap();
        prop_assert!(test_vault.open().is_err());
    }
}
