//! Searches for a value in processes' memory, environment and arguments, and in files. Its own test plants a
//! value in each and requires that it is found.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a memory range read at a time.
const BLOCK_SIZE: usize = 1 << 20;

/// Encodings of `value`: verbatim, base64 and base64url at every alignment, hex.
pub(crate) fn encodings(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_vec()];
    for alignment in 0..3 {
        let padded = [&vec![0; alignment], value.as_bytes()].concat();
        for text in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            // The first and last characters also carry bits of their neighbours: leave them out.
            let (start, end) = ([0, 2, 3][alignment], padded.len() * 8 / 6);
            forms.push(text.as_bytes()[start..end].to_vec());
        }
    }
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hex.to_uppercase().into_bytes());
    forms.push(hex.into_bytes());
    forms.sort();
    forms.dedup();
    forms
}

/// A process and all its descendants.
pub(crate) fn process_tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// The locations in `processes` that hold one of `needles`, such as `412 memory [heap]`. An ended process
/// holds nothing; unreadable memory fails the test.
pub(crate) fn in_processes(processes: &[u32], needles: &[Vec<u8>]) -> Vec<String> {
    let needles = Needles::new(needles);
    processes.iter().flat_map(|pid| in_process(*pid, &needles)).collect()
}

/// The files under `top` whose content or name holds one of `needles`. Links are not followed.
pub(crate) fn in_files(top: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let needles = Needles::new(needles);
    let mut found = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // It has been removed since its parent was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder != top => continue,
            entries => entries.unwrap(),
        };
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() {
                folders.push(path.clone());
            }
            let inside = kind.is_file() && needles.is_in(&fs::read(&path).unwrap_or_default());
            if inside || needles.is_in(entry.file_name().as_encoded_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

fn in_process(pid: u32, needles: &Needles) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["environ", "cmdline"] {
        if fs::read(format!("/proc/{pid}/{name}")).is_ok_and(|bytes| needles.is_in(&bytes)) {
            found.push(format!("{pid} {name}"));
        }
    }
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return found };
    let memory = match File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
        Err(error) => panic!("cannot read the memory of {pid}: {error}"),
    };
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let place = words.nth(3).unwrap_or("anonymous");
        // The kernel's own pages and device memory cannot be read this way and hold no process data.
        if !rights.starts_with('r') || place.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        if in_range(&memory, start, end, needles) {
            found.push(format!("{pid} memory {place}"));
        }
    }
    found
}

fn in_range(memory: &File, start: u64, end: u64, needles: &Needles) -> bool {
    let mut block = vec![0; BLOCK_SIZE + needles.longest];
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap().min(block.len());
        // A page that has been unmapped reads as an error: skip it.
        match memory.read_at(&mut block[..length], at) {
            Ok(read) if read > 0 => {
                if needles.is_in(&block[..read]) {
                    return true;
                }
                at += u64::try_from(read.min(BLOCK_SIZE)).unwrap();
            }
            _ => at += 4096,
        }
    }
    false
}

/// A compiled search for several values.
struct Needles {
    automaton: aho_corasick::AhoCorasick,
    longest: usize,
}

impl Needles {
    fn new(needles: &[Vec<u8>]) -> Self {
        let longest = needles.iter().map(Vec::len).max().unwrap_or_default();
        Self { automaton: aho_corasick::AhoCorasick::new(needles).unwrap(), longest }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.automaton.is_match(bytes)
    }
}

/// The parent of a process. The name in `stat` may contain `)`, so the line is parsed from its end.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    use super::*;
    use crate::support::process::command;

    #[test]
    fn planted_value_is_found() {
        let value = format!("planted-{}", std::process::id());
        let encoded = STANDARD_NO_PAD.encode(format!("user:{value}"));
        // One level down, so that the search must walk the process tree.
        let script =
            "import sys; held = sys.stdin.readline(); print('ready', flush=True); sys.stdin.readline()";
        let mut child = command("/bin/sh")
            .args(["-c", "/usr/bin/python3 -c \"$0\"; true", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        writeln!(input, "{encoded}").unwrap();
        output.read_line(&mut line).unwrap();
        let processes = process_tree(child.id());
        assert_eq!(processes.len(), 2, "the shell and its Python");
        let found = in_processes(&processes, &encodings(&value));
        assert!(!found.is_empty() && found.iter().all(|place| place.contains("memory")), "{found:?}");
        assert!(in_processes(&processes, &encodings("never planted anywhere")).is_empty());
        drop(input);
        child.wait().unwrap();

        let mut child = command("/bin/cat")
            .arg("-")
            .arg(&value)
            .env("PLANTED", &value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Once it has copied a line, the kernel has finished starting it.
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "ready").unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let found = in_processes(&[child.id()], &encodings(&value));
        assert!(found.contains(&format!("{} environ", child.id())), "{found:?}");
        assert!(found.contains(&format!("{} cmdline", child.id())), "{found:?}");
        drop(input);
        child.wait().unwrap();

        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/file"), format!("x{value}x")).unwrap();
        assert_eq!(in_files(folder.path(), &encodings(&value)), [folder.path().join("deep/file")]);
    }

    #[test]
    fn base64_alignments_are_found() {
        let forms = encodings("a secret value");
        for before in ["", "x", "xy", "xyz"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}a secret value and more"));
            assert!(Needles::new(&forms).is_in(text.as_bytes()), "{before:?}");
        }
    }
}
