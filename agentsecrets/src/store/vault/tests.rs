//! What the vault promises: values come back as they went in, to the holder of the key alone, and
//! nothing that was done to the file goes unnoticed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A folder with a key file of 32 `k`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        place.file("key", &[b'k'; 32]);
        place
    }

    fn path(&self) -> PathBuf {
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

    fn open(&self) -> Result<Vault, StoreError> {
        Vault::open(&self.path(), &self.unlock())
    }

    fn make(&self) -> Vault {
        Vault::open_or_create(&self.path(), &self.unlock()).unwrap()
    }
}

fn key(name: &str) -> Key {
    in_environment("development", name)
}

fn in_environment(environment: &str, name: &str) -> Key {
    Key {
        project: Project::default(),
        environment: environment.parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

fn secret(value: impl AsRef<[u8]>) -> Secret {
    Secret::new(value.as_ref().to_vec())
}

fn shown(vault: &Vault, name: &str) -> Option<Vec<u8>> {
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

/// Not a test: what the next one starts as processes of their own, and kills.
#[test]
fn writer_that_never_ends() {
    let (Some(path), Ok(writer)) = (std::env::var_os("VAULT_TEST_PATH"), std::env::var("VAULT_TEST_WRITER"))
    else {
        return;
    };
    let path = PathBuf::from(path);
    let vault = Vault::open_or_create(&path, &Unlock::KeyFile(path.with_file_name("key"))).unwrap();
    for n in 0.. {
        vault.set(&key(&format!("K{writer}_{n}")), secret(format!("value {n}")), None).unwrap();
        println!("stored K{writer}_{n}");
    }
}

#[test]
fn killed_writers_leave_a_sound_vault_with_all_that_was_stored() {
    let place = Place::new();
    let started = |writer: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "store::vault::tests::writer_that_never_ends", "--nocapture"]);
        command.env("VAULT_TEST_PATH", place.path()).env("VAULT_TEST_WRITER", writer);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children = [started("A"), started("B")];
    let mut stored = Vec::new();
    for mut child in children {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        stored.extend(lines.filter(|line| line.contains("stored ")).take(15));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let vault = place.open().unwrap();
    for line in stored {
        let name = line.rsplit(' ').next().unwrap();
        let n = name.rsplit('_').next().unwrap();
        assert_eq!(shown(&vault, name).unwrap(), format!("value {n}").into_bytes());
    }
    // The lock of a killed writer holds nobody up.
    vault.set(&key("NEXT"), secret("n"), None).unwrap();
}

#[test]
fn neither_value_nor_its_base64_is_on_disk_and_files_are_private() {
    let place = Place::new();
    place.make().set(&key("A"), secret("a-very-particular-value"), None).unwrap();
    for entry in fs::read_dir(place.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("particular") && !text.contains(&text::encode(b"a-very-particular-value")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn empty_and_oversized_values_are_refused() {
    let vault = Place::new().make();
    assert!(message(vault.set(&key("A"), secret(""), None)).contains("empty"));
    assert!(message(vault.set(&key("A"), Secret::new(vec![1; LARGEST_VALUE + 1]), None)).contains("1 MiB"));
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
