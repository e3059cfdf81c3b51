//! The hooks outlive us, and end when they are told to.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use agentsecrets::intercept::ebpf::{self, EbpfError, Ports};

use super::agent::{Fixture, doors, start_in, unique};

const TRY: &str = r"
for host in ('127.0.0.1', '10.1.2.3', '::1'):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(2)
    print(name(lambda: s.connect((host, int(sys.argv[1])))))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(name(lambda: s.sendto(b'x', ('10.1.2.3', 443))))
";

#[test]
fn without_an_interceptor_nothing_leaves() {
    let mut fixture = Fixture::new();
    fixture.listener4 = None;
    fixture.listener6 = None;
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    assert_eq!(fixture.run(TRY, &[&port]), "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nEPERM");
    assert!(super::agent::nothing_came(&database));
}

#[test]
fn the_drop_of_everything_holds_alone() {
    let fixture = Fixture::new();
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
    assert!(super::agent::nothing_came(&database));
}

/// The hooks stand above the cgroup that an agent's processes are in.
#[test]
fn a_cgroup_that_is_removed_and_made_again_is_hooked_from_the_start() {
    let fixture = Fixture::new();
    let inner = fixture.cgroup.join("container");
    // It stays connected until it is told to go on: a record does not outlive its connection.
    let script = "s = socket.create_connection(('10.1.2.3', 8080), 5); sys.stdin.readline(); print('done')";
    for _ in 0..3 {
        fs::create_dir(&inner).unwrap();
        let agent = start_in(&inner, script, &[]);
        let (_, origin) = fixture.accept4();
        assert_eq!(origin.unwrap().port, 8080);
        assert_eq!(agent.rest(), "done");
        fs::remove_dir(&inner).unwrap();
    }
}

#[test]
fn detaching_gives_the_network_back() {
    let fixture = Fixture::new();
    ebpf::detach(&fixture.pins).unwrap();
    assert!(!fixture.pins.exists());
    ebpf::detach(&fixture.pins).unwrap();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    let script = "print(name(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()))";
    assert_eq!(fixture.run(script, &[&port]), "done");
}

#[test]
fn pins_are_roots_alone() {
    let fixture = Fixture::new();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.pins), 0o700);
    assert_eq!(mode(fixture.pins.parent().unwrap()), 0o700);
}

#[test]
fn what_fails_half_way_is_taken_back() {
    let (cgroup, pins) = unique();
    let (listener, _, resolver, ..) = doors();
    let ports =
        Ports { listener: listener.local_addr().unwrap().port(), dns: resolver.local_addr().unwrap().port() };
    let elsewhere = ebpf::attach(std::path::Path::new("/tmp"), &pins, ports, &[]);
    assert!(matches!(elsewhere, Err(EbpfError::NoCgroup2 { .. })), "{elsewhere:?}");
    let no_bpffs = ebpf::attach(&cgroup, &std::env::temp_dir().join("agentsecrets-no-bpffs"), ports, &[]);
    assert!(matches!(no_bpffs, Err(EbpfError::NoBpffs { .. })), "{no_bpffs:?}");
    // More ports than the table holds: the pins exist by then.
    let ports_of_all: Vec<u16> = (1..=u16::MAX).collect();
    assert!(ebpf::attach(&cgroup, &pins, ports, &ports_of_all).is_err());
    assert!(!pins.exists());
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port().to_string();
    let script = "print(name(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()))";
    assert_eq!(start_in(&cgroup, script, &[&port]).rest(), "done");
    fs::remove_dir(&cgroup).unwrap();
}

#[test]
fn when_the_table_of_connections_is_full_new_ones_have_no_record() {
    use agentsecrets::intercept::ebpf::{Flow, Origin};
    use aya::maps::{HashMap, Map, MapData};

    const KEY: usize = size_of::<Flow>();
    const VALUE: usize = size_of::<Origin>();
    let fixture = Fixture::new();
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
    let said = agent.line();
    if said == "done" {
        assert_eq!(fixture.accept4().1, None, "a connection without a record is nobody's");
    }
    // Once there is room again, connections are recognised again.
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
