//! Confirmation by polkit: a real polkitd on the machine's own system bus, PAM, and polkit's terminal agent.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

/// Alice's login password, which differs from her passphrase.
const LOGIN_PASSWORD: &str = "alice's own login";
const RULES: &str = "etc/polkit-1/rules.d/00-test.rules";

/// polkit's action folders and bus are the machine's own; `daemon install` writes to the first.
const SETUP: &str = r#"
set -e
mount -t tmpfs -o mode=0755 tmpfs /usr/share/polkit-1
mkdir -p /usr/share/polkit-1/actions /usr/share/polkit-1/rules.d /etc/polkit-1/rules.d /run/dbus
chmod 755 /etc/polkit-1 /etc/polkit-1/rules.d
mount -t tmpfs -o mode=0755 tmpfs /run/dbus
printf 'alice:%s:19000:0:99999:7:::\n' "$(openssl passwd -6 "$LOGIN")" >> /etc/shadow
"$PROGRAM" daemon install --presence polkit 2> /tmp/install || { cat /tmp/install >&2; exit 1; }
grep -qx 'user: keeper' /etc/agentsecrets/config.yaml
grep -qx 'presence: polkit' /etc/agentsecrets/config.yaml
exec "$PROGRAM" daemon
"#;

/// A strict machine whose users confirm by polkit.
struct Polkit {
    machine: Machine,
    services: Vec<Child>,
}

impl Polkit {
    /// With polkit installed but not running.
    fn without_polkitd() -> Self {
        let machine =
            Machine::start_with(&["sh", "-c", SETUP], &[("LOGIN", LOGIN_PASSWORD), ("PROGRAM", PROGRAM)]);
        machine.store_secret(ALICE, "API_KEY", SECRET);
        Self { machine, services: Vec::new() }
    }

    fn new() -> Self {
        Self::without_polkitd().start_all()
    }

    /// With a rule of root's that returns `result` for every action.
    fn with_rule(result: &str) -> Self {
        let made = Self::without_polkitd();
        let rule = format!("polkit.addRule(function() {{ return polkit.Result.{result}; }});\n");
        fs::write(made.machine.host_path(RULES), rule).unwrap();
        made.start_all()
    }

    fn start_all(mut self) -> Self {
        self.start_program(&["dbus-daemon", "--system", "--nofork", "--nopidfile"], |machine| {
            UnixStream::connect(machine.host_path("run/dbus/system_bus_socket")).is_ok()
        });
        self.start_program(&["/usr/lib/polkit-1/polkitd", "--no-debug"], |machine| {
            run(&mut machine.root_command(&["pkaction", "--action-id", "dev.agentsecrets.act"])).code
                == Some(0)
        });
        self
    }

    fn start_program(&mut self, words: &[&str], is_there: impl Fn(&Machine) -> bool) {
        let mut started = self.machine.root_command(words);
        self.services.push(started.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_there(&self.machine) {
            assert!(Instant::now() < deadline, "{words:?} does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Alice reads her secret at a terminal.
    fn start_reveal(&self) -> Terminal {
        Terminal::start(&self.machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]))
    }
}

impl Drop for Polkit {
    fn drop(&mut self) {
        for service in self.services.iter_mut().rev() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

/// Answers the prompt of polkit's terminal agent.
fn log_in(terminal: &mut Terminal, login: &str) {
    terminal.read_until("AUTHENTICATING FOR dev.agentsecrets.act");
    terminal.read_until("secrets get API_KEY --reveal");
    terminal.read_until("Password: ");
    terminal.wait_until_echo_off();
    terminal.type_line(login);
}

#[test]
fn polkit_login_confirms_one_act() {
    let polkit = Polkit::new();
    for _ in 0..2 {
        let mut reveals = polkit.start_reveal();
        log_in(&mut reveals, LOGIN_PASSWORD);
        let (code, shown) = reveals.wait();
        assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    }
    let acts = polkit.machine.admin_records(ALICE);
    let by_polkit = acts.iter().filter(|act| act["notes"].to_string().contains("present (polkit)"));
    assert_eq!(by_polkit.count(), 2, "{acts:?}");
    let doctor = run(&mut polkit.machine.alice_command(&["doctor"])).stdout;
    assert!(doctor.contains("polkit confirms your presence"), "{doctor}");
}

#[test]
fn wrong_polkit_login_is_refused_without_fallback() {
    let polkit = Polkit::new();
    polkit.machine.set_passphrase(ALICE);
    let mut reveals = polkit.start_reveal();
    log_in(&mut reveals, PASSPHRASE);
    let (code, shown) = reveals.wait();
    assert!(code == Some(4) && shown.contains("you did not confirm"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("Your passphrase"), "{shown}");
    let blocked = polkit.machine.admin_records(ALICE).iter().filter(|act| act["status"] == "BLOCKED").count();
    assert_eq!(blocked, 1);
}

#[test]
fn ctrl_c_ends_polkit_prompt_and_restores_echo() {
    let polkit = Polkit::new();
    let script = "stty -a > /tmp/before; /opt/agentsecrets secrets list; echo code $?; \
                  stty -a > /tmp/after; cmp /tmp/before /tmp/after && echo same";
    let mut list = Terminal::start(&polkit.machine.user_command(ALICE, &["bash", "-ic", script]));
    list.read_until("Password: ");
    list.wait_until_echo_off();
    list.type_bytes(b"\x03");
    list.read_until("code 130");
    list.read_until("same");
    list.wait();
}

/// A rule that allows without a prompt would allow any program of hers too.
#[test]
fn polkit_rule_yes_proves_no_presence() {
    let polkit = Polkit::with_rule("YES");
    let (code, shown) = polkit.start_reveal().wait();
    assert!(code == Some(4) && shown.contains("without asking you"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn polkit_auth_keep_is_not_used() {
    for result in ["AUTH_SELF_KEEP", "AUTH_ADMIN_KEEP"] {
        let polkit = Polkit::with_rule(result);
        let (code, shown) = polkit.start_reveal().wait();
        assert!(code == Some(4) && shown.contains("remember"), "{result}: {shown}");
        assert!(!shown.contains(SECRET), "{result}: {shown}");
    }
}

#[test]
fn polkit_rule_no_is_final() {
    let polkit = Polkit::with_rule("NO");
    polkit.machine.set_passphrase(ALICE);
    let (code, shown) = polkit.start_reveal().wait();
    assert!(code == Some(4) && shown.contains("polkit's rules refuse this"), "{shown}");
}

/// A hand-written polkit agent: it registers for its own process, requests the secret, and claims that she
/// has authenticated.
const LYING_AGENT: &str = r#"
import os, subprocess, sys
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection
bus = open_dbus_connection("SYSTEM")
polkit = DBusAddress("/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1",
                     "org.freedesktop.PolicyKit1.Authority")
go, started = os.pipe(), lambda pid: int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[19])
pid = os.fork()
if pid == 0:
    os.read(go[0], 1)
    os.execv("/opt/agentsecrets", ["agentsecrets", "secrets", "get", "API_KEY", "--reveal"])
subject = ("unix-process", {"pid": ("u", pid), "start-time": ("t", started(pid)), "uid": ("i", os.getuid())})
bus.send_and_get_reply(new_method_call(polkit, "RegisterAuthenticationAgent", "(sa{sv})ss", (subject, "C", "/agent")))
os.write(go[1], b"x")
while True:
    asked = bus.receive(timeout=30)
    if asked.header.fields.get(HeaderFields.member) == "BeginAuthentication":
        print("ASKED", asked.body[1], flush=True)
        bus.send(new_method_return(asked))
        break
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn lying_polkit_agent_proves_nothing() {
    let polkit = Polkit::new();
    // Without a terminal, so that no other prompt is possible.
    let outcome = run(&mut polkit.machine.user_command(ALICE, &["python3", "-c", LYING_AGENT]));
    assert!(
        outcome.stdout.contains("ASKED") && outcome.stdout.contains("secrets get API_KEY"),
        "{outcome:?}"
    );
    assert_refused(&outcome);
    assert!(outcome.stderr.contains("you did not confirm"), "{outcome:?}");
}

#[test]
fn unavailable_polkit_falls_back_to_passphrase() {
    // A program without a terminal and without an agent.
    let polkit = Polkit::new();
    let alone = run(&mut polkit.machine.alice_command(&["secrets", "list"]));
    assert_refused(&alone);
    assert!(alone.stderr.contains("not by polkit: no agent"), "{alone:?}");
    // Characters that a dialog might display differently.
    polkit.machine.set_passphrase(ALICE);
    let (code, shown) =
        polkit.machine.run_with_passphrase(&polkit.machine.alice_command(&["session", "end", "<b>"]));
    assert!(code == Some(3), "{shown}");
    // polkit is not running.
    let polkit = Polkit::without_polkitd();
    polkit.machine.set_passphrase(ALICE);
    let get = polkit.machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]);
    let (code, shown) = polkit.machine.run_with_passphrase(&get);
    assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    let doctor = run(&mut polkit.machine.alice_command(&["doctor"])).stdout;
    assert!(doctor.contains("polkit is configured to confirm your presence, but cannot"), "{doctor}");
}

/// polkit logs the caller's command line.
#[test]
fn value_in_arguments_is_not_passed_to_polkit() {
    let polkit = Polkit::new();
    polkit.machine.set_passphrase(ALICE);
    let set = polkit.machine.alice_command(&["secrets", "set", &format!("INLINE={SECRET}")]);
    let mut set = Terminal::start(&set);
    // Not AUTHENTICATING, which would come first.
    set.read_until("AgentSecrets is to do this for you");
    set.read_until("Your passphrase for it: ");
    set.type_line(PASSPHRASE);
    assert_eq!(set.code(), Some(0));
}

#[test]
fn uninstall_removes_polkit_action() {
    let polkit = Polkit::without_polkitd();
    let action = polkit.machine.host_path("usr/share/polkit-1/actions/dev.agentsecrets.policy");
    assert!(fs::read_to_string(&action).unwrap().contains(">unix-user:keeper<"));
    run(&mut polkit.machine.root_command(&[PROGRAM, "daemon", "uninstall"])).ok();
    assert!(!action.exists());
}
