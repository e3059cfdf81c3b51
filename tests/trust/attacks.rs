//! Inside a run: what resembles a trusted program, or was one a moment ago, spends nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Stdio};

use agentsecrets_ebpf::{Flow, Origin};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Arena, expected};
use crate::spine::Agent;
use crate::support::memory::tree;
use crate::support::process::until;

/// Speaks TLS on a connection that another process made, and prints the status.
const SPEAKER: &str = "
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
fn copies_links_and_changed_copies_of_a_trusted_program_spend_nothing() {
    let arena = Arena::new();
    fs::hard_link(arena.at("tool"), arena.at("hard")).unwrap();
    std::os::unix::fs::symlink(arena.at("tool"), arena.at("soft")).unwrap();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let seen = arena.statuses(
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
    let mut wanted = vec![("trusted", "200"), ("soft", "200"), ("copy", "403"), ("changed", "403")];
    wanted.extend([("hard", "403"), ("untrusted", "403"), ("named", "403")]);
    wanted.extend([("without", "200"), ("free", "200")]);
    assert_eq!(seen, expected(&wanted));
}

#[test]
fn a_program_that_is_replaced_written_over_or_moved_onto_the_trusted_path_spends_nothing() {
    let arena = Arena::new();
    // The person trusts a program that the agent may write.
    let own = arena.at("own/tool");
    fs::copy(arena.at("tool"), &own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    arena.trust(&["add", &own, "--secrets", "API_KEY"]).ok();
    let seen = arena.statuses(
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
    let wanted = [
        ("before", "200"),
        ("replaced", "403"),
        ("again", "200"),
        ("removed", "403"),
        ("ontop", "403"),
        ("evil", "403"),
        ("restored", "200"),
    ];
    assert_eq!(seen, expected(&wanted));
    assert_eq!(arena.spent(), ["/before", "/again", "/restored"]);
}

#[test]
fn memory_mounts_and_forged_links_are_no_way_to_be_trusted() {
    let arena = Arena::new();
    let attacks = arena.build("attacks", include_str!("attacks.c"), &[]);
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let seen = arena.statuses(&format!(
        "ask memory {attacks} memory $tool
        cp $tool copy
        mount --bind copy $tool 2> said; echo bind $(($? != 0))
        unshare -Urm mount --bind copy $tool 2> said; echo namespace $(($? != 0))
        mkdir over work; mount -t overlay -o lowerdir=$folder,upperdir=over,workdir=work none over 2> said
        echo overlay $(($? != 0))
        {attacks} forge $tool 2> said; echo forged $? $(grep -o permitted said)"
    ));
    let wanted =
        [("memory", "403"), ("bind", "1"), ("namespace", "1"), ("overlay", "1"), ("forged", "1 permitted")];
    assert_eq!(seen, expected(&wanted));
    assert_eq!(arena.spent(), Vec::<String>::new());
}

/// An attacker that goes on when it is told to, with the interceptor stopped at will.
struct Attacker {
    agent: Agent,
    said: BufReader<ChildStdout>,
    interceptor: Pid,
}

impl Attacker {
    fn start(arena: &Arena, attack: &str) -> Self {
        let attacks = arena.build("attacks", include_str!("attacks.c"), &[]);
        fs::write(arena.at("speaker.py"), SPEAKER).unwrap();
        let (tool, speaker, port) = (arena.at("tool"), arena.at("speaker.py"), arena.world.api.port());
        let script = format!(
            "rm -f orders end; mkfifo orders end; exec 3<&0
            {attacks} {attack} api.test {port} {tool} orders /usr/bin/python3 {speaker} api.test:{port} <&3 4> end &
            cat end 3<&-"
        );
        let mut run = arena.world.home.run_agent(["sh", "-c", &arena.script(&script)]);
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let agent = Agent { child };
        let interceptor = Pid::from_raw(agent.interceptor() as i32);
        Self { agent, said, interceptor }
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn child(&mut self) -> &mut Child {
        &mut self.agent.child
    }

    fn tell(&mut self, line: &str) {
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
        until("it is stopped", || fs::read_dir(&tasks).unwrap().all(is_stopped));
    }

    fn resume_interceptor(&self) {
        let _ = kill(self.interceptor, Signal::SIGCONT);
    }

    /// The processes of the agent that run `program`, by their ids outside.
    fn running(&self, program: &str) -> Vec<u32> {
        let runs = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == std::path::Path::new(program))
        };
        tree(self.agent.child.id()).into_iter().filter(runs).collect()
    }
}

impl Drop for Attacker {
    /// However the test went, nobody is left waiting.
    fn drop(&mut self) {
        self.resume_interceptor();
        let _ = kill(Pid::from_raw(self.agent.child.id() as i32), Signal::SIGTERM);
    }
}

/// When the process `pid` started, in ticks of 10 ms since boot.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Has the kernel's records of connections that wait for the interceptor say what is true of the process `pid` now:
/// its start and its executable. That undoes what is known of who it was when it connected, and nothing else.
fn forget_who_connected(attacker: &Attacker, pid: u32) {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let run =
        cgroup.split('/').find_map(|part| part.trim().strip_prefix("agentsecrets-")).unwrap().to_owned();
    let view = format!("/proc/{}/root/sys/fs/bpf/agentsecrets/{run}/FLOWS", attacker.agent.child.id());
    let map = Map::HashMap(MapData::from_pin(view).unwrap());
    let mut flows: HashMap<_, [u8; size_of::<Flow>()], [u8; size_of::<Origin>()]> =
        HashMap::try_from(map).unwrap();
    let ticks = started(pid);
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

/// What an attacker is told that connected and became the trusted program; with or without what the kernel
/// recorded of it when it connected.
fn becoming_the_trusted_program(arena: &Arena, is_recorded: bool) -> String {
    let mut attacker = Attacker::start(arena, "become");
    // So that nobody looks at it before it has become another.
    attacker.stop_interceptor();
    attacker.tell("connect");
    assert_eq!(attacker.hears(), "became");
    let [trusted] = attacker.running(&arena.at("tool"))[..] else { panic!("one trusted program") };
    if !is_recorded {
        forget_who_connected(&attacker, trusted);
    }
    attacker.resume_interceptor();
    attacker.tell("speak");
    attacker.hears()
}

#[test]
fn who_connects_and_then_becomes_the_trusted_program_is_not_it() {
    let arena = Arena::new();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let told = becoming_the_trusted_program(&arena, true);
    assert!(told.starts_with("spoken 403 "), "{told}");
    assert!(told.contains("runs another program than when it connected"), "{told}");
    assert_eq!(arena.spent(), Vec::<String>::new());
    let told = becoming_the_trusted_program(&arena, false);
    assert!(told.starts_with("spoken 200"), "without the record the attack does not bite: {told}");
    assert_eq!(arena.spent(), ["/spoken"]);
}

/// What an attacker is told that connected and ended, and whose id a trusted program has now.
fn getting_the_id_of_who_connected(arena: &Arena, is_recorded: bool) -> String {
    let mut attacker = Attacker::start(arena, "leave");
    let connector = attacker.running(&arena.at("attacks")).remove(0);
    // Within one tick the two would be told apart by their programs alone.
    let uptime = || fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().replace('.', "");
    until("a tick has passed", || uptime().parse::<u64>().unwrap() > started(connector) + 1);
    attacker.stop_interceptor();
    attacker.tell("connect");
    assert_eq!(attacker.hears(), "left");
    let mut tries = 0;
    loop {
        // Other processes of this machine may be faster.
        fs::write("/proc/sys/kernel/ns_last_pid", (connector - 1).to_string()).unwrap();
        attacker.tell("again");
        assert_eq!(attacker.hears(), "started");
        until("it runs", || !attacker.running(&arena.at("tool")).is_empty());
        if attacker.running(&arena.at("tool")) == [connector] {
            break;
        }
        tries += 1;
        assert!(tries < 500, "the id was never free");
        attacker.tell("no");
        assert_eq!(attacker.hears(), "again");
    }
    if !is_recorded {
        forget_who_connected(&attacker, connector);
    }
    attacker.resume_interceptor();
    attacker.tell("yes");
    attacker.hears()
}

#[test]
fn a_trusted_program_that_gets_the_id_of_one_that_connected_and_ended_is_not_it() {
    let arena = Arena::new();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let told = getting_the_id_of_who_connected(&arena, true);
    assert!(told.starts_with("spoken 403 "), "{told}");
    assert!(told.contains("the process that connected is gone"), "{told}");
    assert_eq!(arena.spent(), Vec::<String>::new());
    let told = getting_the_id_of_who_connected(&arena, false);
    assert!(told.starts_with("spoken 200"), "without the record the attack does not bite: {told}");
    assert_eq!(arena.spent(), ["/spoken"]);
}
