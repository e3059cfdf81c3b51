//! Measures the capability that each step needs; the manual's table must show the result.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use agentsecrets::identity::inspector::ProcessInspector;
use agentsecrets::intercept::ebpf::{self, FlowMap, PinFolder, Ports, SecondAttachment};
use caps::{CapSet, Capability};

use super::Engine;
use crate::support::process::{command, wait_until};

/// Capabilities that could be needed, in the table's order.
const CANDIDATES: [Capability; 7] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

const PORTS: Ports = Ports { listener: 50_001, dns: 50_002 };

/// Whether `attempt` succeeds in a thread with exactly these effective capabilities.
fn succeeds_with(effective: &[Capability], attempt: &(impl Fn() -> bool + Sync)) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            caps::set(None, CapSet::Effective, &effective.iter().copied().collect()).unwrap();
            let done = attempt();
            let all = caps::read(None, CapSet::Permitted).unwrap();
            caps::set(None, CapSet::Effective, &all).unwrap();
            done
        });
        thread.join().unwrap()
    })
}

/// The minimal sets with which `attempt` succeeds.
fn minimal_sets(attempt: impl Fn() -> bool + Sync) -> Vec<BTreeSet<usize>> {
    let mut found: Vec<BTreeSet<usize>> = Vec::new();
    let mut sets: Vec<u32> = (0..1 << CANDIDATES.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    for set in sets {
        let set: BTreeSet<usize> = (0..CANDIDATES.len()).filter(|bit| set >> bit & 1 == 1).collect();
        if found.iter().any(|smaller| smaller.is_subset(&set)) {
            continue;
        }
        let effective: Vec<_> = set.iter().map(|&at| CANDIDATES[at]).collect();
        if succeeds_with(&effective, &attempt) {
            found.push(set);
        }
    }
    found
}

fn table_row(what: &str, sets: &[BTreeSet<usize>]) -> String {
    let name = |at: &usize| CANDIDATES[*at].to_string().trim_start_matches("CAP_").to_owned();
    let sets: Vec<String> = sets
        .iter()
        .map(|set| set.iter().map(name).collect::<Vec<_>>().join(" + "))
        .map(|set| if set.is_empty() { "none".to_owned() } else { set })
        .collect();
    format!("| {what} | {} |\n", sets.join(", or "))
}

#[test]
fn documented_capabilities_are_minimal() {
    let cgroup =
        ebpf::cgroup2_mount().unwrap().join(format!("agentsecrets-capabilities-{}", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    let all = Path::new("/sys/fs/bpf/agentsecrets").join(format!("capabilities-{}", std::process::id()));
    let neighbour = SecondAttachment { ours: 1, processes: Some((4, 5)) };
    let keep = PinFolder::new(all.clone(), cgroup.clone(), neighbour);
    // Kernel features are probed once per process and need privileges: probe now.
    ebpf::probe().unwrap();
    let mut table = String::from("| to | takes |\n|---|---|\n");
    let attach = || keep.renew(PORTS).is_ok();
    table += &table_row("load the hooks, attach and pin them", &minimal_sets(attach));
    keep.renew(PORTS).unwrap();
    let existing = keep.find().unwrap();
    let take_up = || keep.find().is_some_and(|existing| keep.take_up(&existing).is_ok());
    table += &table_row("take up hooks that an earlier service left", &minimal_sets(take_up));
    let record = || {
        let Ok(flows) = FlowMap::open(&existing.pins) else { return false };
        let (agent, door) = (([127, 0, 0, 1], 40_000).into(), ([127, 0, 0, 1], PORTS.listener).into());
        flows.take(1, agent, door).is_ok()
    };
    table += &table_row("take a connection's record", &minimal_sets(record));
    let mut other = command("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sleep", "600"])
        .spawn()
        .unwrap();
    let sleeps =
        || fs::read_link(format!("/proc/{}/exe", other.id())).is_ok_and(|exe| exe.ends_with("sleep"));
    wait_until("it sleeps", sleeps);
    let see = || ProcessInspector::Here.inspect(other.id()).is_ok();
    table += &table_row("see which program an agent's process runs (`--processes`)", &minimal_sets(see));
    other.kill().unwrap();
    other.wait().unwrap();
    table += &table_row("become the user that serves", &minimal_sets(changes_user));
    ebpf::detach(&existing.pins).unwrap();
    fs::remove_dir(&all).unwrap();
    fs::remove_dir(&cgroup).unwrap();
    table += "| serve | none |\n";
    let manual = include_str!("../../agentsecrets/docs/containers.md");
    assert!(manual.contains(&table), "the manual should have:\n\n{table}");
}

/// Runs in a child process, since a change of user affects the whole process.
fn changes_user() -> bool {
    let effective = caps::read(None, CapSet::Effective).unwrap();
    let names: Vec<String> = effective
        .iter()
        .map(|name| format!("+{}", name.to_string().trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let bounds = std::iter::once("-all".to_owned()).chain(names).collect::<Vec<_>>().join(",");
    // The thread that starts it cannot limit itself without CAP_SETPCAP.
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            let all = caps::read(None, CapSet::Permitted).unwrap();
            caps::set(None, CapSet::Effective, &all).unwrap();
            let script = "import os; os.setgroups([]); os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)";
            let mut python = command("setpriv");
            python.args(["--bounding-set", &bounds, "/usr/bin/python3", "-c", script]);
            python.stderr(std::process::Stdio::null()).status().unwrap().success()
        });
        started.join().unwrap()
    })
}

/// Starts the service with the granted capabilities, then without each.
#[test]
fn service_needs_each_granted_capability() {
    let engine = Engine::new();
    let whole = engine.compose.services["agentsecrets"].clone();
    for missing in &whole.cap_add {
        let mut service = whole.clone();
        service.cap_add.retain(|name| name != missing);
        let errors = engine.start_service_unready(&service).wait_for_failure();
        let expected = match missing.as_str() {
            "BPF" | "NET_ADMIN" | "PERFMON" => "cannot intercept",
            _ => "cannot give up privileges",
        };
        assert!(errors.contains(expected), "{missing}: {errors}");
        assert!(engine.pins().len() <= 1, "{missing}");
    }
    drop(engine.start_service());
}
