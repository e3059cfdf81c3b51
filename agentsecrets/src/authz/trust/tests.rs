//! Trust pins, one case per test.

use std::fs;
use std::sync::Mutex;

use http::Method;

use super::pins::PinnedFile;
use super::pins::Pins;
use super::*;
use crate::identity::process_details::{Ancestor, Script};
use crate::identity::{IdentityError, Process};
use crate::policy::injection::InjectionStyle;
use crate::types::target::{Scheme, Target};

/// A source of process details that returns the script of the test.
#[derive(Default)]
struct Says(Mutex<Option<Script>>);

impl ProcessDetails for Says {
    fn process(&self, _pid: u32) -> Result<Process, IdentityError> {
        Err(IdentityError::Gone)
    }

    fn inside(&self, _pid: u32, _who: &Process) -> Result<u32, IdentityError> {
        Err(IdentityError::Gone)
    }

    fn script(&self, _process: &Process) -> Result<Option<Script>, IdentityError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn ancestry(&self, _process: &Process) -> Result<Vec<Ancestor>, IdentityError> {
        Ok(Vec::new())
    }
}

/// A home with programs in it.
struct Place {
    folder: tempfile::TempDir,
    says: Arc<Says>,
    is_required: bool,
}

impl Place {
    fn new() -> Self {
        let test_home =
            Self { folder: tempfile::tempdir().unwrap(), says: Arc::default(), is_required: false };
        for program in ["tool", "other", "script"] {
            fs::write(test_home.at(program), program).unwrap();
        }
        test_home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Pins `program`, changed by `more`.
    fn pin(&self, program: &str, secrets: &[&str], more: impl FnOnce(&mut Pin)) {
        let mut pin = Pin {
            program: PinnedFile::now(&self.at(program)).unwrap(),
            secrets: secrets.iter().map(|name| name.parse().unwrap()).collect(),
            script: None,
            cgroup: None,
            session: false,
            interpreter: None,
            package: None,
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        more(&mut pin);
        let add = |pins: &mut Pins| Ok::<_, RegistryError>(pins.add(pin));
        registry::change(&self.at("trust.json"), add).unwrap();
    }

    fn caller(&self, program: &str) -> Caller {
        let now = PinnedFile::now(&self.at(program)).unwrap();
        let (exe, sha256, cgroup) = (now.path, now.sha256, "/agents/one".into());
        let process = Arc::new(Process { exe, sha256, cgroup, ..Process::for_test() });
        Caller { process, session: "".into(), ..Caller::for_test() }
    }

    fn trust(&self) -> Trust {
        Trust::open(&self.at("trust.json"), self.is_required, Some(self.says.clone())).unwrap()
    }

    /// Why `caller` may not spend `secret`; nothing, if it may.
    fn refused(&self, caller: &Caller, secret: &str) -> Option<String> {
        let target = Target { scheme: Scheme::Https, host: "api.net".parse().unwrap(), port: 443 };
        let ask = AccessRequest {
            target: &target,
            method: &Method::GET,
            path: "/",
            websocket: false,
            references: &[],
        };
        let spends = [SecretUse { name: secret.parse().unwrap(), style: InjectionStyle::Bearer }];
        let rejection = self.trust().rejection(caller, &ask, &spends)?;
        assert_eq!(rejection.code, ErrorCode::CapabilityDenied);
        assert!(self.trust().rejection(caller, &ask, &[]).is_none(), "nothing is spent");
        Some(rejection.message)
    }
}

fn with(caller: &Caller, change: impl FnOnce(&mut Process)) -> Caller {
    let mut process = Process::clone(&caller.process);
    change(&mut process);
    Caller { process: Arc::new(process), ..caller.clone() }
}

#[test]
fn pinned_secret_is_for_its_program_only_and_vice_versa() {
    let test_home = Place::new();
    let (tool, other) = (test_home.caller("tool"), test_home.caller("other"));
    assert_eq!(test_home.refused(&other, "A"), None, "nothing is pinned yet");
    test_home.pin("tool", &["A"], |_| {});
    assert_eq!(test_home.refused(&tool, "A"), None);
    assert!(test_home.refused(&other, "A").unwrap().contains("trust add PROGRAM --secrets A"));
    assert!(test_home.refused(&tool, "B").unwrap().contains("trusted for A alone"));
    assert_eq!(test_home.refused(&other, "B"), None);
    test_home.pin("other", &[], |_| {});
    assert!(test_home.refused(&other, "A").is_some(), "a pin for any secret is none for what others have");
    assert_eq!(test_home.refused(&other, "B"), None);
}

#[test]
fn changed_program_is_refused_with_the_change() {
    let test_home = Place::new();
    test_home.pin("tool", &[], |_| {});
    let before = test_home.caller("tool");
    fs::write(test_home.at("tool"), "longer than before").unwrap();
    let after = test_home.caller("tool");
    let message = test_home.refused(&after, "B").unwrap();
    let (was, is) = (pins::short(&before.process.sha256), pins::short(&after.process.sha256));
    for part in [
        was,
        is,
        "4 bytes",
        "18 bytes",
        &format!("agentsecrets trust update {}", test_home.at("tool").display()),
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!test_home.trust().holds(&after));
}

#[test]
fn pin_needs_both_path_and_file() {
    let test_home = Place::new();
    test_home.pin("tool", &["A"], |_| {});
    let tool = test_home.caller("tool");
    fs::copy(test_home.at("tool"), test_home.at("copy")).unwrap();
    assert!(test_home.refused(&test_home.caller("copy"), "A").is_some());
    fs::hard_link(test_home.at("tool"), test_home.at("link")).unwrap();
    let link = with(&tool, |process| process.exe = test_home.at("link"));
    assert!(test_home.refused(&link, "A").is_some());
    let elsewhere = with(&tool, |process| process.here = false);
    assert!(test_home.refused(&elsewhere, "B").unwrap().contains("another view of the file system"));
    let replaced = format!("deleted:{} (deleted)", test_home.at("tool").display());
    let replaced = with(&tool, |process| process.exe = replaced.into());
    assert!(test_home.refused(&replaced, "B").unwrap().contains("start it again"));
    let memory = with(&tool, |process| process.exe = "deleted:/memfd:tool (deleted)".into());
    assert!(test_home.refused(&memory, "A").is_some());
    assert_eq!(test_home.refused(&memory, "B"), None, "nobody pinned it or what it spends");
}

#[test]
fn required_trust_refuses_unpinned_program() {
    let mut test_home = Place::new();
    test_home.is_required = true;
    assert!(test_home.refused(&test_home.caller("tool"), "B").is_some());
    test_home.pin("tool", &[], |_| {});
    assert_eq!(test_home.refused(&test_home.caller("tool"), "B"), None);
    assert!(test_home.refused(&test_home.caller("other"), "B").is_some());
}

#[test]
fn interpreter_needs_more_than_its_hash() {
    let test_home = Place::new();
    let interpreter = |pin: &mut Pin| pin.interpreter = Some("python".into());
    test_home.pin("tool", &["A"], interpreter);
    let tool = test_home.caller("tool");
    assert!(!test_home.trust().holds(&tool));
    assert!(test_home.refused(&tool, "A").unwrap().contains("it is an interpreter (python)"));
    test_home.pin("tool", &["A"], |pin| {
        interpreter(pin);
        pin.session = true;
    });
    assert!(test_home.refused(&tool, "A").unwrap().contains("inside a session"));
    let inside = Caller { session: "s".into(), ..tool.clone() };
    assert_eq!(test_home.refused(&inside, "A"), None);
    test_home.pin("tool", &["A"], |pin| {
        interpreter(pin);
        pin.cgroup = Some("/agents/*".into());
    });
    assert_eq!(test_home.refused(&tool, "A"), None);
    let outside = with(&tool, |process| process.cgroup = "/agents/../other".into());
    assert!(test_home.refused(&outside, "A").unwrap().contains("in another cgroup"));
}

#[test]
fn pinned_script_must_be_run_unchanged() {
    let test_home = Place::new();
    test_home.pin("tool", &["A"], |pin| {
        pin.interpreter = Some("python".into());
        pin.script = Some(PinnedFile::now(&test_home.at("script")).unwrap());
    });
    let tool = test_home.caller("tool");
    let says = |name: &str| {
        let PinnedFile { path, sha256, .. } = PinnedFile::now(&test_home.at(name)).unwrap();
        *test_home.says.0.lock().unwrap() = Some(Script { path, sha256 });
    };
    assert!(test_home.refused(&tool, "A").unwrap().contains("its first argument names none"));
    says("other");
    assert!(test_home.refused(&tool, "A").unwrap().contains("it says it runs"));
    assert_eq!(test_home.refused(&tool, "B"), None, "for other secrets it is a program like any other");
    says("script");
    assert_eq!(test_home.refused(&tool, "A"), None);
    fs::write(test_home.at("script"), "changed").unwrap();
    says("script");
    assert!(test_home.refused(&tool, "A").unwrap().contains("is not what was trusted"));
    let unseen = Trust::open(&test_home.at("trust.json"), false, None).unwrap();
    assert!(!unseen.holds(&tool));
}

#[test]
fn secret_of_several_pins_is_named_once() {
    let test_home = Place::new();
    let script = PinnedFile::now(&test_home.at("script")).unwrap();
    test_home.pin("tool", &["A", "C"], |_| {});
    test_home.pin("tool", &["A", "B"], |pin| pin.script = Some(script.clone()));
    *test_home.says.0.lock().unwrap() = Some(Script { path: script.path, sha256: script.sha256 });
    let tool = test_home.caller("tool");
    assert!(test_home.refused(&tool, "D").unwrap().contains("trusted for A, B, C alone"));
    assert_eq!(test_home.trust().verdict(&tool).reason(), "its pin names A, B, C");
}

#[test]
fn value_export_needs_a_valid_pin() {
    let test_home = Place::new();
    let (secret, other): (SecretName, SecretName) = ("A".parse().unwrap(), "B".parse().unwrap());
    assert!(test_home.trust().vouches(&test_home.caller("tool"), &secret).is_err());
    test_home.pin("tool", &["A"], |_| {});
    let trust = test_home.trust();
    assert_eq!(trust.vouches(&test_home.caller("tool"), &secret), Ok(()));
    assert!(trust.vouches(&test_home.caller("tool"), &other).is_err());
    assert!(trust.vouches(&test_home.caller("other"), &secret).is_err());
    assert!(trust.vouches(&test_home.caller("other"), &other).is_err());
}

#[tokio::test]
async fn new_pin_takes_effect_and_damaged_file_refuses() {
    let test_home = Place::new();
    let trust = test_home.trust();
    let mut changes = trust.pins.subscribe();
    let (tool, other) = (test_home.caller("tool"), test_home.caller("other"));
    test_home.pin("tool", &["A"], |_| {});
    tokio::time::timeout(std::time::Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(trust.holds(&tool) && !trust.holds(&other));
    let is_bound = || trust.vouches(&other, &"A".parse().unwrap()).is_err() && trust.holds(&tool);
    fs::remove_file(test_home.at("trust.json")).unwrap();
    trust.pins.refresh();
    assert!(is_bound() && trust.pins.last_error().unwrap().to_string().contains("it was removed"));
    fs::write(test_home.at("trust.json"), "{}").unwrap();
    trust.pins.refresh();
    assert!(is_bound());
    assert!(Trust::open(&test_home.at("trust.json"), false, None).is_err());
}
