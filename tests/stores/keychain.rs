//! The keychain of a desktop, which is a real Secret Service here.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use super::curl;
use crate::spine::{Agent, SECRET, World};
use crate::support::certificate::Authority;
use crate::support::home::{AGENTSECRETS, Home};
use crate::support::keychain::{Keychain, as_user};
use crate::support::process::{Outcome, command, finish, finish_with};
use crate::support::python::{PYTHON, program};

/// A person whose secrets are in the keychain.
struct Person {
    home: Home,
    keychain: Keychain,
}

impl Person {
    fn new(keychain: Keychain, stores: &str) -> Self {
        let home = Home::new();
        home.configure(stores);
        Self { home, keychain }
    }

    fn types(&self, words: &[&str]) -> Command {
        self.keychain.at(self.home.agentsecrets(words))
    }

    #[track_caller]
    fn sees(&self, words: &[&str]) -> Outcome {
        finish(&mut self.types(words))
    }

    /// What another program at the keychain prints.
    #[track_caller]
    fn another_program(&self, arguments: &[&str]) -> Vec<u8> {
        let mut python = self.keychain.at(command(PYTHON));
        let output =
            python.args(["-c", &program("stores/programs/keychain.py")]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[track_caller]
    fn sets(&self, name: &str, value: &[u8]) -> Outcome {
        finish_with(&mut self.types(&["secrets", "set", name]), value)
    }
}

#[test]
fn a_secret_is_set_listed_shown_and_deleted_in_the_real_secret_service() {
    let person = Person::new(Keychain::unlocked(), "stores: [keychain]\n");
    let set = person.sets("TOKEN", b"a-real-value-1");
    assert!(set.code == Some(0) && set.stderr.contains("(keychain)"), "{set:?}");
    let words = ["secrets", "set", "SHAPED", "--placeholder", "sk-proj-00000000"];
    finish_with(&mut person.types(&words), b"a-real-value-2").ok();
    let listed = person.sees(&["secrets", "list", "--json"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["placeholder"]),
        (&"SHAPED".into(), &"sk-proj-00000000".into())
    );
    assert_eq!((&listed[1]["name"], &listed[1]["store"]), (&"TOKEN".into(), &"keychain".into()));
    assert!(listed[1]["updated"].is_string());
    let shown = person.sees(&["secrets", "get", "TOKEN"]).ok();
    assert!(shown.contains("keychain") && !shown.contains("a-real-value"), "{shown}");
    // Another environment is another item.
    assert_eq!(person.sees(&["--environment", "production", "secrets", "get", "TOKEN"]).code, Some(3));
    let replaced = person.sets("SHAPED", b"a-real-value-3");
    assert!(replaced.stderr.contains("replaced SHAPED"), "{replaced:?}");
    assert!(person.sees(&["secrets", "get", "SHAPED"]).ok().contains("sk-proj-00000000"));
    assert_eq!(person.sees(&["secrets", "delete", "TOKEN"]).code, Some(0));
    assert_eq!(person.sees(&["secrets", "delete", "TOKEN"]).code, Some(3));
    assert!(!person.home.path().join("vault").exists(), "nothing of it is in a vault");
}

#[test]
fn other_programs_share_its_items_under_the_names_that_they_agree_on() {
    let person = Person::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.sets("OURS", b"a-real-value-1");
    assert_eq!(person.another_program(&["default:development:OURS"]), b"a-real-value-1");
    person.another_program(&["default:development:THEIRS", "a-real-value-2"]);
    person.another_program(&["default:production:ELSEWHERE", "a-real-value-3"]);
    let listed = person.sees(&["secrets", "list", "--json"]).json();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["OURS", "THEIRS"]);
    // Two items under one name: which is meant nobody knows.
    person.another_program(&["default:development:THEIRS", "a-real-value-4"]);
}

#[test]
fn any_bytes_and_odd_but_valid_names_come_back() {
    let person = Person::new(Keychain::unlocked(), "stores: [keychain]\n");
    let large: Vec<u8> = (0..1024 * 1024).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let long_name = "N".repeat(128);
    for (name, value) in [
        ("NUL", &b"a\0b\0"[..]),
        ("LINES", b"-----BEGIN-----\nline\n-----END-----\n\n"),
        ("BYTES", &[0xff, 0xfe, 0x80, 0x00, 0xc3]),
        ("_", b"underscore-value"),
        (&long_name, b"the-longest-name"),
        ("LARGE", &large),
    ] {
        assert_eq!(person.sets(name, value).code, Some(0), "{name}");
        let wanted = value.strip_suffix(b"\n").unwrap_or(value);
        let item = format!("default:development:{name}");
        assert!(person.another_program(&[&item]) == wanted, "{name} is stored as something else");
        let listed = person.sees(&["secrets", "list", "--json"]).json();
        assert!(listed.as_array().unwrap().iter().any(|entry| entry["name"] == name), "{name} is not listed");
    }
    for bad in ["A-B", "1A", "A B", "É", "A:B", "../A", &"N".repeat(129)] {
        let refused = person.sets(bad, b"value-of-a-bad-name");
        assert!(
            refused.code == Some(2) && refused.stderr.contains("letters, digits and underscores"),
            "{refused:?}"
        );
    }
}

#[test]
fn an_agent_spends_a_secret_out_of_the_keychain_and_finds_no_way_to_it() {
    let (world, keychain) = (World::new(), Keychain::unlocked());
    fs::remove_file(world.home.path().join("vault")).unwrap();
    world.home.configure("stores: [keychain]\n");
    let mut set = keychain.at(world.home.agentsecrets(["secrets", "set", "API_KEY"]));
    finish_with(&mut set, SECRET.as_bytes()).ok();
    let outcome = curl(&world, |command| keychain.at(command));
    assert!(outcome.stdout.ends_with("\n200"), "{outcome:?}");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
    // The agent has neither the bus's address nor its socket.
    let script = format!(
        "env | grep -i -e dbus -e keyring; test -S {0}/bus && echo socket; dbus-send --address=unix:path={0}/bus \
         --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames && echo reached; echo end",
        keychain.folder().display()
    );
    let looked = finish(&mut keychain.at(world.home.run_agent(["sh", "-c", &script]))).ok();
    assert_eq!(looked, "end\n");
}

#[test]
fn the_keychain_of_the_person_behind_sudo_is_asked_as_that_person() {
    // `daemon`: a bus lets in only whom the system knows.
    const PERSON: u32 = 1;
    let (world, keychain) = (World::new(), Keychain::unlocked_of(PERSON));
    fs::remove_file(world.home.path().join("vault")).unwrap();
    world.home.configure("stores: [keychain]\n");
    let copy = world.home.path().with_file_name("agentsecrets");
    fs::copy(AGENTSECRETS, &copy).unwrap();
    finish(command("chown").args(["-R", &PERSON.to_string()]).arg(world.home.path())).ok();
    let mut set = keychain.at(as_user(PERSON, copy.to_str().unwrap()));
    set.args(["secrets", "set", "API_KEY"]).env("AGENTSECRETS_HOME", world.home.path()).current_dir("/tmp");
    finish_with(&mut set, SECRET.as_bytes()).ok();
    // Root's own programs are not let in by the person's bus, and need not be.
    let outcome = curl(&world, |command| keychain.at(command));
    assert!(outcome.stdout.ends_with("\n200"), "{outcome:?}");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn a_locked_keychain_an_absent_one_and_a_missing_item_are_three_answers() {
    let mut person = Person::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.sets("TOKEN", b"a-real-value-1");
    let missing = person.sees(&["secrets", "get", "OTHER"]);
    assert!(missing.code == Some(3) && missing.stderr.contains("there is no secret OTHER"), "{missing:?}");
    person.keychain.lock();
    for words in [&["secrets", "list"][..], &["secrets", "get", "TOKEN"], &["secrets", "delete", "TOKEN"]] {
        let locked = person.sees(words);
        assert!(locked.code == Some(5) && locked.stderr.contains("locked"), "{locked:?}");
        assert!(locked.stderr.contains("--unlock") && locked.stdout.is_empty(), "{locked:?}");
    }
    assert_eq!(person.sets("TOKEN", b"a-real-value-2").code, Some(5));
    person.keychain.unlock();
    assert_eq!(person.sees(&["secrets", "get", "TOKEN"]).code, Some(0), "it is there again");
    person.keychain = Keychain::absent();
    for words in [&["secrets", "list"][..], &["secrets", "get", "TOKEN"]] {
        let absent = person.sees(words);
        assert!(absent.code == Some(5) && absent.stderr.contains("there is no keychain here"), "{absent:?}");
        assert!(absent.stderr.contains("gnome-keyring") && absent.stdout.is_empty(), "{absent:?}");
    }
    let doctor = person.sees(&["doctor"]);
    assert!(doctor.stdout.contains("✗ there is no keychain here"), "{doctor:?}");
}

#[test]
fn a_keychain_that_hangs_is_given_up_and_told() {
    let person = Person::new(Keychain::unlocked(), "stores: [{ keychain: { timeout: 1s } }]\n");
    person.sets("TOKEN", b"a-real-value-1");
    person.keychain.hang();
    let hung = person.sees(&["secrets", "get", "TOKEN"]);
    assert!(hung.code == Some(5) && hung.stderr.contains("did not answer within 1 s"), "{hung:?}");
    assert!(hung.stderr.contains("unlock it"), "{hung:?}");
    person.home.policy("version: 1\nagents: [{ name: a, allow: [{ host: api.test, secrets: [TOKEN] }] }]\n");
    person.home.trust(&Authority::new().pem());
    let run = person.sees(&["run", "--", "echo", "started"]);
    assert!(run.code == Some(5) && run.stderr.contains("did not answer within 1 s"), "{run:?}");
    assert!(!run.stdout.contains("started"), "{run:?}");
}

#[test]
fn where_it_is_optional_the_vault_answers_and_that_is_said() {
    let person = Person::new(Keychain::absent(), "stores: [{ keychain: { optional: true } }, vault]\n");
    let set = person.sets("TOKEN", b"a-real-value-1");
    assert!(set.code == Some(0) && set.stderr.contains("(vault)"), "{set:?}");
    assert!(set.stderr.contains("vault answers instead of the keychain"), "{set:?}");
    let listed = person.sees(&["secrets", "list", "--json"]);
    assert!(listed.stderr.contains("vault answers instead"), "{listed:?}");
    assert_eq!(listed.json()[0]["store"], "vault");
    let status = person.sees(&["status", "--json"]).json();
    assert_eq!(
        (&status["stores"][0]["name"], &status["stores"][0]["optional"]),
        (&"keychain".into(), &true.into())
    );
    assert!(status["stores"][0]["state"].as_str().unwrap().contains("no keychain here"), "{status}");
    let doctor = person.sees(&["doctor"]);
    assert!(doctor.stdout.contains("the next store answers"), "{doctor:?}");
}

#[test]
fn a_keychain_that_is_locked_or_restarted_under_a_running_agent_fails_closed_and_comes_back() {
    let (world, mut keychain) = (World::new(), Keychain::unlocked());
    fs::remove_file(world.home.path().join("vault")).unwrap();
    world.home.configure("stores: [{ keychain: { cache: 1s } }]\n");
    let mut set = keychain.at(world.home.agentsecrets(["secrets", "set", "API_KEY"]));
    finish_with(&mut set, SECRET.as_bytes()).ok();
    // It tells each change of the answers that it gets, and ends at the second success.
    let script = format!(
        "last=; n=0; while [ $n -lt 2 ]; do c=$(curl -sS -o /dev/null -w '%{{http_code}}' -H 'Authorization: \
         Bearer AS_SECRET_API_KEY' {}); [ \"$c\" != \"$last\" ] && echo $c && [ $c = 200 ] && n=$((n+1)); last=$c; done",
        world.url("/echo")
    );
    let mut agent = Agent::started(keychain.at(world.home.run_agent([
        "sh",
        "-c",
        &format!("echo ready; read go; {script}"),
    ])));
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut told = std::io::BufReader::new(agent.child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(next(), "200");
    keychain.lock();
    assert_eq!(next(), "503");
    keychain.unlock();
    assert_eq!(next(), "200");
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    for received in world.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    }
}

#[test]
fn what_is_stored_is_encrypted_in_the_keychains_own_file() {
    let person = Person::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.sets("TOKEN", b"a-very-particular-value");
    let file = fs::read(person.keychain.file()).unwrap();
    assert!(!file.windows(10).any(|window| window == b"particular"));
    let ours = crate::support::memory::in_files(&person.home.path(), &[b"particular".to_vec()]);
    assert!(ours.is_empty(), "{ours:?}");
}
