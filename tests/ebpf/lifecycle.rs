//! The hooks stay after the process ends, and are detached on request.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use agentsecrets::intercept::ebpf::{self, EbpfError, Ports};

use super::fixture::{HookedCgroup, bind_listeners, start_in, unique_paths};

const SEND_ATTEMPTS: &str = r"
for host in ('127.0.0.1', '10.1.2.3', '::1'):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(2)
    print(name(lambda: s.connect((host, int(sys.argv[1])))))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(name(lambda: s.sendto(b'x', ('10.1.2.3', 443))))
";

#[test]
fn egress_is_blocked_without_interceptor() {
    let mut fixture = HookedCgroup::new();
    fixture.listener4 = None;
    fixture.listener6 = None;
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    assert_eq!(fixture.run(SEND_ATTEMPTS, &[&port]), "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nEPERM");
    assert!(super::fixture::is_idle(&database));
}

#[test]
fn egress_hook_alone_blocks_everything() {
    let fixture = HookedCgroup::new();
    for hook in ["as_connect4", "as_connect6", "as_sendmsg4", "as_sendmsg6", "as_sockops"] {
        fs::remove_file(fixture.pins.join(hook)).unwrap();
    }
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    let script = r"
s = socket.socket()
s.settimeout(1)
print(name(lambda: s.connect(('127.0.0.1', int(sys.argv[1])))))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(name(lambda: u.sendto(b'x', ('127.0.0.1', int(sys.argv[1])))))
";
    assert_eq!(fixture.run(script, &[&port]), "TIMEOUT\nEPERM");
    assert!(super::fixture::is_idle(&database));
}

/// The hooks are attached above the cgroup of the agent's processes.
#[test]
fn recreated_cgroup_is_hooked() {
    let fixture = HookedCgroup::new();
    let inner = fixture.cgroup.join("container");
    // It stays connected until it reads a line: a record does not outlive its connection.
    let script = "s = socket.create_connection(('10.1.2.3', 8080), 5); sys.stdin.readline(); print('done')";
    for _ in 0..3 {
        fs::create_dir(&inner).unwrap();
        let agent = start_in(&inner, script, &[]);
        let (_, origin) = fixture.accept4();
        assert_eq!(origin.unwrap().port, 8080);
        assert_eq!(agent.read_to_end(), "done");
        fs::remove_dir(&inner).unwrap();
    }
}

#[test]
fn detach_restores_network() {
    let fixture = HookedCgroup::new();
    ebpf::detach(&fixture.pins).unwrap();
    assert!(!fixture.pins.exists());
    ebpf::detach(&fixture.pins).unwrap();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    let script = "print(name(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()))";
    assert_eq!(fixture.run(script, &[&port]), "done");
}

#[test]
fn pins_are_root_only() {
    let fixture = HookedCgroup::new();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.pins), 0o700);
    assert_eq!(mode(fixture.pins.parent().unwrap()), 0o700);
}

#[test]
fn failed_attach_is_rolled_back() {
    let (cgroup, pins) = unique_paths();
    let (listener, _, resolver, ..) = bind_listeners();
    let ports =
        Ports { listener: listener.local_addr().unwrap().port(), dns: resolver.local_addr().unwrap().port() };
    let elsewhere = ebpf::attach(std::path::Path::new("/tmp"), &pins, ports, &[]);
    assert!(matches!(elsewhere, Err(EbpfError::NoCgroup2 { .. })), "{elsewhere:?}");
    let no_bpffs = ebpf::attach(&cgroup, &std::env::temp_dir().join("agentsecrets-no-bpffs"), ports, &[]);
    assert!(matches!(no_bpffs, Err(EbpfError::NoBpffs { .. })), "{no_bpffs:?}");
    // More ports than the map holds: the attach fails after pinning.
    let ports_of_all: Vec<u16> = (1..=u16::MAX).collect();
    assert!(ebpf::attach(&cgroup, &pins, ports, &ports_of_all).is_err());
    assert!(!pins.exists());
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port().to_string();
    let script = "print(name(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()))";
    assert_eq!(start_in(&cgroup, script, &[&port]).read_to_end(), "done");
    fs::remove_dir(&cgroup).unwrap();
}

#[test]
fn full_connection_table_gives_no_record() {
    use agentsecrets::intercept::ebpf::{Flow, Origin};
    use aya::maps::{HashMap, Map, MapData};

    const KEY: usize = size_of::<Flow>();
    const VALUE: usize = size_of::<Origin>();
    let fixture = HookedCgroup::new();
    let pin = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
    let mut flows = HashMap::<_, [u8; KEY], [u8; VALUE]>::try_from(Map::HashMap(pin)).unwrap();
    let mut entries = 0u64;
    loop {
        let mut key = [0xff; KEY];
        key[..8].copy_from_slice(&entries.to_ne_bytes());
        if flows.insert(key, [0; VALUE], 0).is_err() {
            break;
        }
        entries += 1;
    }
    assert!(entries > 60_000, "{entries}");
    let script = r"
s = socket.socket()
s.settimeout(5)
print(name(lambda: s.connect(('10.1.2.3', 443))))
sys.stdin.read()
";
    let mut agent = fixture.start(script, &[]);
    let output = agent.read_line();
    if output == "done" {
        assert_eq!(fixture.accept4().1, None, "a connection without a record is nobody's");
    }
    // Once there is room again, connections have records again.
    flows
        .remove(&{
            let mut key = [0xff; KEY];
            key[..8].copy_from_slice(&0u64.to_ne_bytes());
            key
        })
        .unwrap();
    let _second = fixture.start(script, &[]);
    assert!(fixture.accept4().1.is_some());
}
