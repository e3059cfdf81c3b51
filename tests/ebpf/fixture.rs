//! A cgroup with the eBPF programs attached, the listeners for it, and programs that run inside.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use agentsecrets::intercept::ebpf::{self, Attachment, FlowMap, Origin, Ports};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Long enough for a loaded machine, short enough for a failing test.
const POLL_TIMEOUT_MS: u16 = 10_000;

pub(crate) struct HookedCgroup {
    pub(crate) ports: Ports,
    pub(crate) listener4: Option<TcpListener>,
    pub(crate) listener6: Option<TcpListener>,
    pub(crate) resolver4: UdpSocket,
    pub(crate) resolver_tcp: TcpListener,
    pub(crate) resolver6: UdpSocket,
    pub(crate) flows: FlowMap,
    pub(crate) cgroup: PathBuf,
    pub(crate) pins: PathBuf,
    _attachment: Attachment,
}

impl HookedCgroup {
    pub(crate) fn new() -> Self {
        Self::with_inbound(&[])
    }

    pub(crate) fn with_inbound(inbound: &[u16]) -> Self {
        let (cgroup, pins) = unique_paths();
        let (listener4, listener6, resolver4, resolver6, resolver_tcp) = bind_listeners();
        let ports = Ports {
            listener: listener4.local_addr().unwrap().port(),
            dns: resolver4.local_addr().unwrap().port(),
        };
        let attachment = ebpf::attach(&cgroup, &pins, ports, inbound).unwrap();
        assert_eq!(attachment.pins(), pins);
        Self {
            ports,
            listener4: Some(listener4),
            listener6: Some(listener6),
            resolver4,
            resolver_tcp,
            resolver6,
            flows: FlowMap::open(&pins).unwrap(),
            cgroup,
            pins,
            _attachment: attachment,
        }
    }

    /// Starts a Python program inside the cgroup.
    pub(crate) fn start(&self, script: &str, arguments: &[&str]) -> Program {
        start_in(&self.cgroup, script, arguments)
    }

    /// Runs a Python program inside the cgroup; returns its output.
    pub(crate) fn run(&self, script: &str, arguments: &[&str]) -> String {
        self.start(script, arguments).read_to_end()
    }

    /// Accepts a connection at the IPv4 listener and takes its record.
    pub(crate) fn accept4(&self) -> (TcpStream, Option<Origin>) {
        self.accept(self.listener4.as_ref().unwrap())
    }

    /// Accepts a connection at the IPv6 listener and takes its record.
    pub(crate) fn accept6(&self) -> (TcpStream, Option<Origin>) {
        self.accept(self.listener6.as_ref().unwrap())
    }

    fn accept(&self, listener: &TcpListener) -> (TcpStream, Option<Origin>) {
        wait_readable(listener);
        let (stream, peer) = listener.accept().unwrap();
        let origin = self.flows.take_of(&stream, peer, stream.local_addr().unwrap()).unwrap();
        (stream, origin)
    }
}

impl Drop for HookedCgroup {
    fn drop(&mut self) {
        let _ = ebpf::detach(&self.pins);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// A running program; dropping it kills it.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn write_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The remaining output.
    pub(crate) fn read_to_end(mut self) -> String {
        drop(self.input.take());
        let mut lines = vec![];
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a Python program in a cgroup: a shell joins the cgroup, then executes Python.
pub(crate) fn start_in(cgroup: &Path, script: &str, arguments: &[&str]) -> Program {
    let join = "echo $$ > \"$0/cgroup.procs\" && exec /usr/bin/python3 -u -c \"$@\"";
    let prelude = "import socket, os, sys, errno\n\
        def name(call):\n\
        \x20   try: return str(call() or 'done')\n\
        \x20   except OSError as e: return errno.errorcode.get(e.errno, 'TIMEOUT')\n";
    let mut child = Command::new("/bin/sh")
        .args(["-c", join])
        .arg(cgroup)
        .arg(format!("{prelude}{script}"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let output = BufReader::new(child.stdout.take().unwrap());
    Program { child, input, output }
}

/// Waits until a read or accept will not block.
pub(crate) fn wait_readable(on: &impl AsFd) {
    let mut entries = [PollFd::new(on.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut entries, PollTimeout::from(POLL_TIMEOUT_MS)).unwrap(), 1, "nothing came");
}

/// Whether a read or accept would block now.
pub(crate) fn is_idle(on: &impl AsFd) -> bool {
    let mut entries = [PollFd::new(on.as_fd(), PollFlags::POLLIN)];
    poll(&mut entries, PollTimeout::ZERO).unwrap() == 0
}

/// A new cgroup and a pin folder.
pub(crate) fn unique_paths() -> (PathBuf, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let bpffs = Path::new("/sys/fs/bpf");
    ebpf::mount_bpffs(bpffs).unwrap();
    let cgroup = ebpf::cgroup2_mount().unwrap().join(format!("agentsecrets-{name}"));
    fs::create_dir(&cgroup).expect("these tests need root");
    (cgroup, bpffs.join("agentsecrets").join(name))
}

/// The listener and the resolver on both loopback addresses, each with one port number for both.
pub(crate) fn bind_listeners() -> (TcpListener, TcpListener, UdpSocket, UdpSocket, TcpListener) {
    loop {
        let tcp4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp6 = TcpListener::bind(("::1", tcp4.local_addr().unwrap().port()));
        let dns = udp4.local_addr().unwrap().port();
        let (udp6, dns_tcp) = (UdpSocket::bind(("::1", dns)), TcpListener::bind(("127.0.0.1", dns)));
        if let (Ok(tcp6), Ok(udp6), Ok(dns_tcp)) = (tcp6, udp6, dns_tcp) {
            return (tcp4, tcp6, udp4, udp6, dns_tcp);
        }
    }
}
