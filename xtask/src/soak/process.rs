//! The resources of a process, read from the kernel: memory, descriptors, and entries of its BPF maps.

use std::fs;

use agentsecrets_ebpf::{Flow, Origin};
use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};

/// The resources of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResourceUsage {
    /// Anonymous memory in KiB, with swapped pages.
    pub(super) memory: u64,
    /// Open descriptors.
    pub(super) descriptors: u64,
    /// Connections in its map that the listener has not taken.
    pub(super) flows: u64,
}

/// The map of connections, with keys and values as bytes.
type Flows = HashMap<MapData, [u8; size_of::<Flow>()], [u8; size_of::<Origin>()]>;

/// The process among the descendants of `root` whose arguments hold `word`.
pub(super) fn descendant(root: u32, word: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut known = vec![root];
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    // A child has a higher pid than its parent, unless pids wrapped around.
    for _ in 0..2 {
        for pid in &pids {
            if parent(*pid).is_some_and(|parent| known.contains(&parent)) && !known.contains(pid) {
                known.push(*pid);
            }
        }
    }
    known.into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The resources of `pid` now.
pub(super) fn resource_usage(pid: u32) -> Result<ResourceUsage> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("process {pid} is gone"))?;
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let descriptors: Vec<_> = fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten().collect();
    let mut flows = 0;
    for descriptor in &descriptors {
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok());
        if let Some(map) = id.and_then(|id| MapData::from_id(id).ok()) {
            let map =
                Flows::try_from(Map::HashMap(map)).context("the map of connections has another shape")?;
            flows += map.keys().count() as u64;
        }
    }
    Ok(ResourceUsage {
        memory: kib("Anonymous:") + kib("Swap:"),
        descriptors: descriptors.len() as u64,
        flows,
    })
}
