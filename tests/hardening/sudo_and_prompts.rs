//! The operator at a terminal, and the user behind sudo.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, run, run_with_input};
use crate::support::terminal::Terminal;
use crate::support::value_search;

const PASSPHRASE: &str = "correct horse battery staple";

/// Runs the program at a new terminal.
fn start_terminal(home: &Path, words: &[&str]) -> Terminal {
    let mut started = command(AGENTSECRETS);
    started.args(words).env("AGENTSECRETS_HOME", home);
    Terminal::start(&started)
}

/// A home with a passphrase-protected vault.
fn home_with_passphrase() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut set = start_terminal(home.path(), &["secrets", "set", "API_KEY"]);
    set.read_until("Value of API_KEY");
    set.type_line(crate::end_to_end::SECRET);
    for prompt in ["Passphrase for a new vault: ", "The same passphrase again: "] {
        set.read_until(prompt);
        set.type_line(PASSPHRASE);
    }
    assert_eq!(set.code(), Some(0));
    let policy =
        "version: 1\nagents:\n  - name: a\n    allow:\n      - { host: api.test, secrets: [API_KEY] }\n";
    fs::write(home.path().join("policy.yaml"), policy).unwrap();
    home
}

#[test]
fn vault_passphrase_never_reaches_agent() {
    let home = home_with_passphrase();
    // Input left in the terminal would be the agent's first line.
    let script = "echo agent: $API_KEY; read line; echo heard: $line; read line; exit 7";
    let mut agent_run = start_terminal(home.path(), &["run", "--", "bash", "-c", script]);
    agent_run.read_until("Passphrase of the vault: ");
    agent_run.type_line(PASSPHRASE);
    agent_run.read_until("agent: AS_SECRET_API_KEY");
    agent_run.type_line("hello");
    agent_run.read_until("heard: hello");
    let tree = value_search::process_tree(agent_run.child.id());
    let exe = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let agents: Vec<u32> = tree.into_iter().filter(|pid| exe(pid).ends_with("bash")).collect();
    assert_eq!(agents.len(), 1);
    let mut needles = value_search::encodings(PASSPHRASE);
    needles.extend(value_search::encodings(crate::end_to_end::SECRET));
    assert_eq!(value_search::in_processes(&agents, &needles), Vec::<String>::new());
    assert!(!agent_run.output.contains(PASSPHRASE), "it is not shown");
    agent_run.type_line("");
    assert_eq!(agent_run.code(), Some(7));
}

#[test]
fn wrong_passphrase_starts_nothing() {
    let home = home_with_passphrase();
    let mut agent = start_terminal(home.path(), &["run", "--", "echo", "started"]);
    agent.read_until("Passphrase of the vault: ");
    agent.type_line("wrong horse");
    agent.read_until("does not open the vault");
    assert!(!agent.output.contains("started"));
    assert_eq!(agent.code(), Some(5));
}

#[test]
fn no_prompt_without_terminal() {
    let home = home_with_passphrase();
    let mut agent = command(AGENTSECRETS);
    let outcome = run(agent.args(["run", "--", "echo", "started"]).env("AGENTSECRETS_HOME", home.path()));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(5), ""), "{outcome:?}");
}

/// A user with an account, a home folder, a secret and a policy.
struct SudoUser {
    folder: tempfile::TempDir,
}

impl SudoUser {
    const ID: u32 = 54_323;

    fn new(policy: &str) -> Self {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let person = Self { folder };
        fs::create_dir(person.home()).unwrap();
        let known = fs::read_to_string("/etc/passwd").unwrap();
        let account = format!("keeper:x:{0}:{0}::{1}:/bin/sh\n", Self::ID, person.home().display());
        fs::write(person.folder.path().join("passwd"), known + &account).unwrap();
        person.file("key", "the key file of a person, of thirty-two bytes\n");
        fs::set_permissions(person.home().join("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        for file in [".bashrc", ".ssh/config", ".gitconfig"] {
            person.file(file, "mine\n");
        }
        person.file(".config/agentsecrets/policy.yaml", policy);
        let id = Self::ID.to_string();
        let mut set = command("setpriv");
        set.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(person.program());
        set.args(["secrets", "set", "API_KEY"]).env("HOME", person.home());
        set.env("AGENTSECRETS_VAULT_KEY_FILE", person.home().join("key")).current_dir("/tmp");
        run_with_input(&mut set, crate::end_to_end::SECRET.as_bytes()).ok();
        person
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("keeper")
    }

    /// A copy that the user may execute: the build folder may be closed to them.
    fn program(&self) -> std::path::PathBuf {
        let copy = self.folder.path().join("agentsecrets");
        if !copy.exists() {
            // Copied by another process: a concurrent fork would keep the file busy and prevent its
            // execution.
            run(command("cp").arg(AGENTSECRETS).arg(&copy)).ok();
        }
        copy
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for part in path.ancestors().take_while(|part| part.starts_with(self.home())) {
            chown(part, Some(Self::ID), Some(Self::ID)).unwrap();
        }
    }

    /// `sudo agentsecrets …`, with `api.test` on loopback.
    fn sudo(&self, words: &[&str], roots: &str) -> Command {
        let (hosts, ca) = (self.folder.path().join("hosts"), self.folder.path().join("ca.pem"));
        fs::write(&hosts, "127.0.0.1 localhost api.test\n").unwrap();
        fs::write(&ca, roots).unwrap();
        let script =
            r#"mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/passwd && shift 2 && exec "$@""#;
        let mut started = command("unshare");
        started.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        started.arg(hosts).arg(self.folder.path().join("passwd")).arg(self.program()).args(words);
        let id = Self::ID.to_string();
        started.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "keeper").env("HOME", "/root");
        started.env("AGENTSECRETS_VAULT_KEY_FILE", self.home().join("key"));
        started.env("AGENTSECRETS_UPSTREAM_CA", ca).current_dir(self.home());
        started
    }
}

/// Everything below `folder` with its owner.
fn owners(folder: &Path) -> Vec<(std::path::PathBuf, u32)> {
    let mut found = vec![(folder.to_path_buf(), fs::symlink_metadata(folder).unwrap().uid())];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.extend(match entry.file_type() {
            Ok(kind) if kind.is_dir() => owners(&entry.path()),
            _ => vec![(entry.path(), entry.metadata().unwrap().uid())],
        });
    }
    found
}

#[test]
fn sudo_run_uses_caller_uid_and_ownership() {
    let fixture = Fixture::new();
    let policy = format!(
        "version: 1\nagents:\n  - name: a\n    allow:\n      - {{ host: api.test, ports: [{}], private: true, secrets: [API_KEY] }}\n",
        fixture.api.port()
    );
    let person = SudoUser::new(&policy);
    let script = format!(
        "exec 2>/dev/null; id -u; id -G; echo $HOME; pwd
        cat .config/agentsecrets/policy.yaml .local/share/agentsecrets/vault key | wc -c
        for f in .bashrc .ssh/config .gitconfig; do echo evil >> $f && echo written $f; done
        cat .bashrc; echo own > made && echo made
        curl -sS -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $API_KEY\" {}
        echo ready; read line; true",
        fixture.url("/echo")
    );
    let mut agent = person.sudo(&["run", "--", "bash", "-c", &script], &fixture.authority.pem());
    let mut child = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let output: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
    let (id, home) = (SudoUser::ID.to_string(), person.home().display().to_string());
    assert_eq!(output, [&id, &id, &home, &home, "0", "mine", "made", "200"]);
    assert_eq!(
        fixture.api.only_request().header("authorization"),
        format!("Bearer {}", crate::end_to_end::SECRET)
    );
    let ours: Vec<u32> = value_search::process_tree(child.id())
        .into_iter()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(11).any(|word| word == b"interceptor"))
        })
        .collect();
    assert_eq!(ours.len(), 2, "the interceptor and its process inspector");
    for pid in ours {
        assert_eq!(proc_status(pid, "Uid"), [&*id; 4].join("\t"));
        assert_eq!(proc_status(pid, "Groups"), "");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let strangers: Vec<_> =
        owners(&person.home()).into_iter().filter(|(_, owner)| *owner != SudoUser::ID).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(person.home().join(".local/state/agentsecrets/audit").is_dir());
}

#[test]
fn sudo_writes_keep_file_owner() {
    let person = SudoUser::new("version: 1\n");
    let mut set = person.sudo(&["secrets", "set", "OTHER"], "");
    set.env("AGENTSECRETS_HOME", person.home().join("ours"));
    person.file("ours/config.yaml", "");
    run_with_input(&mut set, b"another value of some length").ok();
    assert!(person.home().join("ours/vault").exists());
    let strangers: Vec<_> =
        owners(&person.home()).into_iter().filter(|(_, owner)| *owner != SudoUser::ID).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}
