//! The log has one record per attempt, and every change to it shows.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;

use super::query::{read, verify};
use super::*;
use crate::tail::Follower;
use agentsecrets_types::name::Environment;
use agentsecrets_types::process_facts::ProcessFacts;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// A place whose log holds records with these methods.
    fn with(methods: &[&str]) -> Self {
        let place = Self::new();
        let log = place.open();
        for method in methods {
            log.begin(opening(method)).finish(ok()).unwrap();
        }
        place
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("audit")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("audit.jsonl")
    }

    fn open(&self) -> Arc<Log> {
        Log::open(&self.folder()).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap().lines().map(String::from).collect()
    }

    /// The first thing wrong once the log consists of these lines.
    fn forged(&self, lines: &[&str]) -> String {
        fs::write(self.log(), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        verify(&self.folder()).unwrap_err().to_string()
    }

    fn records(&self) -> Vec<Record> {
        let contents = read(&self.folder()).unwrap();
        assert!(contents.fault.is_none(), "{:?}", contents.fault);
        contents.records
    }
}

fn process() -> ProcessFacts {
    ProcessFacts {
        pid: 1,
        start_time: 1,
        exe: "/usr/bin/agent".into(),
        sha256: "ab".into(),
        uid: 1000,
        cgroup: "/agent".into(),
        container: None,
        image: None,
        image_id: None,
        pod: None,
        spiffe: Vec::new(),
    }
}

fn opening(method: &str) -> Opening {
    Opening {
        environment: Environment::default(),
        agent_id: Some("coder".parse().unwrap()),
        identity_level: IdentityLevel::Kernel,
        process: Some(process()),
        session_id: Some("s-1".into()),
        token_id: None,
        method: method.into(),
        target_url: "https://api.example.com/v1".into(),
        domain: "api.example.com".into(),
    }
}

fn ok() -> Outcome {
    Outcome { status: Status::Ok, status_code: Some(200), reason: None, redacted: false }
}

#[test]
fn a_record_has_the_fields_of_the_interface_in_their_order() {
    let place = Place::with(&["GET"]);
    let line = &place.lines()[0];
    let record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
    let fields = "id timestamp environment agent_id identity_level secret_keys method target_url domain \
         auth_styles status_code status reason redacted duration_ms token_id session_id process rule \
         prev_hash hash";
    let mut at = 0;
    for field in fields.split_whitespace() {
        assert!(record.contains_key(field), "{field}");
        let found = line.find(&format!("\"{field}\":")).unwrap();
        assert!(found >= at, "{field} is out of order");
        at = found;
    }
    assert_eq!(record.len(), fields.split_whitespace().count());
    assert_eq!(record["status"], "OK");
    assert_eq!(record["identity_level"], "kernel");
    assert_eq!(record["process"]["container"], serde_json::Value::Null);
}

#[test]
fn an_intent_and_its_outcome_are_one_record() {
    let place = Place::new();
    let log = place.open();
    let mut pending = log.begin(opening("POST"));
    pending.secret_keys([&"KEY".parse().unwrap()]);
    pending.rule("coder/1 (policy.yaml:3)");
    pending.intent().unwrap();
    assert_eq!(place.records()[0].status, Status::Pending);
    pending.finish(ok()).unwrap();
    assert_eq!(place.lines().len(), 2);
    let records = place.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].status, &*records[0].secret_keys[0]), (Status::Ok, "KEY"));
    assert_eq!(records[0].rule.as_deref(), Some("coder/1 (policy.yaml:3)"));
}

#[test]
fn a_dropped_record_says_aborted() {
    let place = Place::new();
    drop(place.open().begin(opening("GET")));
    let records = place.records();
    assert_eq!((records.len(), records[0].status), (1, Status::Aborted));
}

#[test]
fn an_intent_of_a_process_that_ended_says_so() {
    let place = Place::new();
    let log = place.open();
    let mut pending = log.begin(opening("GET"));
    pending.intent().unwrap();
    // A process that is killed runs no `Drop`, but its locks are gone.
    std::mem::forget(pending);
    for entry in fs::read_dir(place.folder()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("writer-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let records = place.records();
    assert_eq!(records[0].status, Status::Aborted);
    assert_eq!(records[0].reason.as_deref(), Some("no outcome was written: the process ended"));
}

#[test]
fn what_an_agent_says_cannot_deceive_the_reader() {
    let place = Place::new();
    let mut hostile = opening("G\u{1b}[2JET");
    hostile.target_url = format!("https://a/\u{202e}{}", "x".repeat(10_000));
    let reason = Some("line\nbreak".into());
    let blocked = Outcome { status: Status::Blocked, status_code: Some(403), reason, redacted: false };
    place.open().begin(hostile).finish(blocked).unwrap();
    let record = &place.records()[0];
    assert_eq!(record.method, r"G\u{1b}[2JET");
    assert_eq!(record.reason.as_deref(), Some(r"line\u{a}break"));
    assert!(record.target_url.starts_with(r"https://a/\u{202e}x") && record.target_url.len() < 5000);
}

/// Writes over a file in its place: emptying it first would make the file system wait for the disk.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn every_single_byte_of_log_and_anchor_matters() {
    let place = Place::with(&["A", "B"]);
    assert_eq!(verify(&place.folder()).unwrap(), 2);
    for path in [place.log(), Files::of(&place.folder()).head] {
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bad = sound.clone();
                bad[at] ^= flip;
                overwrite(&path, &bad);
                assert!(verify(&place.folder()).is_err(), "byte {at} of {} by {flip:#x}", path.display());
            }
        }
        for length in 0..sound.len() {
            overwrite(&path, &sound[..length]);
            assert!(verify(&place.folder()).is_err(), "{} cut at {length}", path.display());
        }
        overwrite(&path, &sound);
    }
    assert_eq!(verify(&place.folder()).unwrap(), 2);
}

#[test]
fn edits_deletions_insertions_and_moves_name_their_line() {
    let place = Place::with(&["A", "B", "C", "D"]);
    let lines = place.lines();
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| &*lines[n]);
    assert!(place.forged(&[a, &b.replace("\"B\"", "\"X\""), c, d]).contains("line 2: its hash does not fit"));
    assert!(place.forged(&[a, c, d]).contains("line 2: it does not follow"));
    assert!(place.forged(&[b, c, d]).contains("line 1: it does not follow"));
    assert!(place.forged(&[a, c, b, d]).contains("line 2: it does not follow"));
    assert!(place.forged(&[a, b, b, c, d]).contains("line 3: it does not follow"));
    assert!(place.forged(&[a, b, "{}", c, d]).contains("line 3: it is not a record"));
    assert!(place.forged(&[a, b, c]).contains("gone from its end"));
    assert!(place.forged(&[]).contains("gone from its end"));
    // And nobody writes to it any more.
    assert!(Log::open(&place.folder()).is_err());
    fs::remove_file(place.log()).unwrap();
    assert!(verify(&place.folder()).unwrap_err().to_string().contains("its file is gone"));
    fs::remove_file(place.root.path().join("audit.key")).unwrap();
    assert!(verify(&place.folder()).unwrap_err().to_string().contains("its file is gone"));
}

#[test]
fn without_its_anchor_or_key_a_log_is_not_believed() {
    for lost in ["audit.head", "audit.key"] {
        let place = Place::with(&["A"]);
        fs::remove_file(place.root.path().join(lost)).unwrap();
        assert!(verify(&place.folder()).is_err(), "{lost}");
        assert!(Log::open(&place.folder()).is_err(), "{lost}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with(&["A"]);
    fs::set_permissions(place.root.path().join("audit.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Log::open(&place.folder()).err().unwrap().to_string().contains("chmod 600"));
}

#[test]
fn several_writers_keep_one_chain() {
    let place = Place::new();
    std::thread::scope(|scope| {
        // Logs of their own, as two processes have, and two threads on each.
        for log in [place.open(), place.open(), place.open()] {
            for _ in 0..2 {
                let log = log.clone();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let mut pending = log.begin(opening("GET"));
                        pending.intent().unwrap();
                        pending.finish(ok()).unwrap();
                    }
                });
            }
        }
    });
    assert_eq!(verify(&place.folder()).unwrap(), 600);
    let records = place.records();
    assert_eq!(records.len(), 300);
    assert!(records.iter().all(|record| record.status == Status::Ok));
    assert!(records.is_sorted_by(|a, b| a.id < b.id));
}

/// Not a test: what the next one starts as processes of their own, and kills.
#[test]
fn writer_that_never_ends() {
    let Some(folder) = std::env::var_os("AUDIT_TEST_FOLDER") else { return };
    let log = Log::open(&PathBuf::from(folder)).unwrap();
    loop {
        let mut pending = log.begin(opening("GET"));
        pending.intent().unwrap();
        println!("intent {}", pending.id());
        drop(pending);
    }
}

#[test]
fn killed_processes_leave_a_sound_log_with_every_intent_that_they_were_promised() {
    let place = Place::new();
    let started = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "audit::tests::writer_that_never_ends", "--nocapture"]);
        command.env("AUDIT_TEST_FOLDER", place.folder()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let promised = |mut child: Child| {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut ids: Vec<_> = lines.by_ref().filter(|line| line.contains("intent ")).take(100).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it wrote until the kill counts too, but for a line of output that the kill tore.
        ids.extend(lines.filter(|line| line.starts_with("intent ") && line.len() == "intent ".len() + 30));
        ids
    };
    let children = [started(), started()];
    let ids: Vec<_> = children.into_iter().flat_map(promised).collect();
    // Whoever opens it next cuts off a line that the kill may have torn.
    place.open();
    verify(&place.folder()).unwrap();
    let records = place.records();
    for line in ids {
        let id = line.rsplit(' ').next().unwrap();
        let record = records.iter().find(|record| record.id == id).unwrap();
        assert_eq!(record.status, Status::Aborted);
    }
}

#[test]
fn a_line_torn_by_a_crash_is_cut_off_and_the_chain_goes_on() {
    let place = Place::with(&["A"]);
    let mut torn = fs::read(place.log()).unwrap();
    torn.extend_from_slice(b"{\"id\":\"half a li");
    fs::write(place.log(), torn).unwrap();
    assert!(verify(&place.folder()).unwrap_err().to_string().contains("line 2: it is unfinished"));
    place.open().begin(opening("B")).finish(ok()).unwrap();
    assert_eq!(verify(&place.folder()).unwrap(), 2);
}

#[test]
fn a_log_that_shrinks_or_moves_while_in_use_is_not_written_to() {
    let place = Place::new();
    let log = place.open();
    log.begin(opening("A")).finish(ok()).unwrap();
    fs::write(place.log(), "").unwrap();
    assert!(log.begin(opening("B")).intent().is_err());

    let place = Place::new();
    let log = place.open();
    fs::rename(place.log(), place.folder().join("elsewhere")).unwrap();
    log.begin(opening("A")).finish(ok()).unwrap();
    assert!(log.anchor_for_tests().is_err());
    assert!(log.begin(opening("B")).intent().is_err());
}

#[test]
fn a_disk_that_fails_fails_the_intent() {
    let place = Place::new();
    let log = place.open();
    fs::remove_dir_all(place.root.path()).unwrap();
    assert!(log.anchor_for_tests().is_err());
    assert!(log.begin(opening("A")).intent().is_err());
}

#[test]
fn a_follower_is_shown_what_is_completed() {
    let place = Place::with(&["OLD"]);
    let mut follower = Follower::at_end(&place.folder()).unwrap();
    assert!(follower.outcomes().unwrap().is_empty());
    let log = place.open();
    let mut pending = log.begin(opening("NEW"));
    pending.intent().unwrap();
    assert!(follower.outcomes().unwrap().is_empty());
    pending.finish(ok()).unwrap();
    assert_eq!(follower.outcomes().unwrap()[0].method, "NEW");
}

#[test]
fn a_follower_goes_on_from_a_place_that_was_kept_and_knows_a_log_that_is_another() {
    let place = Place::with(&["ONE", "TWO"]);
    let methods = |follower: &mut Follower| -> Vec<String> {
        follower.outcomes().unwrap().into_iter().map(|record| record.method).collect()
    };
    let mut follower = Follower::at_start(&place.folder());
    assert_eq!(methods(&mut follower), ["ONE", "TWO"]);
    let kept = follower.bookmark().clone();
    place.open().begin(opening("THREE")).finish(ok()).unwrap();
    let mut again = Follower::resume(&place.folder(), kept.clone()).unwrap().unwrap();
    assert_eq!(methods(&mut again), ["THREE"]);
    // Another log has another line there, or none.
    let other = Place::with(&["ONE", "TWO"]);
    assert!(Follower::resume(&other.folder(), kept.clone()).unwrap().is_none());
    assert!(Follower::resume(&Place::new().folder(), kept).unwrap().is_none());
    // From its end it is a place of the log too, before anything new.
    assert_eq!(Follower::at_end(&place.folder()).unwrap().bookmark(), again.bookmark());
}

#[test]
fn a_follower_meets_a_line_that_was_cut_and_a_log_that_took_the_place_of_another() {
    let place = Place::with(&["ONE"]);
    let log = place.folder().join("audit.jsonl");
    let mut follower = Follower::at_start(&place.folder());
    assert_eq!(follower.outcomes().unwrap().len(), 1);
    // A crash left half of a line, and the next writer cuts it off.
    let length = fs::metadata(&log).unwrap().len();
    let mut torn = fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut torn, b"{\"id\":\"half").unwrap();
    assert!(follower.outcomes().unwrap().is_empty());
    torn.set_len(length).unwrap();
    place.open().begin(opening("TWO")).finish(ok()).unwrap();
    assert_eq!(follower.outcomes().unwrap()[0].method, "TWO");
    // A person moves it aside, and a new one begins.
    fs::rename(&log, log.with_extension("old")).unwrap();
    fs::copy(Place::with(&["A", "B", "C"]).folder().join("audit.jsonl"), &log).unwrap();
    assert_eq!(follower.outcomes().unwrap().len(), 3);
}

#[test]
fn a_persons_act_is_kept_apart_from_requests() {
    let place = Place::new();
    let act = AdminAct {
        environment: &Environment::default(),
        act: "reveal",
        agent: None,
        secrets: &["KEY".parse().unwrap()],
        process: None,
        status: Status::Ok,
        reason: None,
        notes: Vec::new(),
    };
    place.open().administrative(act).unwrap();
    let records = place.records();
    assert!(records[0].is_administrative());
    assert_eq!(records[0].secret_keys, ["KEY"]);
}

#[test]
#[ignore = "a measurement: what a request pays for its intent and its outcome"]
fn cost_of_a_record() {
    let place = Place::new();
    let log = place.open();
    let started = std::time::Instant::now();
    for _ in 0..20_000 {
        let mut pending = log.begin(opening("GET"));
        pending.intent().unwrap();
        pending.finish(ok()).unwrap();
    }
    println!("{:?} a request", started.elapsed() / 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_makes_a_sound_line(method in any::<String>(), url in any::<String>(), reason in any::<String>()) {
        let place = Place::new();
        let mut hostile = opening(&method);
        hostile.target_url = url;
        let outcome = Outcome { status: Status::Error, status_code: None, reason: Some(reason), redacted: true };
        place.open().begin(hostile).finish(outcome).unwrap();
        prop_assert_eq!(verify(&place.folder()).unwrap(), 1);
        prop_assert_eq!(place.records().len(), 1);
        let text = fs::read_to_string(place.log()).unwrap();
        prop_assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()));
    }
}
