//! The ancestors of a process. A process that outlives its parent is reparented and so leaves its ancestry;
//! only proven ancestors count. A reused id is detected by its start time, since no parent is younger than
//! its child.

use super::Process;

/// Upper bound on the ancestors that are followed.
const MAX_DEPTH: usize = 128;

/// A process for good: its id, and when it started, in clock ticks since boot.
pub type ProcessStart = (u32, u64);

/// Processes, each the child of the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ancestry(Vec<ProcessStart>);

impl Ancestry {
    /// That of `process`, as far as this process may see it. Empty where it is gone.
    pub fn of(process: &Process) -> Self {
        Self::since((process.pid, process.start_time))
    }

    /// That of the process which is known by id and start.
    pub fn since(first: ProcessStart) -> Self {
        Self::by(first, look)
    }

    /// Followed by that of the process which asked for what it is in, if there is one.
    pub fn then(mut self, asked_by: Option<ProcessStart>) -> Self {
        self.0.extend(asked_by.map(Self::since).unwrap_or_default().0);
        self
    }

    fn by(first: ProcessStart, look: impl Fn(u32) -> Option<(u32, u64)>) -> Self {
        let mut line = Vec::new();
        let mut current = first;
        while line.len() < MAX_DEPTH {
            let Some((parent, started)) = look(current.0) else { break };
            if started != current.1 {
                break;
            }
            line.push(current);
            let Some((_, parents_start)) = look(parent) else { break };
            // If it is still its parent now, then it was while we looked at it.
            if parents_start > started || look(current.0) != Some((parent, started)) {
                break;
            }
            current = (parent, parents_start);
        }
        Self(line)
    }

    /// Itself first.
    pub fn iter(&self) -> impl Iterator<Item = &ProcessStart> {
        self.0.iter()
    }
}

/// Whether the process lives.
pub fn lives((pid, started): ProcessStart) -> bool {
    look(pid).is_some_and(|(_, start)| start == started)
}

/// When the process `pid` started, if it lives.
pub fn start_of(pid: u32) -> Option<u64> {
    look(pid).map(|(_, started)| started)
}

/// The parent of the process `pid`, if it lives.
pub fn parent_of(pid: u32) -> Option<u32> {
    look(pid).map(|(parent, _)| parent)
}

/// The parent and the start of the process `pid`: fields 4 and 22 of `/proc/<pid>/stat`. The second field is the
/// program's own name for itself, in brackets, and may hold anything: what counts begins after the last bracket.
/// It is read here since the inspector may open files, and do little else.
#[cfg(target_os = "linux")]
fn look(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 1..))?;
    let fields: Vec<&str> = std::str::from_utf8(after).ok()?.split_ascii_whitespace().collect();
    // A zombie has ended.
    if fields.first().is_none_or(|state| matches!(*state, "Z" | "X" | "x")) {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// On this system nobody can say.
#[cfg(not(target_os = "linux"))]
fn look(_pid: u32) -> Option<(u32, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn line(first: ProcessStart, processes: &[(u32, u32, u64)]) -> Vec<u32> {
        let known: HashMap<_, _> =
            processes.iter().map(|(pid, ppid, start)| (*pid, (*ppid, *start))).collect();
        Ancestry::by(first, |pid| known.get(&pid).copied()).iter().map(|(pid, _)| *pid).collect()
    }

    #[test]
    fn ancestry_ends_at_first_process() {
        assert_eq!(line((30, 9), &[(1, 0, 1), (20, 1, 5), (30, 20, 9)]), [30, 20, 1]);
    }

    #[test]
    fn reused_pid_breaks_ancestry() {
        assert!(line((30, 9), &[(1, 0, 1), (30, 1, 10)]).is_empty(), "it is another one than the caller");
        assert_eq!(line((30, 9), &[(1, 0, 1), (20, 1, 11), (30, 20, 9)]), [30], "its parent is younger");
    }

    #[test]
    fn cycle_ends() {
        assert_eq!(line((2, 5), &[(2, 3, 5), (3, 2, 5)]).len(), MAX_DEPTH);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_lives_and_descends_from_its_parent() {
        let pid = std::process::id();
        let started = start_of(pid).unwrap();
        assert!(lives((pid, started)) && !lives((pid, started + 1)));
        let process = Process { pid, start_time: started, ..Process::for_test() };
        let parent = std::os::unix::process::parent_id();
        assert_eq!(Ancestry::of(&process).iter().nth(1).map(|(pid, _)| *pid), Some(parent));
    }
}
