//! Operators at the admin socket: root, the present operator, and other users.

use super::*;

#[test]
fn passphrase_allows_set_reveal_and_delete() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    let mut set = Terminal::start(&machine.alice_command(&["secrets", "set", "API_KEY"]));
    set.read_until("secrets set API_KEY");
    set.read_until("Your passphrase for it: ");
    set.type_line(PASSPHRASE);
    set.read_until("Value of API_KEY (not shown): ");
    set.type_line(SECRET);
    set.read_until("stored API_KEY");
    assert!(!set.output.contains(SECRET));
    assert_eq!(set.code(), Some(0));
    let (code, shown) =
        machine.run_with_passphrase(&machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]));
    assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    let (code, _) = machine.run_with_passphrase(&machine.alice_command(&["secrets", "delete", "API_KEY"]));
    assert_eq!(code, Some(0));
}

#[test]
fn value_is_read_from_pipe_or_file_with_passphrase() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    for script in [
        "printf piped-value-1234 | /opt/agentsecrets secrets set A",
        "umask 077; printf 'filed-value-1234' > ~/v; /opt/agentsecrets secrets set A --from-file ~/v",
        "umask 077; cd ~; printf 'filed-value-1234' > v; /opt/agentsecrets secrets set A --from-file=v",
        "umask 077; printf 'A=other-value-1234\n' > ~/e; /opt/agentsecrets secrets import ~/e",
    ] {
        let (code, shown) = machine.run_with_passphrase(&machine.user_command(ALICE, &["sh", "-c", script]));
        assert_eq!(code, Some(0), "{script}: {shown}");
        assert!(shown.contains("in default/development"), "{script}: {shown}");
    }
}

#[test]
fn wrong_passphrase_is_refused_and_throttled() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    machine.store_secret(ALICE, "API_KEY", SECRET);
    let guess = || {
        let mut get = Terminal::start(&machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]));
        for _ in 0..3 {
            get.read_until("our passphrase");
            get.read_until(": ");
            get.type_line("not it at all");
        }
        get.wait()
    };
    let (code, shown) = guess();
    assert!(code == Some(4) && shown.contains("not the passphrase"), "{shown}");
    let (code, shown) = guess_once(&machine);
    assert!(code == Some(4), "{shown}");
    let blocked = machine.admin_records(ALICE).iter().filter(|act| act["status"] == "BLOCKED").count();
    assert_eq!(blocked, 2);
}

fn guess_once(machine: &Machine) -> (Option<i32>, String) {
    let mut list = Terminal::start(&machine.alice_command(&["secrets", "list"]));
    list.read_until("our passphrase");
    list.read_until(": ");
    list.type_line("not it at all");
    list.read_until("wait");
    list.wait()
}

#[test]
fn interrupted_prompt_restores_terminal() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    let script = "stty -a > /tmp/before-$$; /opt/agentsecrets secrets list; echo code $?; \
                  stty -a > /tmp/after-$$; cmp /tmp/before-$$ /tmp/after-$$ && echo same; rm /tmp/*-$$";
    let mut list = Terminal::start(&machine.user_command(ALICE, &["bash", "-ic", script]));
    list.read_until("Your passphrase for it: ");
    list.type_bytes(b"\x03");
    list.read_until("code 130");
    list.read_until("same");
    list.wait();
}

#[test]
fn confirmation_needs_terminal_and_passphrase() {
    let machine = Machine::new();
    let (code, shown) = Terminal::start(&machine.alice_command(&["secrets", "list"])).wait();
    assert!(code == Some(4) && shown.contains("sudo agentsecrets presence set"), "{shown}");
    machine.set_passphrase(ALICE);
    assert_refused(&run(&mut machine.alice_command(&["secrets", "list"])));
}

#[test]
fn first_passphrase_needs_root_and_change_needs_old() {
    let machine = Machine::new();
    let (code, _) = Terminal::start(&machine.alice_command(&["presence", "set"])).wait();
    assert_eq!(code, Some(4));
    machine.set_passphrase(ALICE);
    let mut set = Terminal::start(&machine.alice_command(&["presence", "set"]));
    set.read_until("Your passphrase for it: ");
    set.type_line(PASSPHRASE);
    for prompt in ["New passphrase", "again: "] {
        set.read_until(prompt);
        set.type_line("another passphrase");
    }
    assert_eq!(set.code(), Some(0));
    let mut list = Terminal::start(&machine.alice_command(&["secrets", "list"]));
    list.read_until("Your passphrase for it: ");
    list.type_line(PASSPHRASE);
    list.read_until("That is not it");
    list.type_line("another passphrase");
    list.read_until("no vault");
    assert_eq!(list.code(), Some(5));
}

#[test]
fn harmless_commands_need_no_confirmation() {
    let machine = Machine::new();
    machine.write_policy(ALICE, "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n");
    let status = run(&mut machine.alice_command(&["status", "--json"])).json();
    assert!(status["person_door"].as_str().unwrap().starts_with("closed"), "{status}");
    assert!(status["policy"]["agents"][0]["name"] == "coder");
    assert!(
        run(&mut machine.alice_command(&["doctor", "--json"]))
            .stdout
            .contains("sudo agentsecrets presence set")
    );
    run(&mut machine.alice_command(&["policy", "check"])).ok();
    run(&mut machine.alice_command(&["policy", "show"])).ok();
    run(&mut machine.alice_command(&["policy", "explain", "GET", "https://api.test/"])).ok();
    run(&mut machine.alice_command(&["completions", "bash"])).ok();
    let outcome = run(&mut machine.alice_command(&["policy", "explain", "GET", "https://other.test/"]));
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
}

#[test]
fn users_are_isolated_from_each_other() {
    let machine = Machine::new();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    machine.write_policy(ALICE, "version: 1\nagents:\n  - name: hers\n    allow: []\n");
    // She acts herself, so that there is a record of hers.
    machine.set_passphrase(ALICE);
    let (code, shown) = machine.run_with_passphrase(&machine.alice_command(&["secrets", "list"]));
    assert!(code == Some(0) && shown.contains("API_KEY"), "{shown}");
    assert!(machine.admin_records(ALICE).iter().any(|act| act["process"]["uid"] == ALICE));
    machine.set_passphrase(BOB);
    let bob = |words: &[&str]| {
        machine.run_with_passphrase(&machine.user_command(BOB, &[&[PROGRAM], words].concat()))
    };
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
    // Naming her files does not help: his commands cannot see them.
    for file in ["key", "vault", "policy.yaml", "audit/audit.jsonl"] {
        let file = format!("/var/lib/agentsecrets/{ALICE}/{file}");
        run(&mut machine.root_command(&["test", "-s", &file])).ok();
        let direct = run(&mut machine.user_command(BOB, &["cat", &file]));
        assert_ne!(direct.code, Some(0), "{direct:?}");
        // The client is not involved in opening it; a raw protocol client would not be either.
        let (code, shown) = machine.run_with_passphrase(&machine.user_command(
            BOB,
            &[
                "python3",
                "-c",
                &super::bypass::protocol_request(&["secrets", "set", "X", "--from-file", &file]),
            ],
        ));
        assert!(code != Some(0) && shown.contains("cannot be read"), "{file}: {shown}");
    }
    let status = run(&mut machine.user_command(BOB, &[PROGRAM, "status"])).ok();
    assert!(!status.contains("hers"), "{status}");
}

#[test]
fn root_acts_for_named_user_without_confirmation() {
    let machine = Machine::new();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    let list = run(&mut machine.root_command_for(ALICE, &["secrets", "list"])).ok();
    assert!(list.contains("API_KEY"), "{list}");
    let own = run(&mut machine.root_command(&[PROGRAM, "secrets", "list"]));
    assert_eq!(own.code, Some(5), "root's own home is another one: {own:?}");
    // Only root acts for another user.
    machine.set_passphrase(BOB);
    let mut bob = machine.user_command(BOB, &[PROGRAM, "secrets", "list"]);
    let (_, shown) = machine.run_with_passphrase(bob.env("SUDO_UID", ALICE.to_string()));
    assert!(!shown.contains("API_KEY"), "{shown}");
}

#[test]
fn admin_acts_are_recorded_without_values() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    let script = format!("{PROGRAM} secrets set API_KEY={SECRET}");
    let (code, shown) = machine.run_with_passphrase(&machine.user_command(ALICE, &["sh", "-c", &script]));
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    run(&mut machine.alice_command(&["secrets", "delete", "API_KEY"]));
    let acts = machine.admin_records(ALICE);
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
    run(&mut machine.root_command_for(ALICE, &["audit", "verify"])).ok();
}

#[test]
fn pinned_service_gets_its_secrets_only() {
    let machine = Machine::new();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    machine.store_secret(ALICE, "OTHER", "another-value-1234");
    // A program of the service, which starts ours and waits.
    let source = "#include <unistd.h>\n#include <sys/wait.h>\nint main(int n, char **w) {\n\
        int s; if (fork() == 0) { execv(w[1], w + 1); _exit(99); } wait(&s); return WEXITSTATUS(s); }\n";
    std::fs::write(machine.host_path("opt/deploy.c"), source).unwrap();
    run(&mut machine.root_command(&["gcc", "-o", "/opt/deploy", "/opt/deploy.c"])).ok();
    let service = Cgroup::new(&format!("door-{}.service", std::process::id()));
    let by_service =
        |words: &[&str]| machine.user_command(ALICE, &[&["/opt/deploy", PROGRAM], words].concat());
    let deploy = |words: &[&str]| run(&mut service.command_inside(&by_service(words)));
    let trust = |more: &[&str]| {
        let line = [&["trust", "add", "/opt/deploy", "--secrets", "API_KEY"], more].concat();
        run(&mut machine.root_command_for(ALICE, &line)).ok();
    };
    let spend = ["env", "--only", "API_KEY", "--", "/bin/sh", "-c", "echo =$API_KEY"];
    assert_refused(&deploy(&spend));
    // Any program of hers could execute one that is trusted everywhere.
    trust(&[]);
    assert_refused(&deploy(&spend));
    trust(&["--cgroup", &service.path()]);
    let spent = deploy(&spend);
    assert_eq!((spent.code, spent.stdout), (Some(0), format!("={SECRET}\n")));
    assert!(deploy(&["secrets", "get", "API_KEY"]).ok().contains("AS_SECRET_API_KEY"));
    // A request may hold a placeholder for any secret: it needs confirmation.
    let called = deploy(&["call", "--url", "https://api.test/", "--bearer", "API_KEY"]);
    assert_refused(&called);
    assert!(called.stderr.contains("needs your presence"), "{called:?}");
    // The exec provider learns the requested names later, and returns what the pin names.
    let asks = br#"{"protocolVersion":1,"provider":"x","ids":["API_KEY","OTHER"]}"#;
    let reply = run_with_input(&mut service.command_inside(&by_service(&["exec"])), asks).json();
    assert_eq!(reply["values"], serde_json::json!({ "API_KEY": SECRET }), "{reply}");
    assert!(reply["errors"]["OTHER"]["message"].is_string(), "{reply}");
    // A pin without the cgroup matches too, but its arguments are self-declared: without confirmation that is
    // not enough.
    let script = machine.host_path("opt/ask.sh");
    std::fs::write(&script, format!("#!/bin/sh\nexec {PROGRAM} exec\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let loose = ["trust", "add", "/opt/deploy", "--secrets", "OTHER", "--script", "/opt/ask.sh"];
    run(&mut machine.root_command_for(ALICE, &loose)).ok();
    let scripted = machine.user_command(ALICE, &["/opt/deploy", "/opt/ask.sh"]);
    let reply = run_with_input(&mut service.command_inside(&scripted), asks).json();
    assert_eq!(reply["values"], serde_json::json!({ "API_KEY": SECRET }), "{reply}");
    let why = reply["errors"]["OTHER"]["message"].as_str().unwrap();
    assert!(why.contains("only as a service"), "{why}");
    assert_refused(&run_with_input(&mut by_service(&["exec"]), asks));
    // From another cgroup, for another secret, another command or by another program it is refused.
    assert_refused(&run(&mut by_service(&spend)));
    for words in [
        &["env", "--only", "OTHER", "--", "env"][..],
        &["env", "--", "env"],
        &["trust", "list"],
        &["policy", "set", "/etc/hostname"],
    ] {
        assert_refused(&deploy(words));
    }
    let copied = "cp /opt/deploy ~/deploy; exec ~/deploy /opt/agentsecrets env --only API_KEY -- env";
    assert_refused(&run(&mut service.command_inside(&machine.user_command(ALICE, &["sh", "-c", copied]))));
}

#[test]
fn trust_add_resolves_path_and_rejects_closed_home() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    run(&mut machine.root_command(&["cp", "/usr/bin/sort", "/opt/deploy"])).ok();
    let add = |folder: &str, program: &str| {
        let script = format!("cd {folder} && {PROGRAM} trust add {program} --secrets API_KEY");
        machine.run_with_passphrase(&machine.user_command(ALICE, &["sh", "-c", &script]))
    };
    // By a path relative to the caller's folder, and by a name in the caller's PATH.
    let (code, shown) = add("/opt", "./deploy");
    assert!(code == Some(0) && shown.contains("trusted /opt/deploy as"), "{shown}");
    let (code, shown) = add("/opt", "sort");
    assert!(code == Some(0) && shown.contains("trusted /usr/bin/sort as"), "{shown}");
    run(&mut machine.user_command(ALICE, &["cp", "/usr/bin/sort", "/home/alice/tool"])).ok();
    let (code, shown) = add("/home/alice", "./tool");
    assert!(code == Some(1) && shown.contains("/home/alice/tool cannot be read"), "{shown}");
    assert!(shown.contains("outside of a private home"), "{shown}");
}

/// A cgroup of root's, as a service has one.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let folder = agentsecrets::intercept::ebpf::cgroup2_mount().unwrap().join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// The path in the cgroup hierarchy.
    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    /// `inner` as a command that starts inside the cgroup.
    fn command_inside(&self, inner: &Command) -> Command {
        let mut inside = command("sh");
        inside.args(["-c", &format!("echo 0 > {}/cgroup.procs && exec \"$@\"", self.0.display()), "sh"]);
        inside.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
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
