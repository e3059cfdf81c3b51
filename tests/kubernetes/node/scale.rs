//! Many pods on a node: their cost, and leftovers.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use aya::programs::{ProgramInfo, loaded_links};
use serde_json::{Value, json};

use super::{Cluster, Driver, LABEL, NODE, Pod, Service, new_uid, pod_object};
use crate::support::process::wait_until;

/// The number of links to the service's eBPF programs.
pub(super) fn links(cluster: &Cluster) -> usize {
    let folders = fs::read_dir(cluster.pins.join("programs")).unwrap();
    let pins = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let pins = pins.map(|pin| pin.unwrap().path());
    let pins = pins.filter(|pin| pin.file_name().unwrap().to_str().unwrap().starts_with("as_"));
    let programs: BTreeSet<_> = pins.map(|pin| ProgramInfo::from_pin(pin).unwrap().id()).collect();
    assert_eq!(programs.len(), 14);
    loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).count()
}

/// System resources in use by the service.
#[derive(Debug, PartialEq, Eq, Clone)]
struct ResourceUsage {
    descriptors: usize,
    threads: usize,
    watched: usize,
    hooked: Vec<String>,
}

fn resource_usage(cluster: &Cluster, service: &Service) -> ResourceUsage {
    // Idle upstream connections are pooled for a while.
    let connected: BTreeSet<_> = ["tcp", "tcp6"]
        .iter()
        .flat_map(|table| {
            fs::read_to_string(format!("/proc/self/net/{table}"))
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| line.split_whitespace().nth(3) == Some("01"))
        .map(|line| format!("socket:[{}]", line.split_whitespace().nth(9).unwrap()))
        .collect();
    let count = |what: &str| {
        let is_pooled = |entry: &fs::DirEntry| {
            let leads = fs::read_link(entry.path()).unwrap_or_default();
            !connected.contains(leads.to_str().unwrap())
        };
        let all = |pid: &u32| fs::read_dir(format!("/proc/{pid}/{what}")).into_iter().flatten().flatten();
        let of = |pid: &u32| all(pid).filter(is_pooled).count();
        service.processes().iter().map(of).sum()
    };
    let (descriptors, threads) = (count("fd"), count("task"));
    ResourceUsage { descriptors, threads, watched: service.read_status().watched, hooked: cluster.hooked() }
}

/// Private memory in KiB: of the launcher, and of the other processes.
fn memory(service: &Service) -> (u64, u64) {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("Private_"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    };
    let processes = service.processes();
    (of(&processes[0]), processes[1..].iter().map(of).sum())
}

/// A pod of realistic size, with the fields that the API server, the scheduler and the kubelet add.
fn realistic(uid: &str) -> Value {
    let mut pod = pod_object(
        uid,
        "prod",
        "agent",
        &[LABEL, ("app", "coder"), ("pod-template-hash", "6d4b75cb6d")],
        NODE,
    );
    let field = |name: &str| json!({ format!("f:{name}"): {}, "f:env": { ".": {}, "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } } });
    pod["metadata"]["managedFields"] = (0..3)
        .map(|number| json!({ "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-11-25T20:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:containers": { format!("k:{number}"): (0..8).map(|it| field(&format!("field{it}"))).collect::<Vec<_>>() } } } }))
        .collect();
    let env: Vec<_> = (0..20)
        .map(|it| json!({ "name": format!("VARIABLE_{it}"), "value": "a value of some length" }))
        .collect();
    pod["spec"]["containers"][0]["env"] = json!(env);
    pod["status"] = json!({ "phase": "Running", "podIP": "10.1.2.3", "conditions": (0..5).map(|it| json!({
        "type": format!("Condition{it}"), "status": "True", "lastTransitionTime": "2026-11-25T20:00:00Z" })).collect::<Vec<_>>() });
    pod
}

fn start_pods<'a>(cluster: &'a Cluster, count: usize) -> Vec<Pod<'a>> {
    let uids: Vec<_> = (0..count).map(|_| new_uid()).collect();
    uids.iter().for_each(|uid| cluster.api.put_pod(realistic(uid)));
    // The kubelet creates the cgroup; volumes and network take it longer than attaching may take us.
    let make = |uid: String| {
        let made = Instant::now();
        let mut pod = cluster.cgroup("burstable", uid);
        let links = cluster.pins.join("hooked").join(&pod.uid);
        wait_until("it is hooked", || {
            fs::read_dir(&links)
                .is_ok_and(|kinds| kinds.flatten().any(|kind| kind.path().join("as_connect6").exists()))
        });
        let took = made.elapsed();
        pod.start_sandbox();
        (pod, took)
    };
    let (pods, mut took): (Vec<_>, Vec<_>) = uids.into_iter().map(make).unzip();
    took.sort_unstable();
    println!(
        "hooked after {:.1?} (median), {:.1?} (longest) from the making of the cgroup",
        took[count / 2],
        took[count - 1]
    );
    pods
}

/// Starts, changes, restarts and ends `count` pods; prints the cost.
fn churn_pods(count: usize) {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    // Resources that the first pod allocates for good do not count.
    {
        let first = cluster.pod("prod", "agent", &[LABEL]);
        service.wait_until_served(1);
        assert_eq!(first.status("STRIPE_KEY"), "200");
        cluster.api.delete_pod(&first.uid);
    }
    service.wait_until("it is gone", |status| status.known == 0);
    let before = settled_usage(&cluster, &service);
    let (asked, lean) = (cluster.api.asked(), memory(&service));

    let began = Instant::now();
    let mut pods = start_pods(&cluster, count);
    service.wait_until_served(count);
    let took = began.elapsed();
    assert_eq!(service.read_status().late, [""; 0], "every one was held before it ran");
    assert!(service.read_status().failed.is_empty(), "{:?}", service.read_status().failed);
    assert_eq!(links(&cluster), 14 * count);
    let programs: BTreeSet<_> = fs::read_dir(cluster.pins.join("programs"))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap()
        .iter()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(programs.len(), 1, "they share one set of programs");
    let full = memory(&service);
    let now = cluster.api.asked();
    for pod in [0, count / 2, count - 1].map(|index| &pods[index]) {
        assert_eq!(pod.status("STRIPE_KEY"), "200");
    }
    // A tenth restarts, a tenth gets other labels.
    let some = count / 10;
    for pod in &mut pods[..some] {
        pod.end_sandbox();
    }
    service.wait_until_served(count - some);
    for pod in &mut pods[..some] {
        pod.start_sandbox();
    }
    for pod in &pods[some..2 * some] {
        cluster.api.put_pod(pod_object(&pod.uid, "prod", "other", &[LABEL], NODE));
    }
    service.wait_until_served(count);
    wait_until("its account counts", || pods[some].status("STRIPE_KEY") == "403");
    assert_eq!(pods[0].status("STRIPE_KEY"), "200");
    let began = Instant::now();
    for pod in pods.drain(..) {
        cluster.api.delete_pod(&pod.uid);
    }
    service.wait_until("all are gone", |status| status.known == 0);
    let went = began.elapsed();
    assert_eq!(settled_usage(&cluster, &service), before, "nothing of them is left");
    assert_eq!(links(&cluster), 0);
    let flows = ebpf_flows(&cluster);
    assert_eq!(flows, 0, "records of connections");

    let per = |after: u64, before: u64| (after.saturating_sub(before) as f64) / count as f64;
    let pod_bytes = realistic(&new_uid()).to_string().len();
    let (nodes, all) = (1_000_u64, 30_000_u64);
    println!("node of {count} pods: served in {took:.1?}, gone in {went:.1?}");
    println!(
        "memory: launcher {} KiB + {:.1} KiB a pod, interceptor {} KiB + {:.1} KiB a pod",
        lean.0,
        per(full.0, lean.0),
        lean.1,
        per(full.1, lean.1)
    );
    println!(
        "API server: {} list, {} watch open, {} KiB told for {count} pods of {pod_bytes} bytes",
        now.lists,
        now.watching,
        (now.sent - asked.sent) / 1024
    );
    println!("kernel: one set of programs and tables, 14 links a pod");
    println!(
        "{nodes} nodes, {all} pods: {nodes} watches; {:.1} requests a second to renew them (one in 290 s each);",
        nodes as f64 / 290.0
    );
    println!(
        "  each change of a pod goes to one node: {} MiB when all pods are told of once",
        all as usize * pod_bytes / (1 << 20)
    );
}

/// The usage once it no longer changes.
fn settled_usage(cluster: &Cluster, service: &Service) -> ResourceUsage {
    let mut last = resource_usage(cluster, service);
    let mut since = Instant::now();
    wait_until("it settles", || {
        let now = resource_usage(cluster, service);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
    last
}

/// The number of connection records.
fn ebpf_flows(cluster: &Cluster) -> usize {
    let folder = fs::read_dir(cluster.pins.join("programs")).unwrap().next().unwrap().unwrap().path();
    let data = aya::maps::MapData::from_pin(folder.join("FLOWS")).unwrap();
    let map: aya::maps::HashMap<_, [u8; 48], [u8; 72]> = aya::maps::Map::HashMap(data).try_into().unwrap();
    map.keys().count()
}

#[test]
fn pod_churn_leaves_nothing() {
    churn_pods(40);
}

#[test]
#[ignore = "half a thousand networks take a while to make and to end"]
fn five_hundred_pod_churn_leaves_nothing() {
    churn_pods(500);
}
