//! Bodies stream: what is under way costs little memory, however much it is.

use super::*;

const MEBIBYTE: i64 = 1 << 20;
const SIZE: &str = "104857600";

#[test]
fn a_hundred_mebibytes_up_and_down_leave_memory_flat() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    // Whatever a first request makes, and keeps.
    agent.does("get 4 100000");
    agent.does("upload 100000");
    let before = agent.memory();
    let mut most = before;
    for what in [format!("get 1 {SIZE}"), format!("upload {SIZE}")] {
        agent.tell(&what);
        most = most.max(watched(&mut agent, &what));
    }
    let growth = most - before;
    assert!(growth < 32 * MEBIBYTE, "{} KiB more", growth / 1024);
    eprintln!("100 MiB up and down: {} KiB more", growth / 1024);
}

/// The most memory that was used until the agent was done.
fn watched(agent: &mut Driven, what: &str) -> i64 {
    std::thread::scope(|scope| {
        let rollup = format!("/proc/{}/smaps_rollup", agent.interceptor);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let watcher = scope.spawn(move || {
            let mut most = 0;
            while stopped.recv_timeout(std::time::Duration::from_millis(20)).is_err() {
                most = most.max(pss(&rollup));
            }
            most
        });
        let said = agent.said();
        assert!(said["answered"] == 1 || said["status"] == 200, "{what}: {said}");
        stop.send(()).unwrap();
        watcher.join().unwrap()
    })
}

/// A server that sends as fast as it can, and an agent that does not read.
#[test]
fn a_slow_reader_stalls_only_itself_and_costs_little_memory() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    agent.does("get 4 100000");
    let before = agent.memory();
    for _ in 0..4 {
        agent.does(&format!("slow {SIZE}"));
    }
    let said = agent.does("get 8 1000000");
    assert_eq!(said["answered"], 8, "{said}");
    let growth = agent.memory() - before;
    assert!(growth < 16 * MEBIBYTE, "{} KiB more", growth / 1024);
}

#[test]
fn an_idle_connection_costs_little_memory() {
    let world = World::new();
    let mut agent = Driven::start(&world);
    agent.does("keep 20");
    let before = agent.memory();
    assert_eq!(agent.does("keep 200")["answered"], 200);
    let each = (agent.memory() - before) / 200;
    eprintln!("an idle connection: {} KiB", each / 1024);
    assert!(each < 100 * 1024, "{each} bytes for each");
}
