//! A desktop's keychain: a real Secret Service.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use super::curl;
use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::support::certificate::Authority;
use crate::support::home::{AGENTSECRETS, Home};
use crate::support::keychain::{Keychain, as_user};
use crate::support::process::{Outcome, command, run, run_with_input};
use crate::support::python::{PYTHON, program};

/// An operator whose secrets are in the keychain.
struct Operator {
    home: Home,
    keychain: Keychain,
}

impl Operator {
    fn new(keychain: Keychain, stores: &str) -> Self {
        let home = Home::new();
        home.write_config(stores);
        Self { home, keychain }
    }

    fn command(&self, words: &[&str]) -> Command {
        self.keychain.with_session(self.home.agentsecrets(words))
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Outcome {
        run(&mut self.command(words))
    }

    /// The output of an independent keychain client.
    #[track_caller]
    fn keychain_client(&self, arguments: &[&str]) -> Vec<u8> {
        let mut python = self.keychain.with_session(command(PYTHON));
        let output =
            python.args(["-c", &program("stores/programs/keychain.py")]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[track_caller]
    fn set_secret(&self, name: &str, value: &[u8]) -> Outcome {
        run_with_input(&mut self.command(&["secrets", "set", name]), value)
    }
}

#[test]
fn secret_service_stores_lists_and_deletes() {
    let person = Operator::new(Keychain::unlocked(), "stores: [keychain]\n");
    let set = person.set_secret("TOKEN", b"a-real-value-1");
    assert!(set.code == Some(0) && set.stderr.contains("(keychain)"), "{set:?}");
    let words = ["secrets", "set", "SHAPED", "--placeholder", "sk-proj-00000000"];
    run_with_input(&mut person.command(&words), b"a-real-value-2").ok();
    let listed = person.run(&["secrets", "list", "--json"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["placeholder"]),
        (&"SHAPED".into(), &"sk-proj-00000000".into())
    );
    assert_eq!((&listed[1]["name"], &listed[1]["store"]), (&"TOKEN".into(), &"keychain".into()));
    assert!(listed[1]["updated"].is_string());
    let shown = person.run(&["secrets", "get", "TOKEN"]).ok();
    assert!(shown.contains("keychain") && !shown.contains("a-real-value"), "{shown}");
    // Another environment is another item.
    assert_eq!(person.run(&["--environment", "production", "secrets", "get", "TOKEN"]).code, Some(3));
    let replaced = person.set_secret("SHAPED", b"a-real-value-3");
    assert!(replaced.stderr.contains("replaced SHAPED"), "{replaced:?}");
    assert!(person.run(&["secrets", "get", "SHAPED"]).ok().contains("sk-proj-00000000"));
    assert_eq!(person.run(&["secrets", "delete", "TOKEN"]).code, Some(0));
    assert_eq!(person.run(&["secrets", "delete", "TOKEN"]).code, Some(3));
    assert!(!person.home.path().join("vault").exists(), "nothing of it is in a vault");
}

#[test]
fn keychain_items_are_shared_with_other_programs() {
    let person = Operator::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.set_secret("OURS", b"a-real-value-1");
    assert_eq!(person.keychain_client(&["default:development:OURS"]), b"a-real-value-1");
    person.keychain_client(&["default:development:THEIRS", "a-real-value-2"]);
    person.keychain_client(&["default:production:ELSEWHERE", "a-real-value-3"]);
    let listed = person.run(&["secrets", "list", "--json"]).json();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["OURS", "THEIRS"]);
    // Two items under one name are ambiguous.
    person.keychain_client(&["default:development:THEIRS", "a-real-value-4"]);
}

#[test]
fn keychain_keeps_any_bytes_and_names() {
    let person = Operator::new(Keychain::unlocked(), "stores: [keychain]\n");
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
        assert_eq!(person.set_secret(name, value).code, Some(0), "{name}");
        let expected = value.strip_suffix(b"\n").unwrap_or(value);
        let item = format!("default:development:{name}");
        assert!(person.keychain_client(&[&item]) == expected, "{name} is stored as something else");
        let listed = person.run(&["secrets", "list", "--json"]).json();
        assert!(listed.as_array().unwrap().iter().any(|entry| entry["name"] == name), "{name} is not listed");
    }
    for bad in ["A-B", "1A", "A B", "É", "A:B", "../A", &"N".repeat(129)] {
        let refused = person.set_secret(bad, b"value-of-a-bad-name");
        assert!(
            refused.code == Some(2) && refused.stderr.contains("letters, digits and underscores"),
            "{refused:?}"
        );
    }
}

#[test]
fn agent_uses_but_cannot_reach_keychain() {
    let (fixture, keychain) = (Fixture::new(), Keychain::unlocked());
    fs::remove_file(fixture.home.path().join("vault")).unwrap();
    fixture.home.write_config("stores: [keychain]\n");
    let mut set = keychain.with_session(fixture.home.agentsecrets(["secrets", "set", "API_KEY"]));
    run_with_input(&mut set, SECRET.as_bytes()).ok();
    let outcome = curl(&fixture, |command| keychain.with_session(command));
    assert!(outcome.stdout.ends_with("\n200"), "{outcome:?}");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    // The agent has neither the bus's address nor its socket.
    let script = format!(
        "env | grep -i -e dbus -e keyring; test -S {0}/bus && echo socket; dbus-send --address=unix:path={0}/bus \
         --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames && echo reached; echo end",
        keychain.folder().display()
    );
    let looked = run(&mut keychain.with_session(fixture.home.run_agent(["sh", "-c", &script]))).ok();
    assert_eq!(looked, "end\n");
}

#[test]
fn sudo_uses_callers_keychain() {
    // `daemon`: a bus accepts only users that the system knows.
    const PERSON: u32 = 1;
    let (fixture, keychain) = (Fixture::new(), Keychain::unlocked_for(PERSON));
    fs::remove_file(fixture.home.path().join("vault")).unwrap();
    fixture.home.write_config("stores: [keychain]\n");
    let copy = fixture.home.path().with_file_name("agentsecrets");
    fs::copy(AGENTSECRETS, &copy).unwrap();
    run(command("chown").args(["-R", &PERSON.to_string()]).arg(fixture.home.path())).ok();
    let mut set = keychain.with_session(as_user(PERSON, copy.to_str().unwrap()));
    set.args(["secrets", "set", "API_KEY"]).env("AGENTSECRETS_HOME", fixture.home.path()).current_dir("/tmp");
    run_with_input(&mut set, SECRET.as_bytes()).ok();
    // The user's bus does not accept root's own programs, and need not.
    let outcome = curl(&fixture, |command| keychain.with_session(command));
    assert!(outcome.stdout.ends_with("\n200"), "{outcome:?}");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn locked_absent_and_missing_are_distinct_errors() {
    let mut person = Operator::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.set_secret("TOKEN", b"a-real-value-1");
    let missing = person.run(&["secrets", "get", "OTHER"]);
    assert!(missing.code == Some(3) && missing.stderr.contains("there is no secret OTHER"), "{missing:?}");
    person.keychain.lock();
    for words in [&["secrets", "list"][..], &["secrets", "get", "TOKEN"], &["secrets", "delete", "TOKEN"]] {
        let locked = person.run(words);
        assert!(locked.code == Some(5) && locked.stderr.contains("locked"), "{locked:?}");
        assert!(locked.stderr.contains("--unlock") && locked.stdout.is_empty(), "{locked:?}");
    }
    assert_eq!(person.set_secret("TOKEN", b"a-real-value-2").code, Some(5));
    person.keychain.unlock();
    assert_eq!(person.run(&["secrets", "get", "TOKEN"]).code, Some(0), "it is there again");
    person.keychain = Keychain::absent();
    for words in [&["secrets", "list"][..], &["secrets", "get", "TOKEN"]] {
        let absent = person.run(words);
        assert!(absent.code == Some(5) && absent.stderr.contains("there is no keychain here"), "{absent:?}");
        assert!(absent.stderr.contains("gnome-keyring") && absent.stdout.is_empty(), "{absent:?}");
    }
    let doctor = person.run(&["doctor"]);
    assert!(doctor.stdout.contains("✗ there is no keychain here"), "{doctor:?}");
}

#[test]
fn hanging_keychain_times_out() {
    let person = Operator::new(Keychain::unlocked(), "stores: [{ keychain: { timeout: 1s } }]\n");
    person.set_secret("TOKEN", b"a-real-value-1");
    person.keychain.hang();
    let hung = person.run(&["secrets", "get", "TOKEN"]);
    assert!(hung.code == Some(5) && hung.stderr.contains("did not answer within 1 s"), "{hung:?}");
    assert!(hung.stderr.contains("unlock it"), "{hung:?}");
    person
        .home
        .write_policy("version: 1\nagents: [{ name: a, allow: [{ host: api.test, secrets: [TOKEN] }] }]\n");
    person.home.trust(&Authority::new().pem());
    let run = person.run(&["run", "--", "echo", "started"]);
    assert!(run.code == Some(5) && run.stderr.contains("did not answer within 1 s"), "{run:?}");
    assert!(!run.stdout.contains("started"), "{run:?}");
}

#[test]
fn optional_keychain_falls_back_to_vault() {
    let person = Operator::new(Keychain::absent(), "stores: [{ keychain: { optional: true } }, vault]\n");
    let set = person.set_secret("TOKEN", b"a-real-value-1");
    assert!(set.code == Some(0) && set.stderr.contains("(vault)"), "{set:?}");
    assert!(set.stderr.contains("vault answers instead of the keychain"), "{set:?}");
    let listed = person.run(&["secrets", "list", "--json"]);
    assert!(listed.stderr.contains("vault answers instead"), "{listed:?}");
    assert_eq!(listed.json()[0]["store"], "vault");
    let status = person.run(&["status", "--json"]).json();
    assert_eq!(
        (&status["stores"][0]["name"], &status["stores"][0]["optional"]),
        (&"keychain".into(), &true.into())
    );
    assert!(status["stores"][0]["state"].as_str().unwrap().contains("no keychain here"), "{status}");
    let doctor = person.run(&["doctor"]);
    assert!(doctor.stdout.contains("the next store answers"), "{doctor:?}");
}

#[test]
fn keychain_lock_during_run_fails_closed_and_recovers() {
    let (fixture, mut keychain) = (Fixture::new(), Keychain::unlocked());
    fs::remove_file(fixture.home.path().join("vault")).unwrap();
    fixture.home.write_config("stores: [{ keychain: { cache: 1s } }]\n");
    let mut set = keychain.with_session(fixture.home.agentsecrets(["secrets", "set", "API_KEY"]));
    run_with_input(&mut set, SECRET.as_bytes()).ok();
    // It prints each change of the response, and ends at the second success.
    let script = format!(
        "last=; n=0; while [ $n -lt 2 ]; do c=$(curl -sS -o /dev/null -w '%{{http_code}}' -H 'Authorization: \
         Bearer AS_SECRET_API_KEY' {}); [ \"$c\" != \"$last\" ] && echo $c && [ $c = 200 ] && n=$((n+1)); last=$c; done",
        fixture.url("/echo")
    );
    let mut agent = WaitingAgent::start_command(keychain.with_session(fixture.home.run_agent([
        "sh",
        "-c",
        &format!("echo ready; read go; {script}"),
    ])));
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut output = std::io::BufReader::new(agent.child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(next(), "200");
    keychain.lock();
    assert_eq!(next(), "503");
    keychain.unlock();
    assert_eq!(next(), "200");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    for received in fixture.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    }
}

#[test]
fn keychain_file_is_encrypted() {
    let person = Operator::new(Keychain::unlocked(), "stores: [keychain]\n");
    person.set_secret("TOKEN", b"a-very-particular-value");
    let file = fs::read(person.keychain.file()).unwrap();
    assert!(!file.windows(10).any(|window| window == b"particular"));
    let ours = crate::support::value_search::in_files(&person.home.path(), &[b"particular".to_vec()]);
    assert!(ours.is_empty(), "{ours:?}");
}
