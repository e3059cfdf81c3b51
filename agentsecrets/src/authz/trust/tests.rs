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
        let place = Self { folder: tempfile::tempdir().unwrap(), says: Arc::default(), is_required: false };
        for program in ["tool", "other", "script"] {
            fs::write(place.at(program), program).unwrap();
        }
        place
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
        let refusal = self.trust().rejection(caller, &ask, &spends)?;
        assert_eq!(refusal.code, ErrorCode::CapabilityDenied);
        assert!(self.trust().rejection(caller, &ask, &[]).is_none(), "nothing is spent");
        Some(refusal.message)
    }
}

fn with(caller: &Caller, change: impl FnOnce(&mut Process)) -> Caller {
    let mut process = Process::clone(&caller.process);
    change(&mut process);
    Caller { process: Arc::new(process), ..caller.clone() }
}

#[test]
fn a_secret_that_a_pin_names_is_spent_by_its_program_alone_and_that_one_spends_nothing_else() {
    let place = Place::new();
    let (tool, other) = (place.caller("tool"), place.caller("other"));
    assert_eq!(place.refused(&other, "A"), None, "nothing is pinned yet");
    place.pin("tool", &["A"], |_| {});
    assert_eq!(place.refused(&tool, "A"), None);
    assert!(place.refused(&other, "A").unwrap().contains("trust add PROGRAM --secrets A"));
    assert!(place.refused(&tool, "B").unwrap().contains("trusted for A alone"));
    assert_eq!(place.refused(&other, "B"), None);
    place.pin("other", &[], |_| {});
    assert!(place.refused(&other, "A").is_some(), "a pin for any secret is none for what others have");
    assert_eq!(place.refused(&other, "B"), None);
}

#[test]
fn a_changed_program_is_refused_everything_and_told_what_changed() {
    let place = Place::new();
    place.pin("tool", &[], |_| {});
    let before = place.caller("tool");
    fs::write(place.at("tool"), "longer than before").unwrap();
    let after = place.caller("tool");
    let told = place.refused(&after, "B").unwrap();
    let (was, is) = (pins::short(&before.process.sha256), pins::short(&after.process.sha256));
    for part in
        [was, is, "4 bytes", "18 bytes", &format!("agentsecrets trust update {}", place.at("tool").display())]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!place.trust().holds(&after));
}

#[test]
fn the_same_file_under_another_name_is_another_program_and_another_file_at_the_path_is_none() {
    let place = Place::new();
    place.pin("tool", &["A"], |_| {});
    let tool = place.caller("tool");
    fs::copy(place.at("tool"), place.at("copy")).unwrap();
    assert!(place.refused(&place.caller("copy"), "A").is_some());
    fs::hard_link(place.at("tool"), place.at("link")).unwrap();
    let link = with(&tool, |process| process.exe = place.at("link"));
    assert!(place.refused(&link, "A").is_some());
    let elsewhere = with(&tool, |process| process.here = false);
    assert!(place.refused(&elsewhere, "B").unwrap().contains("another view of the file system"));
    let replaced = format!("deleted:{} (deleted)", place.at("tool").display());
    let replaced = with(&tool, |process| process.exe = replaced.into());
    assert!(place.refused(&replaced, "B").unwrap().contains("start it again"));
    let memory = with(&tool, |process| process.exe = "deleted:/memfd:tool (deleted)".into());
    assert!(place.refused(&memory, "A").is_some());
    assert_eq!(place.refused(&memory, "B"), None, "nobody pinned it or what it spends");
}

#[test]
fn where_trust_is_required_nothing_is_spent_without_a_pin_that_holds() {
    let mut place = Place::new();
    place.is_required = true;
    assert!(place.refused(&place.caller("tool"), "B").is_some());
    place.pin("tool", &[], |_| {});
    assert_eq!(place.refused(&place.caller("tool"), "B"), None);
    assert!(place.refused(&place.caller("other"), "B").is_some());
}

#[test]
fn an_interpreter_is_not_trusted_by_its_hash_alone() {
    let place = Place::new();
    let interpreter = |pin: &mut Pin| pin.interpreter = Some("python".into());
    place.pin("tool", &["A"], interpreter);
    let tool = place.caller("tool");
    assert!(!place.trust().holds(&tool));
    assert!(place.refused(&tool, "A").unwrap().contains("it is an interpreter (python)"));
    place.pin("tool", &["A"], |pin| {
        interpreter(pin);
        pin.session = true;
    });
    assert!(place.refused(&tool, "A").unwrap().contains("inside a session"));
    let inside = Caller { session: "s".into(), ..tool.clone() };
    assert_eq!(place.refused(&inside, "A"), None);
    place.pin("tool", &["A"], |pin| {
        interpreter(pin);
        pin.cgroup = Some("/agents/*".into());
    });
    assert_eq!(place.refused(&tool, "A"), None);
    let outside = with(&tool, |process| process.cgroup = "/agents/../other".into());
    assert!(place.refused(&outside, "A").unwrap().contains("in another cgroup"));
}

#[test]
fn a_pin_with_a_script_holds_while_the_program_says_that_it_runs_that_script_unchanged() {
    let place = Place::new();
    place.pin("tool", &["A"], |pin| {
        pin.interpreter = Some("python".into());
        pin.script = Some(PinnedFile::now(&place.at("script")).unwrap());
    });
    let tool = place.caller("tool");
    let says = |name: &str| {
        let PinnedFile { path, sha256, .. } = PinnedFile::now(&place.at(name)).unwrap();
        *place.says.0.lock().unwrap() = Some(Script { path, sha256 });
    };
    assert!(place.refused(&tool, "A").unwrap().contains("its first argument names none"));
    says("other");
    assert!(place.refused(&tool, "A").unwrap().contains("it says it runs"));
    assert_eq!(place.refused(&tool, "B"), None, "for other secrets it is a program like any other");
    says("script");
    assert_eq!(place.refused(&tool, "A"), None);
    fs::write(place.at("script"), "changed").unwrap();
    says("script");
    assert!(place.refused(&tool, "A").unwrap().contains("is not what was trusted"));
    let unseen = Trust::open(&place.at("trust.json"), false, None).unwrap();
    assert!(!unseen.holds(&tool));
}

#[test]
fn a_secret_that_several_pins_name_is_told_once() {
    let place = Place::new();
    let script = PinnedFile::now(&place.at("script")).unwrap();
    place.pin("tool", &["A", "C"], |_| {});
    place.pin("tool", &["A", "B"], |pin| pin.script = Some(script.clone()));
    *place.says.0.lock().unwrap() = Some(Script { path: script.path, sha256: script.sha256 });
    let tool = place.caller("tool");
    assert!(place.refused(&tool, "D").unwrap().contains("trusted for A, B, C alone"));
    assert_eq!(place.trust().verdict(&tool).why(), "its pin names A, B, C");
}

#[test]
fn who_hands_out_values_asks_for_a_pin_that_holds_whether_or_not_one_names_the_secret() {
    let place = Place::new();
    let (secret, other): (SecretName, SecretName) = ("A".parse().unwrap(), "B".parse().unwrap());
    assert!(place.trust().vouches(&place.caller("tool"), &secret).is_err());
    place.pin("tool", &["A"], |_| {});
    let trust = place.trust();
    assert_eq!(trust.vouches(&place.caller("tool"), &secret), Ok(()));
    assert!(trust.vouches(&place.caller("tool"), &other).is_err());
    assert!(trust.vouches(&place.caller("other"), &secret).is_err());
    assert!(trust.vouches(&place.caller("other"), &other).is_err());
}

#[tokio::test]
async fn a_pin_bites_at_once_and_a_file_that_is_lost_or_broken_sets_nothing_free() {
    let place = Place::new();
    let trust = place.trust();
    let mut changes = trust.pins.subscribe();
    let (tool, other) = (place.caller("tool"), place.caller("other"));
    place.pin("tool", &["A"], |_| {});
    tokio::time::timeout(std::time::Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(trust.holds(&tool) && !trust.holds(&other));
    let is_bound = || trust.vouches(&other, &"A".parse().unwrap()).is_err() && trust.holds(&tool);
    fs::remove_file(place.at("trust.json")).unwrap();
    trust.pins.refresh();
    assert!(is_bound() && trust.pins.last_error().unwrap().to_string().contains("it was removed"));
    fs::write(place.at("trust.json"), "{}").unwrap();
    trust.pins.refresh();
    assert!(is_bound());
    assert!(Trust::open(&place.at("trust.json"), false, None).is_err());
}
