//! What people do at the door: root, the person present, and the person's neighbour.

use super::*;

#[test]
fn with_the_passphrase_a_person_stores_reads_and_deletes() {
    let machine = Machine::new();
    machine.presence(ALICE);
    let mut set = Terminal::start(&machine.alice(&["secrets", "set", "API_KEY"]));
    set.until("secrets set API_KEY");
    set.until("Your passphrase for it: ");
    set.enter(PASSPHRASE);
    set.until("Value of API_KEY (not shown): ");
    set.enter(SECRET);
    set.until("stored API_KEY");
    assert!(!set.shown.contains(SECRET));
    assert_eq!(set.code(), Some(0));
    let (code, shown) = machine.present(&machine.alice(&["secrets", "get", "API_KEY", "--reveal"]));
    assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    let (code, _) = machine.present(&machine.alice(&["secrets", "delete", "API_KEY"]));
    assert_eq!(code, Some(0));
}

#[test]
fn a_value_comes_through_a_pipe_or_a_file_of_the_persons_own_while_the_passphrase_is_typed() {
    let machine = Machine::new();
    machine.presence(ALICE);
    for script in [
        "printf piped-value-1234 | /opt/agentsecrets secrets set A",
        "umask 077; printf 'filed-value-1234' > ~/v; /opt/agentsecrets secrets set A --from-file ~/v",
        "umask 077; cd ~; printf 'filed-value-1234' > v; /opt/agentsecrets secrets set A --from-file=v",
        "umask 077; printf 'A=other-value-1234\n' > ~/e; /opt/agentsecrets secrets import ~/e",
    ] {
        let (code, shown) = machine.present(&machine.user(ALICE, &["sh", "-c", script]));
        assert_eq!(code, Some(0), "{script}: {shown}");
        assert!(shown.contains("in default/development"), "{script}: {shown}");
    }
}

#[test]
fn the_wrong_passphrase_gets_nothing_and_waiting_is_asked_for_after_a_few() {
    let machine = Machine::new();
    machine.presence(ALICE);
    machine.store(ALICE, "API_KEY", SECRET);
    let guess = || {
        let mut get = Terminal::start(&machine.alice(&["secrets", "get", "API_KEY", "--reveal"]));
        for _ in 0..3 {
            get.until("our passphrase");
            get.until(": ");
            get.enter("not it at all");
        }
        get.end()
    };
    let (code, shown) = guess();
    assert!(code == Some(4) && shown.contains("not the passphrase"), "{shown}");
    let (code, shown) = guess_once(&machine);
    assert!(code == Some(4), "{shown}");
    let blocked = machine.acts(ALICE).iter().filter(|act| act["status"] == "BLOCKED").count();
    assert_eq!(blocked, 2);
}

fn guess_once(machine: &Machine) -> (Option<i32>, String) {
    let mut list = Terminal::start(&machine.alice(&["secrets", "list"]));
    list.until("our passphrase");
    list.until(": ");
    list.enter("not it at all");
    list.until("wait");
    list.end()
}

#[test]
fn what_breaks_off_the_question_leaves_the_terminal_as_it_was() {
    let machine = Machine::new();
    machine.presence(ALICE);
    let script = "stty -a > /tmp/before-$$; /opt/agentsecrets secrets list; echo code $?; \
                  stty -a > /tmp/after-$$; cmp /tmp/before-$$ /tmp/after-$$ && echo same; rm /tmp/*-$$";
    let mut list = Terminal::start(&machine.user(ALICE, &["bash", "-ic", script]));
    list.until("Your passphrase for it: ");
    list.type_in(b"\x03");
    list.until("code 130");
    list.until("same");
    list.end();
}

#[test]
fn without_a_terminal_or_a_passphrase_the_person_is_not_there() {
    let machine = Machine::new();
    let (code, shown) = Terminal::start(&machine.alice(&["secrets", "list"])).end();
    assert!(code == Some(4) && shown.contains("sudo agentsecrets presence set"), "{shown}");
    machine.presence(ALICE);
    assert_refused(&finish(&mut machine.alice(&["secrets", "list"])));
}

#[test]
fn only_root_sets_the_first_passphrase_and_a_new_one_takes_the_old() {
    let machine = Machine::new();
    let (code, _) = Terminal::start(&machine.alice(&["presence", "set"])).end();
    assert_eq!(code, Some(4));
    machine.presence(ALICE);
    let mut set = Terminal::start(&machine.alice(&["presence", "set"]));
    set.until("Your passphrase for it: ");
    set.enter(PASSPHRASE);
    for prompt in ["New passphrase", "again: "] {
        set.until(prompt);
        set.enter("another passphrase");
    }
    assert_eq!(set.code(), Some(0));
    let mut list = Terminal::start(&machine.alice(&["secrets", "list"]));
    list.until("Your passphrase for it: ");
    list.enter(PASSPHRASE);
    list.until("That is not it");
    list.enter("another passphrase");
    list.until("no vault");
    assert_eq!(list.code(), Some(5));
}

#[test]
fn what_shows_no_value_and_gives_no_right_needs_nobody() {
    let machine = Machine::new();
    machine.policy(ALICE, "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n");
    let status = finish(&mut machine.alice(&["status", "--json"])).json();
    assert!(status["person_door"].as_str().unwrap().starts_with("closed"), "{status}");
    assert!(status["policy"]["agents"][0]["name"] == "coder");
    assert!(
        finish(&mut machine.alice(&["doctor", "--json"])).stdout.contains("sudo agentsecrets presence set")
    );
    finish(&mut machine.alice(&["policy", "check"])).ok();
    finish(&mut machine.alice(&["policy", "show"])).ok();
    finish(&mut machine.alice(&["policy", "explain", "GET", "https://api.test/"])).ok();
    finish(&mut machine.alice(&["completions", "bash"])).ok();
    let outcome = finish(&mut machine.alice(&["policy", "explain", "GET", "https://other.test/"]));
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
}

#[test]
fn one_person_does_not_reach_another_ones_secrets_policy_or_audit() {
    let machine = Machine::new();
    machine.store(ALICE, "API_KEY", SECRET);
    machine.policy(ALICE, "version: 1\nagents:\n  - name: hers\n    allow: []\n");
    // She does something herself, so that there is a record of hers to be seen.
    machine.presence(ALICE);
    let (code, shown) = machine.present(&machine.alice(&["secrets", "list"]));
    assert!(code == Some(0) && shown.contains("API_KEY"), "{shown}");
    assert!(machine.acts(ALICE).iter().any(|act| act["process"]["uid"] == ALICE));
    machine.presence(BOB);
    let bob = |words: &[&str]| machine.present(&machine.user(BOB, &[&[PROGRAM], words].concat()));
    for words in [
        &["secrets", "get", "API_KEY", "--reveal"][..],
        &["secrets", "list"],
        &["call", "--url", "https://api.test", "--bearer", "API_KEY"],
        &["env", "--", "env"],
    ] {
        let (code, shown) = bob(words);
        assert!(code != Some(0) && !shown.contains(SECRET), "{words:?}: {shown}");
    }
    let (code, shown) = bob(&["audit", "list", "--admin", "--json"]);
    let has = |uid: u32| shown.contains(&format!("\"uid\":{uid}"));
    assert!(code == Some(0) && has(BOB) && !has(ALICE), "{shown}");
    // Nor by naming her files: to his verbs they are not there.
    for file in ["key", "vault", "policy.yaml", "audit/audit.jsonl"] {
        let file = format!("/var/lib/agentsecrets/{ALICE}/{file}");
        finish(&mut machine.root(&["test", "-s", &file])).ok();
        let direct = finish(&mut machine.user(BOB, &["cat", &file]));
        assert_ne!(direct.code, Some(0), "{direct:?}");
        // The client is not asked to open it, as one that speaks the protocol itself would not be.
        let (code, shown) = machine.present(&machine.user(
            BOB,
            &["python3", "-c", &super::tricks::speak(&["secrets", "set", "X", "--from-file", &file])],
        ));
        assert!(code != Some(0) && shown.contains("cannot be read"), "{file}: {shown}");
    }
    let status = finish(&mut machine.user(BOB, &[PROGRAM, "status"])).ok();
    assert!(!status.contains("hers"), "{status}");
}

#[test]
fn root_needs_nobody_and_acts_for_whom_it_names() {
    let machine = Machine::new();
    machine.store(ALICE, "API_KEY", SECRET);
    let list = finish(&mut machine.for_user(ALICE, &["secrets", "list"])).ok();
    assert!(list.contains("API_KEY"), "{list}");
    let own = finish(&mut machine.root(&[PROGRAM, "secrets", "list"]));
    assert_eq!(own.code, Some(5), "root's own home is another one: {own:?}");
    // Nobody else acts for somebody.
    machine.presence(BOB);
    let mut bob = machine.user(BOB, &[PROGRAM, "secrets", "list"]);
    let (_, shown) = machine.present(bob.env("SUDO_UID", ALICE.to_string()));
    assert!(!shown.contains("API_KEY"), "{shown}");
}

#[test]
fn every_act_is_recorded_with_who_asked_and_no_value() {
    let machine = Machine::new();
    machine.presence(ALICE);
    let script = format!("{PROGRAM} secrets set API_KEY={SECRET}");
    let (code, shown) = machine.present(&machine.user(ALICE, &["sh", "-c", &script]));
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    finish(&mut machine.alice(&["secrets", "delete", "API_KEY"]));
    let acts = machine.acts(ALICE);
    let of = |words: &str| acts.iter().find(|act| act["method"] == words).unwrap();
    let (set, delete) = (of("secrets set"), of("secrets delete"));
    assert_eq!((&set["status"], &delete["status"]), (&"OK".into(), &"BLOCKED".into()));
    for act in [set, delete] {
        assert_eq!(act["secret_keys"], serde_json::json!(["API_KEY"]));
        assert_eq!(act["process"]["uid"], ALICE);
        assert_eq!(act["process"]["exe"], PROGRAM);
        assert_eq!(act["process"]["sha256"].as_str().unwrap().len(), 64);
    }
    assert!(!serde_json::to_string(&acts).unwrap().contains(SECRET));
    finish(&mut machine.for_user(ALICE, &["audit", "verify"])).ok();
}

#[test]
fn a_trusted_service_has_what_its_pin_names_and_does_nothing_else() {
    let machine = Machine::new();
    machine.store(ALICE, "API_KEY", SECRET);
    machine.store(ALICE, "OTHER", "another-value-1234");
    // A program of the service's own, which starts ours and waits.
    let source = "#include <unistd.h>\n#include <sys/wait.h>\nint main(int n, char **w) {\n\
        int s; if (fork() == 0) { execv(w[1], w + 1); _exit(99); } wait(&s); return WEXITSTATUS(s); }\n";
    std::fs::write(machine.inside("opt/deploy.c"), source).unwrap();
    finish(&mut machine.root(&["gcc", "-o", "/opt/deploy", "/opt/deploy.c"])).ok();
    let service = Cgroup::new(&format!("door-{}.service", std::process::id()));
    let asked = |words: &[&str]| machine.user(ALICE, &[&["/opt/deploy", PROGRAM], words].concat());
    let deploy = |words: &[&str]| finish(&mut service.holding(&asked(words)));
    let trust = |more: &[&str]| {
        let line = [&["trust", "add", "/opt/deploy", "--secrets", "API_KEY"], more].concat();
        finish(&mut machine.for_user(ALICE, &line)).ok();
    };
    let spend = ["env", "--only", "API_KEY", "--", "/bin/sh", "-c", "echo =$API_KEY"];
    assert_refused(&deploy(&spend));
    // Any program of hers could become one that is trusted wherever it runs.
    trust(&[]);
    assert_refused(&deploy(&spend));
    trust(&["--cgroup", &service.path()]);
    let spent = deploy(&spend);
    assert_eq!((spent.code, spent.stdout), (Some(0), format!("={SECRET}\n")));
    assert!(deploy(&["secrets", "get", "API_KEY"]).ok().contains("AS_SECRET_API_KEY"));
    // A request may hold a placeholder for any secret: it takes the person.
    let called = deploy(&["call", "--url", "https://api.test/", "--bearer", "API_KEY"]);
    assert_refused(&called);
    assert!(called.stderr.contains("needs your presence"), "{called:?}");
    // The exec provider is told afterwards what is asked for, and gives what the pin names.
    let asks = br#"{"protocolVersion":1,"provider":"x","ids":["API_KEY","OTHER"]}"#;
    let given = finish_with(&mut service.holding(&asked(&["exec"])), asks).json();
    assert_eq!(given["values"], serde_json::json!({ "API_KEY": SECRET }), "{given}");
    assert!(given["errors"]["OTHER"]["message"].is_string(), "{given}");
    // A pin without the cgroup holds for it too, by what its arguments say; where nobody is asked that is too little.
    let script = machine.inside("opt/ask.sh");
    std::fs::write(&script, format!("#!/bin/sh\nexec {PROGRAM} exec\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let loose = ["trust", "add", "/opt/deploy", "--secrets", "OTHER", "--script", "/opt/ask.sh"];
    finish(&mut machine.for_user(ALICE, &loose)).ok();
    let scripted = machine.user(ALICE, &["/opt/deploy", "/opt/ask.sh"]);
    let given = finish_with(&mut service.holding(&scripted), asks).json();
    assert_eq!(given["values"], serde_json::json!({ "API_KEY": SECRET }), "{given}");
    let why = given["errors"]["OTHER"]["message"].as_str().unwrap();
    assert!(why.contains("as a service alone"), "{why}");
    assert_refused(&finish_with(&mut asked(&["exec"]), asks));
    // From elsewhere, for another secret, for another act, or as another program: no.
    assert_refused(&finish(&mut asked(&spend)));
    for words in [
        &["env", "--only", "OTHER", "--", "env"][..],
        &["env", "--", "env"],
        &["trust", "list"],
        &["policy", "set", "/etc/hostname"],
    ] {
        assert_refused(&deploy(words));
    }
    let copied = "cp /opt/deploy ~/deploy; exec ~/deploy /opt/agentsecrets env --only API_KEY -- env";
    assert_refused(&finish(&mut service.holding(&machine.user(ALICE, &["sh", "-c", copied]))));
}

#[test]
fn a_program_is_trusted_where_it_lies_and_what_lies_in_a_closed_home_is_told_to_move() {
    let machine = Machine::new();
    machine.presence(ALICE);
    finish(&mut machine.root(&["cp", "/usr/bin/sort", "/opt/deploy"])).ok();
    let add = |folder: &str, program: &str| {
        let script = format!("cd {folder} && {PROGRAM} trust add {program} --secrets API_KEY");
        machine.present(&machine.user(ALICE, &["sh", "-c", &script]))
    };
    // By a path of the caller's folder, and by a name that the caller's shell would find.
    let (code, shown) = add("/opt", "./deploy");
    assert!(code == Some(0) && shown.contains("trusted /opt/deploy as"), "{shown}");
    let (code, shown) = add("/opt", "sort");
    assert!(code == Some(0) && shown.contains("trusted /usr/bin/sort as"), "{shown}");
    finish(&mut machine.user(ALICE, &["cp", "/usr/bin/sort", "/home/alice/tool"])).ok();
    let (code, shown) = add("/home/alice", "./tool");
    assert!(code == Some(1) && shown.contains("/home/alice/tool cannot be read"), "{shown}");
    assert!(shown.contains("outside of a closed home"), "{shown}");
}

/// A cgroup of root's, as a service has one.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let folder = agentsecrets::intercept::ebpf::cgroup2_mount().unwrap().join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Its path in the hierarchy.
    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    /// `wanted`, started inside.
    fn holding(&self, wanted: &Command) -> Command {
        let mut inside = command("sh");
        inside.args(["-c", &format!("echo 0 > {}/cgroup.procs && exec \"$@\"", self.0.display()), "sh"]);
        inside.arg(wanted.get_program()).args(wanted.get_args());
        for (name, value) in wanted.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        inside
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
