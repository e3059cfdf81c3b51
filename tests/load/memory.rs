//! Bodies are streamed: requests use little memory, whatever their size.

use super::*;

const MEBIBYTE: i64 = 1 << 20;
const BODY_SIZE: &str = "104857600";

#[test]
fn large_transfers_leave_memory_flat() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    // One-time allocations of the first request.
    agent.request("get 4 100000");
    agent.request("upload 100000");
    let before = agent.memory();
    let mut most = before;
    for what in [format!("get 1 {BODY_SIZE}"), format!("upload {BODY_SIZE}")] {
        agent.send(&what);
        most = most.max(peak_memory(&mut agent, &what));
    }
    let growth = most - before;
    assert!(growth < 32 * MEBIBYTE, "{} KiB more", growth / 1024);
    eprintln!("100 MiB up and down: {} KiB more", growth / 1024);
}

/// The peak memory until the agent is done.
fn peak_memory(agent: &mut DrivenAgent, what: &str) -> i64 {
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
        let output = agent.read_reply();
        assert!(output["answered"] == 1 || output["status"] == 200, "{what}: {output}");
        stop.send(()).unwrap();
        watcher.join().unwrap()
    })
}

/// The server sends at full speed and the agent does not read.
#[test]
fn slow_reader_stalls_only_itself() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    agent.request("get 4 100000");
    let before = agent.memory();
    for _ in 0..4 {
        agent.request(&format!("slow {BODY_SIZE}"));
    }
    let output = agent.request("get 8 1000000");
    assert_eq!(output["answered"], 8, "{output}");
    let growth = agent.memory() - before;
    assert!(growth < 16 * MEBIBYTE, "{} KiB more", growth / 1024);
}

#[test]
fn idle_connection_uses_little_memory() {
    let fixture = Fixture::new();
    let mut agent = DrivenAgent::start(&fixture);
    agent.request("keep 20");
    let before = agent.memory();
    assert_eq!(agent.request("keep 200")["answered"], 200);
    let each = (agent.memory() - before) / 200;
    eprintln!("an idle connection: {} KiB", each / 1024);
    assert!(each < 100 * 1024, "{each} bytes for each");
}
