//! Inside a run: a program that resembles a trusted one, or was one a moment ago, gets no secret.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Stdio};

use agentsecrets_ebpf::{Flow, Origin};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{TrustFixture, expected_statuses};
use crate::end_to_end::WaitingAgent;
use crate::support::process::wait_until;
use crate::support::value_search::process_tree;

/// Speaks TLS on a connection that another process made, and prints the status.
const TLS_ON_FD: &str = "
import os, socket, ssl, sys
raw = socket.socket(fileno=9)
context = ssl.create_default_context()
tls = context.wrap_socket(raw, server_hostname='api.test')
tls.sendall(b'GET /spoken HTTP/1.1\\r\\nHost: ' + sys.argv[1].encode() +
    b'\\r\\nAuthorization: Bearer AS_SECRET_API_KEY\\r\\nConnection: close\\r\\n\\r\\n')
text = b''
while True:
    more = tls.recv(65536)
    if not more: break
    text += more
try: os.kill(os.getppid(), 9)
except OSError: pass
print('spoken', text.split(b' ')[1].decode(), text.split(b'\\r\\n\\r\\n')[-1].decode(), flush=True)
";

#[test]
fn copies_and_links_of_trusted_program_get_nothing() {
    let fixture = TrustFixture::new();
    fs::hard_link(fixture.path_text("tool"), fixture.path_text("hard")).unwrap();
    std::os::unix::fs::symlink(fixture.path_text("tool"), fixture.path_text("soft")).unwrap();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let seen = fixture.statuses(
        "ask trusted $tool
        ask soft $folder/soft
        cp $tool copy; ask copy ./copy
        (cat $tool; echo) > changed; chmod 755 changed; ask changed ./changed
        ask hard $folder/hard
        ask untrusted curl
        ask named bash -c 'exec -a $0 ./copy \"$@\"' $tool
        $tool -sS -o answer -w 'without %{http_code}\n' $url/without
        curl -sS -o answer -w 'free %{http_code}\n' $url/free",
    );
    let mut expected = vec![("trusted", "200"), ("soft", "200"), ("copy", "403"), ("changed", "403")];
    expected.extend([("hard", "403"), ("untrusted", "403"), ("named", "403")]);
    expected.extend([("without", "200"), ("free", "200")]);
    assert_eq!(seen, expected_statuses(&expected));
}

#[test]
fn replaced_trusted_program_gets_nothing() {
    let fixture = TrustFixture::new();
    // The operator trusts a program that the agent can write.
    let own = fixture.path_text("own/tool");
    fs::copy(fixture.path_text("tool"), &own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    fixture.trust(&["add", &own, "--secrets", "API_KEY"]).ok();
    let seen = fixture.statuses(
        "# Until it is told to go, a program reads its configuration from a pipe.
        waits() { mkfifo $1; ask $1 $2 -K $1 & exec 3> $1; }
        goes() { exec 3>&-; wait; }
        ask before ./tool
        waits replaced ./tool; cp tool new; mv new tool; goes
        ask again ./tool
        waits removed ./tool; rm tool; cp $tool tool; goes
        (cat $tool; echo) > evil; chmod 755 evil
        waits ontop ./evil; mv evil tool; goes
        ask evil ./tool
        cat $tool > tool; ask restored ./tool",
    );
    let expected = [
        ("before", "200"),
        ("replaced", "403"),
        ("again", "200"),
        ("removed", "403"),
        ("ontop", "403"),
        ("evil", "403"),
        ("restored", "200"),
    ];
    assert_eq!(seen, expected_statuses(&expected));
    assert_eq!(fixture.spent_paths(), ["/before", "/again", "/restored"]);
}

#[test]
fn memfd_mounts_and_forged_links_get_nothing() {
    let fixture = TrustFixture::new();
    let attacks = fixture.build("attacks", include_str!("attacks.c"), &[]);
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let seen = fixture.statuses(&format!(
        "ask memory {attacks} memory $tool
        cp $tool copy
        mount --bind copy $tool 2> said; echo bind $(($? != 0))
        unshare -Urm mount --bind copy $tool 2> said; echo namespace $(($? != 0))
        mkdir over work; mount -t overlay -o lowerdir=$folder,upperdir=over,workdir=work none over 2> said
        echo overlay $(($? != 0))
        {attacks} forge $tool 2> said; echo forged $? $(grep -o permitted said)"
    ));
    let expected =
        [("memory", "403"), ("bind", "1"), ("namespace", "1"), ("overlay", "1"), ("forged", "1 permitted")];
    assert_eq!(seen, expected_statuses(&expected));
    assert_eq!(fixture.spent_paths(), Vec::<String>::new());
}

/// An attacker that proceeds on command, with the interceptor stopped and resumed.
struct Attacker {
    agent: WaitingAgent,
    output: BufReader<ChildStdout>,
    interceptor: Pid,
}

impl Attacker {
    fn start(fixture: &TrustFixture, attack: &str) -> Self {
        let attacks = fixture.build("attacks", include_str!("attacks.c"), &[]);
        fs::write(fixture.path_text("speaker.py"), TLS_ON_FD).unwrap();
        let (tool, speaker, port) =
            (fixture.path_text("tool"), fixture.path_text("speaker.py"), fixture.base.api.port());
        let script = format!(
            "rm -f orders end; mkfifo orders end; exec 3<&0
            {attacks} {attack} api.test {port} {tool} orders /usr/bin/python3 {speaker} api.test:{port} <&3 4> end &
            cat end 3<&-"
        );
        let mut run = fixture.base.home.run_agent(["sh", "-c", &fixture.script(&script)]);
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let agent = WaitingAgent { child };
        let interceptor = Pid::from_raw(agent.interceptor() as i32);
        Self { agent, output, interceptor }
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn child(&mut self) -> &mut Child {
        &mut self.agent.child
    }

    fn send(&mut self, line: &str) {
        self.child().stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn stop_interceptor(&self) {
        kill(self.interceptor, Signal::SIGSTOP).unwrap();
        // Each of its threads stops when it is scheduled next.
        let tasks = format!("/proc/{}/task", self.interceptor);
        let is_stopped = |task: std::io::Result<fs::DirEntry>| {
            let status = fs::read_to_string(task.unwrap().path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        wait_until("it is stopped", || fs::read_dir(&tasks).unwrap().all(is_stopped));
    }

    fn resume_interceptor(&self) {
        let _ = kill(self.interceptor, Signal::SIGCONT);
    }

    /// The host pids of the agent's processes that run `program`.
    fn running(&self, program: &str) -> Vec<u32> {
        let runs = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == std::path::Path::new(program))
        };
        process_tree(self.agent.child.id()).into_iter().filter(runs).collect()
    }
}

impl Drop for Attacker {
    /// Resumes the interceptor even if the test failed.
    fn drop(&mut self) {
        self.resume_interceptor();
        let _ = kill(Pid::from_raw(self.agent.child.id() as i32), Signal::SIGTERM);
    }
}

/// The start time of `pid`, in ticks of 10 ms since boot.
fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Overwrites start time and executable in the kernel's records of pending connections with those of `pid`
/// now. This undoes the snapshot taken in `connect`, and nothing else.
fn overwrite_connection_records(attacker: &Attacker, pid: u32) {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let run =
        cgroup.split('/').find_map(|part| part.trim().strip_prefix("agentsecrets-")).unwrap().to_owned();
    let view = format!("/proc/{}/root/sys/fs/bpf/agentsecrets/{run}/FLOWS", attacker.agent.child.id());
    let map = Map::HashMap(MapData::from_pin(view).unwrap());
    let mut flows: HashMap<_, [u8; size_of::<Flow>()], [u8; size_of::<Origin>()]> =
        HashMap::try_from(map).unwrap();
    let ticks = start_time(pid);
    let inode = fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino();
    let records: Vec<_> = flows.iter().map(Result::unwrap).collect();
    assert!(!records.is_empty(), "no connection waits");
    for (flow, mut origin) in records {
        origin[offset_of!(Origin, snapshot.start_boottime)..][..8]
            .copy_from_slice(&(ticks * 10_000_000).to_ne_bytes());
        origin[offset_of!(Origin, snapshot.exe_inode)..][..8].copy_from_slice(&inode.to_ne_bytes());
        flows.insert(flow, origin, 0).unwrap();
    }
}

/// The response to an attacker that connects and then executes the trusted program, with or without the
/// kernel's snapshot from `connect`.
fn exec_trusted_after_connect(fixture: &TrustFixture, is_recorded: bool) -> String {
    let mut attacker = Attacker::start(fixture, "become");
    // So that it is inspected only after it has executed the other program.
    attacker.stop_interceptor();
    attacker.send("connect");
    assert_eq!(attacker.read_line(), "became");
    let [trusted] = attacker.running(&fixture.path_text("tool"))[..] else { panic!("one trusted program") };
    if !is_recorded {
        overwrite_connection_records(&attacker, trusted);
    }
    attacker.resume_interceptor();
    attacker.send("speak");
    attacker.read_line()
}

#[test]
fn exec_after_connect_is_not_trusted() {
    let fixture = TrustFixture::new();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let output = exec_trusted_after_connect(&fixture, true);
    assert!(output.starts_with("spoken 403 "), "{output}");
    assert!(output.contains("runs another program than when it connected"), "{output}");
    assert_eq!(fixture.spent_paths(), Vec::<String>::new());
    let output = exec_trusted_after_connect(&fixture, false);
    assert!(output.starts_with("spoken 200"), "without the record the attack does not bite: {output}");
    assert_eq!(fixture.spent_paths(), ["/spoken"]);
}

/// The response to an attacker that connected and ended, and whose pid a trusted program has now.
fn reuse_pid_of_connector(fixture: &TrustFixture, is_recorded: bool) -> String {
    let mut attacker = Attacker::start(fixture, "leave");
    let connector = attacker.running(&fixture.path_text("attacks")).remove(0);
    // Within one tick only their executables would differ.
    let uptime = || fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().replace('.', "");
    wait_until("a tick has passed", || uptime().parse::<u64>().unwrap() > start_time(connector) + 1);
    attacker.stop_interceptor();
    attacker.send("connect");
    assert_eq!(attacker.read_line(), "left");
    let mut tries = 0;
    loop {
        // Other processes of this machine may take the pid first.
        fs::write("/proc/sys/kernel/ns_last_pid", (connector - 1).to_string()).unwrap();
        attacker.send("again");
        assert_eq!(attacker.read_line(), "started");
        wait_until("it runs", || !attacker.running(&fixture.path_text("tool")).is_empty());
        if attacker.running(&fixture.path_text("tool")) == [connector] {
            break;
        }
        tries += 1;
        assert!(tries < 500, "the id was never free");
        attacker.send("no");
        assert_eq!(attacker.read_line(), "again");
    }
    if !is_recorded {
        overwrite_connection_records(&attacker, connector);
    }
    attacker.resume_interceptor();
    attacker.send("yes");
    attacker.read_line()
}

#[test]
fn pid_reuse_is_not_trusted() {
    let fixture = TrustFixture::new();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let output = reuse_pid_of_connector(&fixture, true);
    assert!(output.starts_with("spoken 403 "), "{output}");
    assert!(output.contains("the process that connected is gone"), "{output}");
    assert_eq!(fixture.spent_paths(), Vec::<String>::new());
    let output = reuse_pid_of_connector(&fixture, false);
    assert!(output.starts_with("spoken 200"), "without the record the attack does not bite: {output}");
    assert_eq!(fixture.spent_paths(), ["/spoken"]);
}
