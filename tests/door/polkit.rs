//! Presence by polkit: a real polkitd on a system bus of the machine's own, PAM, and polkit's agent at the terminal.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

/// What alice logs in with, which is not what she would type to us.
const LOGIN: &str = "alice's own login";
const RULES: &str = "etc/polkit-1/rules.d/00-test.rules";

/// Where the machine's polkit looks for actions is its own, as its bus is; `daemon install` writes to the first.
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

/// A strict machine whose people prove presence to polkit.
struct Polkit {
    machine: Machine,
    services: Vec<Child>,
}

impl Polkit {
    /// With polkit installed, and not running.
    fn absent() -> Self {
        let machine = Machine::with(&["sh", "-c", SETUP], &[("LOGIN", LOGIN), ("PROGRAM", PROGRAM)]);
        machine.store(ALICE, "API_KEY", SECRET);
        Self { machine, services: Vec::new() }
    }

    fn new() -> Self {
        Self::absent().started()
    }

    /// With a rule of root's that says `result` to whatever anybody asks.
    fn ruled(result: &str) -> Self {
        let made = Self::absent();
        let rule = format!("polkit.addRule(function() {{ return polkit.Result.{result}; }});\n");
        fs::write(made.machine.inside(RULES), rule).unwrap();
        made.started()
    }

    fn started(mut self) -> Self {
        self.start(&["dbus-daemon", "--system", "--nofork", "--nopidfile"], |machine| {
            UnixStream::connect(machine.inside("run/dbus/system_bus_socket")).is_ok()
        });
        self.start(&["/usr/lib/polkit-1/polkitd", "--no-debug"], |machine| {
            finish(&mut machine.root(&["pkaction", "--action-id", "dev.agentsecrets.act"])).code == Some(0)
        });
        self
    }

    fn start(&mut self, words: &[&str], is_there: impl Fn(&Machine) -> bool) {
        let mut started = self.machine.root(words);
        self.services.push(started.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_there(&self.machine) {
            assert!(Instant::now() < deadline, "{words:?} does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Alice reads her secret at a terminal.
    fn reveals(&self) -> Terminal {
        Terminal::start(&self.machine.alice(&["secrets", "get", "API_KEY", "--reveal"]))
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

/// polkit's agent at the terminal asks; `login` is typed.
fn log_in(terminal: &mut Terminal, login: &str) {
    terminal.until("AUTHENTICATING FOR dev.agentsecrets.act");
    terminal.until("secrets get API_KEY --reveal");
    terminal.until("Password: ");
    terminal.until_hidden();
    terminal.enter(login);
}

#[test]
fn the_persons_login_proves_presence_for_one_act_and_each_act_is_asked_for() {
    let polkit = Polkit::new();
    for _ in 0..2 {
        let mut reveals = polkit.reveals();
        log_in(&mut reveals, LOGIN);
        let (code, shown) = reveals.end();
        assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    }
    let acts = polkit.machine.acts(ALICE);
    let by_polkit = acts.iter().filter(|act| act["notes"].to_string().contains("present (polkit)"));
    assert_eq!(by_polkit.count(), 2, "{acts:?}");
    let doctor = finish(&mut polkit.machine.alice(&["doctor"])).stdout;
    assert!(doctor.contains("polkit asks for your presence"), "{doctor}");
}

#[test]
fn another_login_is_refused_and_the_passphrase_is_not_asked_for_instead() {
    let polkit = Polkit::new();
    polkit.machine.presence(ALICE);
    let mut reveals = polkit.reveals();
    log_in(&mut reveals, PASSPHRASE);
    let (code, shown) = reveals.end();
    assert!(code == Some(4) && shown.contains("you did not prove to be there"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("Your passphrase"), "{shown}");
    let blocked = polkit.machine.acts(ALICE).iter().filter(|act| act["status"] == "BLOCKED").count();
    assert_eq!(blocked, 1);
}

#[test]
fn ctrl_c_ends_the_question_and_the_terminal_shows_what_is_typed_again() {
    let polkit = Polkit::new();
    let script = "stty -a > /tmp/before; /opt/agentsecrets secrets list; echo code $?; \
                  stty -a > /tmp/after; cmp /tmp/before /tmp/after && echo same";
    let mut list = Terminal::start(&polkit.machine.user(ALICE, &["bash", "-ic", script]));
    list.until("Password: ");
    list.until_hidden();
    list.type_in(b"\x03");
    list.until("code 130");
    list.until("same");
    list.end();
}

/// What says yes without asking, any program of hers would be told, too.
#[test]
fn a_rule_that_says_yes_without_asking_proves_nobodys_presence() {
    let polkit = Polkit::ruled("YES");
    let (code, shown) = polkit.reveals().end();
    assert!(code == Some(4) && shown.contains("without asking you"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn a_yes_that_polkit_would_remember_is_not_asked_for() {
    for result in ["AUTH_SELF_KEEP", "AUTH_ADMIN_KEEP"] {
        let polkit = Polkit::ruled(result);
        let (code, shown) = polkit.reveals().end();
        assert!(code == Some(4) && shown.contains("remember"), "{result}: {shown}");
        assert!(!shown.contains(SECRET), "{result}: {shown}");
    }
}

#[test]
fn a_rule_that_says_no_is_the_end_of_it() {
    let polkit = Polkit::ruled("NO");
    polkit.machine.presence(ALICE);
    let (code, shown) = polkit.reveals().end();
    assert!(code == Some(4) && shown.contains("polkit's rules refuse this"), "{shown}");
}

/// polkit's own interface, spoken by hand: it registers as the agent of its process and then asks for the secret.
/// Asked to have her prove who she is, it says that she did.
const AGENT_THAT_LIES: &str = r#"
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
fn a_program_that_registers_as_her_agent_is_asked_and_its_word_proves_nothing() {
    let polkit = Polkit::new();
    // Without a terminal, so that nothing else could be asked.
    let asked = finish(&mut polkit.machine.user(ALICE, &["python3", "-c", AGENT_THAT_LIES]));
    assert!(asked.stdout.contains("ASKED") && asked.stdout.contains("secrets get API_KEY"), "{asked:?}");
    assert_refused(&asked);
    assert!(asked.stderr.contains("you did not prove to be there"), "{asked:?}");
}

#[test]
fn where_polkit_asks_nobody_the_passphrase_is_asked_for() {
    // A program without a terminal, and without an agent.
    let polkit = Polkit::new();
    let alone = finish(&mut polkit.machine.alice(&["secrets", "list"]));
    assert_refused(&alone);
    assert!(alone.stderr.contains("not by polkit: no agent"), "{alone:?}");
    // What a dialog might show otherwise than it is.
    polkit.machine.presence(ALICE);
    let (code, shown) = polkit.machine.present(&polkit.machine.alice(&["session", "end", "<b>"]));
    assert!(code == Some(3), "{shown}");
    // polkit is not running.
    let polkit = Polkit::absent();
    polkit.machine.presence(ALICE);
    let get = polkit.machine.alice(&["secrets", "get", "API_KEY", "--reveal"]);
    let (code, shown) = polkit.machine.present(&get);
    assert!(code == Some(0) && shown.contains(SECRET), "{shown}");
    let doctor = finish(&mut polkit.machine.alice(&["doctor"])).stdout;
    assert!(doctor.contains("polkit is to ask for your presence, and cannot"), "{doctor}");
}

/// polkit logs the command line of who asks.
#[test]
fn a_value_that_stands_in_the_command_line_is_kept_from_polkit() {
    let polkit = Polkit::new();
    polkit.machine.presence(ALICE);
    let set = polkit.machine.alice(&["secrets", "set", &format!("INLINE={SECRET}")]);
    let mut set = Terminal::start(&set);
    // Not AUTHENTICATING, which would come first.
    set.until("AgentSecrets is to do this for you");
    set.until("Your passphrase for it: ");
    set.enter(PASSPHRASE);
    assert_eq!(set.code(), Some(0));
}

#[test]
fn uninstall_takes_what_polkit_was_told_away() {
    let polkit = Polkit::absent();
    let action = polkit.machine.inside("usr/share/polkit-1/actions/dev.agentsecrets.policy");
    assert!(fs::read_to_string(&action).unwrap().contains(">unix-user:keeper<"));
    finish(&mut polkit.machine.root(&[PROGRAM, "daemon", "uninstall"])).ok();
    assert!(!action.exists());
}
