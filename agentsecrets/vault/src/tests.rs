//! The vault returns values unchanged, to the holder of the key alone, and notices every change to its file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// A folder with a key file of 32 `k`.
pub(super) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        place.file("key", &[b'k'; 32]);
        place
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
fn what_was_set_is_read_back_listed_and_deleted() {
    let place = Place::new();
    let vault = place.make();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    vault.set(&key("A"), secret("alpha"), Some("sk-proj-x")).unwrap();
    vault.set(&in_environment("production", "A"), secret("other"), None).unwrap();

    let again = place.open().unwrap();
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
fn an_open_vault_sees_what_another_process_stores() {
    let place = Place::new();
    let (reader, writer) = (place.make(), place.make());
    let before = reader.version().unwrap();
    writer.set(&key("A"), secret("one"), None).unwrap();
    assert!(reader.version().unwrap() > before);
    assert_eq!(shown(&reader, "A").unwrap(), b"one");
    writer.set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(shown(&reader, "A").unwrap(), b"two");
}

#[test]
fn another_vault_in_its_place_is_a_change_though_it_has_come_as_far() {
    let place = Place::new();
    let reader = place.make();
    reader.set(&key("A"), secret("one"), None).unwrap();
    let before = reader.version().unwrap();
    fs::remove_file(place.path()).unwrap();
    place.make().set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(place.open().unwrap().version().unwrap(), before, "it has come as far");
    assert_ne!(reader.version().unwrap(), before);
    assert_eq!(shown(&reader, "A").unwrap(), b"two");
}

#[test]
fn writers_at_once_lose_nothing_while_readers_read() {
    let place = Place::new();
    let reader = place.make();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let vault = place.open().unwrap();
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
fn a_writer_that_hangs_is_waited_for_and_then_named() {
    let place = Place::new();
    place.make();
    let held = lock(&place.path()).unwrap();
    let error = message(lock_within(&place.path(), Duration::from_millis(50)));
    assert!(error.contains("fuser") && error.contains("vault.lock"), "{error}");
    // Reading takes no lock.
    place.open().unwrap();
    drop(held);
    lock_within(&place.path(), Duration::from_millis(50)).unwrap();
}

#[test]
fn neither_value_nor_its_base64_is_on_disk_and_files_are_private() {
    let place = Place::new();
    place.make().set(&key("A"), secret("a-very-particular-value"), None).unwrap();
    for entry in fs::read_dir(place.folder.path()).unwrap() {
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
    let vault = Place::new().make();
    assert!(message(vault.set(&key("A"), secret(""), None)).contains("empty"));
    assert!(message(vault.set(&key("A"), Secret::new(vec![1; MAX_VALUE_SIZE + 1]), None)).contains("1 MiB"));
}

/// Writes over a file in its place: emptying it first would make the file system wait for the disk.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn every_single_byte_matters() {
    let place = Place::new();
    place.make().set(&key("A"), secret("alpha"), Some("sk-1")).unwrap();
    let sound = fs::read(place.path()).unwrap();
    for at in 0..sound.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bad = sound.clone();
            bad[at] ^= flip;
            overwrite(&place.path(), &bad);
            assert!(place.open().is_err(), "byte {at} changed by {flip:#x} went unnoticed");
        }
    }
    for length in 0..sound.len() {
        overwrite(&place.path(), &sound[..length]);
        assert!(place.open().is_err(), "a cut at {length} went unnoticed");
    }
    overwrite(&place.path(), &sound);
    place.open().unwrap();
}

#[test]
fn lines_that_were_removed_swapped_repeated_or_rolled_back_are_noticed() {
    let place = Place::new();
    let vault = place.make();
    vault.set(&key("A"), secret("old"), None).unwrap();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    let old = fs::read_to_string(place.path()).unwrap();
    vault.set(&key("A"), secret("new"), None).unwrap();
    let new = fs::read_to_string(place.path()).unwrap();
    let lines: Vec<_> = new.lines().collect();
    let old_item = old.lines().nth(2).unwrap();
    for forged in [
        vec![lines[0], lines[1], lines[3], lines[4]],
        vec![lines[0], lines[1], lines[3], lines[2], lines[4]],
        vec![lines[0], lines[1], lines[2], lines[2], lines[3], lines[4]],
        vec![lines[0], lines[1], old_item, lines[3], lines[4]],
    ] {
        fs::write(place.path(), forged.join("\n") + "\n").unwrap();
        assert!(matches!(place.open(), Err(StoreError::Damaged(_))));
        assert!(vault.get(&key("A")).is_err());
    }
    // A whole older file is sound in itself: only who had the newer one open can tell.
    fs::write(place.path(), &old).unwrap();
    assert!(message(vault.get(&key("A"))).contains("rolled back"));
}

#[test]
fn a_wrong_key_says_what_to_do() {
    let place = Place::new();
    place.make();
    place.file("key", &[b'x'; 32]);
    assert!(message(place.open()).contains("does not open the vault"));
    let passphrase = Unlock::Passphrase(secret("something typed"));
    assert!(message(Vault::open(&place.path(), &passphrase)).contains("AGENTSECRETS_VAULT_KEY_FILE"));
}

#[test]
fn a_key_file_is_long_private_and_may_end_in_a_newline() {
    let place = Place::new();
    place.make();
    place.file("key", b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\n");
    place.open().unwrap();
    let short = Unlock::KeyFile(place.file("short", b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\n"));
    assert!(message(Vault::open(&place.path(), &short)).contains("at least 32 bytes"));
    let shared = place.file("key", &[b'k'; 32]);
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(message(place.open()).contains("chmod 600"));
    fs::remove_file(&shared).unwrap();
    assert!(message(place.open()).contains("there is no key file"));
}

#[test]
fn a_missing_vault_is_locked_and_a_newer_one_is_not_touched() {
    let place = Place::new();
    assert!(matches!(place.open(), Err(StoreError::Locked(text)) if text.contains("secrets set")));
    fs::write(place.path(), "{\"format\":\"agentsecrets-vault\",\"version\":2,\"more\":1}\n{}\n").unwrap();
    assert!(message(place.open()).contains("newer agentsecrets"));
}

#[test]
fn a_header_cannot_make_us_work_without_end() {
    let place = Place::new();
    let passphrase = Unlock::Passphrase(secret("correct horse"));
    fs::write(place.path(), PASSPHRASE_VECTOR.replace(":64,", ":4194304,")).unwrap();
    assert!(message(Vault::open(&place.path(), &passphrase)).contains("cost"));
}

#[test]
fn another_vault_in_its_place_is_opened_by_the_key_file() {
    let place = Place::new();
    let vault = place.make();
    vault.set(&key("A"), secret("one"), None).unwrap();
    fs::remove_file(place.path()).unwrap();
    place.make().set(&key("A"), secret("two"), None).unwrap();
    assert_eq!(shown(&vault, "A").unwrap(), b"two");
}

#[test]
fn a_new_vault_by_passphrase_opens_by_it_alone() {
    let place = Place::new();
    let made = Vault::create(&place.path(), &Unlock::Passphrase(secret("correct horse"))).unwrap();
    made.set(&key("A"), secret("alpha"), None).unwrap();
    let again = Vault::open(&place.path(), &Unlock::Passphrase(secret("correct horse"))).unwrap();
    assert_eq!(shown(&again, "A").unwrap(), b"alpha");
    let wrong = Vault::open(&place.path(), &Unlock::Passphrase(secret("Correct horse")));
    assert!(matches!(wrong, Err(StoreError::Locked(_))));
}

#[test]
fn another_passphrase_or_key_file_seals_everything_anew() {
    let place = Place::new();
    let vault = place.make();
    vault.set(&key("A"), secret("alpha"), Some("sk-proj-x")).unwrap();
    vault.set(&in_environment("production", "B"), secret([0, 255, 10]), None).unwrap();
    let before = read_text(&place.path());
    let passphrase = || Unlock::Passphrase(secret("correct horse"));
    place.open().unwrap().rekey(&passphrase()).unwrap();
    assert!(message(place.open()).contains("opened by a passphrase"));
    let changed = Vault::open(&place.path(), &passphrase()).unwrap();
    assert_eq!(shown(&changed, "A").unwrap(), b"alpha");
    assert_eq!(changed.get(&in_environment("production", "B")).unwrap().unwrap().expose(), [0, 255, 10]);
    let entry = &changed.list(&Project::default(), &Environment::default()).unwrap()[0];
    assert_eq!(entry.placeholder.as_deref(), Some("sk-proj-x"));
    // Not a byte of what was sealed is left, and the numbers go on.
    let after = read_text(&place.path());
    for line in before.lines() {
        let sealed = line.split("\"sealed\":\"").nth(1).map(|rest| &rest[..20]);
        assert!(sealed.is_none_or(|sealed| !after.contains(sealed)));
    }
    assert_eq!(changed.version().unwrap(), 3);
    let new = Unlock::KeyFile(place.file("new key", &[b'n'; 40]));
    changed.rekey(&new).unwrap();
    assert!(Vault::open(&place.path(), &passphrase()).is_err() && place.open().is_err());
    assert_eq!(shown(&Vault::open(&place.path(), &new).unwrap(), "A").unwrap(), b"alpha");
    // Who had it open by the old key file spends nothing more.
    assert!(matches!(vault.get(&key("A")), Err(StoreError::Locked(_))));
}

#[test]
fn a_key_file_that_was_changed_in_its_place_keeps_readers_going() {
    let place = Place::new();
    let reader = place.make();
    reader.set(&key("A"), secret("alpha"), None).unwrap();
    let new = place.file("new", &[b'n'; 40]);
    place.open().unwrap().rekey(&Unlock::KeyFile(new.clone())).unwrap();
    fs::rename(new, place.folder.path().join("key")).unwrap();
    assert_eq!(shown(&reader, "A").unwrap(), b"alpha");
}

#[test]
fn a_backup_is_proven_before_it_is_written_and_before_it_is_put_back() {
    let place = Place::new();
    let vault = place.make();
    vault.set(&key("A"), secret("alpha"), None).unwrap();
    let backup = place.folder.path().join("backup");
    assert_eq!(vault.backup(&backup).unwrap(), 1);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(vault.backup(&backup), Err(StoreError::Refused(_))));
    vault.set(&key("A"), secret("changed"), None).unwrap();
    vault.set(&key("B"), secret("beta"), None).unwrap();
    assert_eq!(restore(&place.path(), &backup, &place.unlock()).unwrap(), 1);
    // Who had it open takes it for a change, not for a theft.
    assert_eq!(shown(&vault, "A").unwrap(), b"alpha");
    assert_eq!(shown(&vault, "B"), None);
    let kept = Vault::open(&place.path().with_file_name("vault.before-restore"), &place.unlock()).unwrap();
    assert_eq!(shown(&kept, "B").unwrap(), b"beta");
    // Over a vault that is damaged, it is what is left.
    fs::write(place.path(), "damage").unwrap();
    assert!(vault.backup(&place.folder.path().join("second")).is_err());
    restore(&place.path(), &backup, &place.unlock()).unwrap();
    assert_eq!(shown(&place.open().unwrap(), "A").unwrap(), b"alpha");
    let mut forged = fs::read(&backup).unwrap();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    fs::write(&backup, forged).unwrap();
    assert!(restore(&place.path(), &backup, &place.unlock()).is_err());
    assert_eq!(shown(&place.open().unwrap(), "A").unwrap(), b"alpha");
}

/// Made once by another implementation of the module's description; the key is 32 `k`.
const KEY_FILE_VECTOR: &str = include_str!("vectors/key-file.vault");
/// The same secrets; the passphrase is `correct horse`, at a cost that suits tests.
const PASSPHRASE_VECTOR: &str = include_str!("vectors/passphrase.vault");

#[test]
fn vaults_of_another_implementation_open() {
    let place = Place::new();
    for (vector, unlock) in
        [(KEY_FILE_VECTOR, place.unlock()), (PASSPHRASE_VECTOR, Unlock::Passphrase(secret("correct horse")))]
    {
        fs::write(place.path(), vector).unwrap();
        let vault = Vault::open(&place.path(), &unlock).unwrap();
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
        let (before, after): (Vec<_>, Vec<_>) = (kept(vector), kept(&read_text(&place.path())));
        assert!(before.iter().all(|line| after.contains(line)));
    }
}

fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_come_back(value in proptest::collection::vec(any::<u8>(), 1..2000), placeholder in ".{0,20}") {
        let place = Place::new();
        place.make().set(&key("A"), secret(&value), Some(&placeholder)).unwrap();
        let vault = place.open().unwrap();
        prop_assert_eq!(shown(&vault, "A").unwrap(), value);
        let listed = vault.list(&Project::default(), &Environment::default()).unwrap();
        prop_assert_eq!(listed[0].placeholder.as_deref(), Some(&*placeholder));
    }

    #[test]
    fn arbitrary_text_is_no_vault(text in ".{0,300}") {
        let place = Place::new();
        fs::write(place.path(), text).unwrap();
        prop_assert!(place.open().is_err());
    }
}
