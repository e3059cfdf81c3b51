//! Reading the log back: one record a request, whether every line is the one that was written, and
//! what is being written now. Reading changes nothing and waits for nobody longer than a moment.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::anchor::Anchor;
use super::chain::{ChainKey, FIRST};
use super::lock::wait_for;
use super::log::is_alive;
use super::record::{Record, Status};
use super::{AuditError, Files, at};
use agentsecrets_sys as sys;

/// The reason given for an intent that no outcome followed.
const NO_OUTCOME: &str = "no outcome was written: the process ended";

/// The records of a log, and its first fault.
#[derive(Debug)]
pub struct Contents {
    /// One record a request (and a person's act), oldest first.
    pub records: Vec<Record>,
    /// The first thing that is wrong with the log; `None` if nothing is.
    pub fault: Option<AuditError>,
}

/// Every record of the log in `folder`; none if there is no log.
pub fn read(folder: &Path) -> Result<Contents, AuditError> {
    let mut records: Vec<Record> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let walked = walk(folder, |line| {
        let Some(record) = parse(line.as_bytes()) else { return };
        match places.get(&record.id).and_then(|place| records.get_mut(*place)) {
            Some(intent) => *intent = record,
            None => {
                places.insert(record.id.clone(), records.len());
                records.push(record);
            }
        }
    })?;
    for record in records.iter_mut().filter(|record| record.status == Status::Intent) {
        let alive = is_alive(folder, &record.id);
        record.status = if alive { Status::Pending } else { Status::Aborted };
        record.reason = (!alive).then(|| NO_OUTCOME.into());
    }
    records.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Contents { records, fault: walked.fault })
}

/// Proves every line of the log in `folder`; how many there are. The error is the first thing wrong.
pub fn verify(folder: &Path) -> Result<u64, AuditError> {
    let walked = walk(folder, |_| {})?;
    walked.fault.map_or(Ok(walked.lines), Err)
}

/// Every line as it is on disk, intents too, to `out`; then what is wrong with the log, if anything.
pub fn export(folder: &Path, out: &mut dyn io::Write) -> io::Result<Result<u64, AuditError>> {
    let mut written = Ok(());
    let walked = walk(folder, |line| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    });
    written?;
    Ok(walked.and_then(|walked| walked.fault.map_or(Ok(walked.lines), Err)))
}

/// A line as a record that is safe to show, even if somebody else wrote the line.
pub(super) fn parse(line: &[u8]) -> Option<Record> {
    let mut record: Record = serde_json::from_slice(line).ok()?;
    record.clean();
    Some(record)
}

struct Walked {
    lines: u64,
    fault: Option<AuditError>,
}

/// Shows every line to `visit`, sound or not, and notes the first thing that is wrong.
fn walk(folder: &Path, mut visit: impl FnMut(&str)) -> Result<Walked, AuditError> {
    let files = Files::of(folder);
    let mut walked = Walked { lines: 0, fault: None };
    let key = note(&mut walked.fault, ChainKey::read(&files));
    // Before the log's length, since both only grow: the other way round, a line that was written
    // in between would look like one that is gone.
    let anchor = key.as_ref().and_then(|key| note(&mut walked.fault, Anchor::read(&files, key))).flatten();
    let (mut log, length) = match open(&files) {
        Ok(opened) => opened,
        Err(AuditError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let begun = anchor.is_none_or(|anchor| anchor.length > 0);
            let never = !files.key.exists() && !files.head.exists();
            walked.fault = (begun && !never).then_some(AuditError::Missing("its file is gone"));
            return Ok(walked);
        }
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new((&mut log).take(length));
    let mut previous = FIRST.to_string();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(at(&files.log))? == 0 {
            break;
        }
        walked.lines += 1;
        let line = String::from_utf8_lossy(&bytes);
        let whole = line.strip_suffix('\n');
        if let (None, Some(key)) = (&walked.fault, &key) {
            let sound = whole.ok_or("it is unfinished: it was cut, or the machine stopped while writing it");
            match sound.and_then(|whole| key.follow(whole, &previous)) {
                Ok(hash) => previous = hash.into(),
                Err(what) => walked.fault = Some(AuditError::Line { line: walked.lines, what }),
            }
        }
        visit(whole.unwrap_or(&line));
    }
    if walked.fault.is_none() {
        walked.fault = match anchor {
            None if length > 0 => Some(AuditError::Missing("its anchor is gone")),
            None => None,
            Some(anchor) => anchor.check(&files, &mut log).err(),
        };
    }
    Ok(walked)
}

fn note<T>(fault: &mut Option<AuditError>, result: Result<T, AuditError>) -> Option<T> {
    result.map_err(|error| fault.get_or_insert(error)).ok()
}

/// The log, and its length at a moment when nobody was writing a line.
fn open(files: &Files) -> Result<(File, u64), AuditError> {
    let log = File::open(&files.log).map_err(at(&files.log))?;
    wait_for(&log, &files.log)?;
    let length = log.metadata().map(|metadata| metadata.len());
    sys::unlock(&log).map_err(at(&files.log))?;
    Ok((log, length.map_err(at(&files.log))?))
}
