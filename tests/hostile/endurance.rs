//! Wearing the kernel's tables out. A full table is a refusal, never a way around.

use aya::maps::{HashMap, Map, MapData};

use super::range::{Range, fixture_without};
use crate::ebpf::agent::Fixture;

/// What the table of records holds, in bytes.
const KEY: usize = size_of::<agentsecrets_ebpf::Flow>();
const RECORD: usize = size_of::<agentsecrets_ebpf::Origin>();

/// Connections that come and go, each of which leaves its record to be taken back by the kernel.
const CHURN: &str = r"
for turn in range(count):
    s = socket.socket()
    s.settimeout(0.05)
    try: s.connect(('10.1.2.3', 80))
    except OSError: pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
print('done')";

fn churn(count: u32) {
    let range = Range::new();
    let fixture = Fixture::new();
    let listener = fixture.listener4.as_ref().unwrap().try_clone().unwrap();
    // Takes connections as an interceptor does that is slow with their records.
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = over.clone();
    let taker = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            if !crate::ebpf::agent::nothing_came(&listener) {
                drop(listener.accept());
            }
        }
    });
    let said = range.run(&fixture.cgroup, &format!("count = {count}\n{CHURN}"), (1, 1));
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    taker.join().unwrap();
    assert_eq!(said, "done");
    assert_eq!(records(&fixture), 0, "a record outlived its connection");
    assert!(
        range
            .shoot_at(&fixture, "go(tcp(), (there4, 443)); sent(lambda: udp().sendto(mark, (there4, 9)))")
            .is_empty()
    );
}

fn records(fixture: &Fixture) -> usize {
    let data = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
    let records: HashMap<_, [u8; KEY], [u8; RECORD]> = HashMap::try_from(Map::HashMap(data)).unwrap();
    records.keys().count()
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    churn(3_000);
}

#[test]
#[ignore = "long: a hundred thousand connections, about a minute"]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    churn(100_000);
}

/// A table that is full: what was led to the door has no record and is refused; nothing goes elsewhere.
#[test]
fn a_full_table_refuses() {
    let range = Range::new();
    for without in [&[][..], &["as_connect4", "as_egress"]] {
        let fixture = fixture_without(without);
        let data = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
        let mut table: HashMap<_, [u8; KEY], [u8; RECORD]> = HashMap::try_from(Map::HashMap(data)).unwrap();
        for number in 0..65_536u32 {
            let mut key = [0xee; KEY];
            key[..4].copy_from_slice(&number.to_ne_bytes());
            table.insert(key, [0; RECORD], 0).unwrap();
        }
        let seen = range.shoot_at(&fixture, "go(tcp(), (there4, 443))");
        assert_eq!(seen.is_empty(), without.is_empty(), "{seen:#?}");
        if without.is_empty() {
            assert_eq!(fixture.accept4().1, None, "without room there is no record, so nobody is trusted");
        }
    }
}
