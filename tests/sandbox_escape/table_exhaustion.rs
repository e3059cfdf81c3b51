//! Exhausting the kernel's tables: a full table refuses connections and never lets them past.

use aya::maps::{HashMap, Map, MapData};

use super::attack_range::{AttackRange, fixture_without};
use crate::ebpf::fixture::HookedCgroup;

/// The sizes of the record table's keys and values in bytes.
const KEY: usize = size_of::<agentsecrets_ebpf::Flow>();
const RECORD: usize = size_of::<agentsecrets_ebpf::Origin>();

/// Short connections, each of which leaves a record for the kernel to remove.
const CHURN: &str = r"
for turn in range(count):
    s = socket.socket()
    s.settimeout(0.05)
    try: s.connect(('10.1.2.3', 80))
    except OSError: pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
print('done')";

fn churn_connections(count: u32) {
    let range = AttackRange::new();
    let fixture = HookedCgroup::new();
    let listener = fixture.listener4.as_ref().unwrap().try_clone().unwrap();
    // Accepts connections as an interceptor that is slow to take their records.
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = over.clone();
    let taker = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            if !crate::ebpf::fixture::is_idle(&listener) {
                drop(listener.accept());
            }
        }
    });
    let output = range.run(&fixture.cgroup, &format!("count = {count}\n{CHURN}"), (1, 1));
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    taker.join().unwrap();
    assert_eq!(output, "done");
    assert_eq!(record_count(&fixture), 0, "a record outlived its connection");
    assert!(
        range
            .attack_from(&fixture, "go(tcp(), (there4, 443)); sent(lambda: udp().sendto(mark, (there4, 9)))")
            .is_empty()
    );
}

fn record_count(fixture: &HookedCgroup) -> usize {
    let data = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
    let records: HashMap<_, [u8; KEY], [u8; RECORD]> = HashMap::try_from(Map::HashMap(data)).unwrap();
    records.keys().count()
}

#[test]
fn connection_churn_leaves_no_records() {
    churn_connections(3_000);
}

#[test]
#[ignore = "long: a hundred thousand connections, about a minute"]
fn heavy_connection_churn_leaves_no_records() {
    churn_connections(100_000);
}

/// With a full table a redirected connection has no record and is refused; none goes elsewhere.
#[test]
fn full_connection_table_refuses() {
    let range = AttackRange::new();
    for without in [&[][..], &["as_connect4", "as_egress"]] {
        let fixture = fixture_without(without);
        let data = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
        let mut table: HashMap<_, [u8; KEY], [u8; RECORD]> = HashMap::try_from(Map::HashMap(data)).unwrap();
        for number in 0..65_536u32 {
            let mut key = [0xee; KEY];
            key[..4].copy_from_slice(&number.to_ne_bytes());
            table.insert(key, [0; RECORD], 0).unwrap();
        }
        let seen = range.attack_from(&fixture, "go(tcp(), (there4, 443))");
        assert_eq!(seen.is_empty(), without.is_empty(), "{seen:#?}");
        if without.is_empty() {
            assert_eq!(fixture.accept4().1, None, "without room there is no record, so nobody is trusted");
        }
    }
}
