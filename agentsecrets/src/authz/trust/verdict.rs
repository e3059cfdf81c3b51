//! The trust verdict on a caller: the pins that hold for it, or the reason why none does.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::index::{IndexedPin, PinIndex};
use super::pins::Pin;
use crate::identity::process_details::ProcessDetails;
use crate::identity::{Caller, Process};
use crate::types::name::SecretName;

/// The verdict on one caller.
#[derive(Debug)]
pub enum TrustVerdict {
    /// These pins hold for it; at least one.
    Holds {
        /// The pins.
        pins: Vec<Arc<Pin>>,
    },
    /// It has the path of a trusted program, and is not that program.
    Altered {
        /// Why not, and what to do about it.
        reason: String,
    },
    /// It is a trusted program outside the bounds of its pins.
    OutOfBounds {
        /// The bounds, one of each pin.
        reason: Vec<String>,
    },
    /// There is no pin for it.
    Unpinned,
}

impl TrustVerdict {
    /// Whether a pin holds.
    pub fn is_trusted(&self) -> bool {
        matches!(self, TrustVerdict::Holds { .. })
    }

    /// The pins that hold.
    pub fn holding(&self) -> &[Arc<Pin>] {
        match self {
            TrustVerdict::Holds { pins } => pins,
            _ => &[],
        }
    }

    /// The secrets that the pins name which hold, each once; empty where they name none.
    pub(super) fn names(&self) -> String {
        let named = self.holding().iter().flat_map(|pin| &pin.secrets);
        let names: BTreeSet<&str> = named.map(SecretName::as_str).collect();
        Vec::from_iter(names).join(", ")
    }

    /// Why it stands so, in a clause.
    pub fn reason(&self) -> String {
        match self {
            TrustVerdict::Holds { .. } => match self.names() {
                none if none.is_empty() => {
                    "its path, its content and its bounds are as they were pinned".to_owned()
                }
                names => format!("its pin names {names}"),
            },
            TrustVerdict::Altered { reason } => reason.clone(),
            TrustVerdict::OutOfBounds { reason } => reason.join("; "),
            TrustVerdict::Unpinned => "there is no pin for its path".to_owned(),
        }
    }
}

/// The verdict on `caller` by the pins in `known`.
pub(super) fn of(known: &PinIndex, caller: &Caller, look: Option<&dyn ProcessDetails>) -> TrustVerdict {
    let process = &*caller.process;
    if let Some(path) = replaced(&process.exe)
        && known.of(Path::new(path)).is_some()
    {
        let reason = format!(
            "{path} was replaced or removed while it ran, and what runs is no longer what lies there: start it again"
        );
        return TrustVerdict::Altered { reason };
    }
    let Some(indexed) = known.of(&process.exe) else { return TrustVerdict::Unpinned };
    let (mut pins, mut altered, mut bounds) = (Vec::new(), None, Vec::new());
    for indexed in indexed {
        if let Some(reason) = not_the_file(&indexed.pin, process) {
            altered = Some(reason);
        } else if let Some(reason) = indexed.out_of_bounds(caller, look) {
            bounds.push(reason);
        } else {
            pins.push(indexed.pin.clone());
        }
    }
    match altered {
        _ if !pins.is_empty() => TrustVerdict::Holds { pins },
        Some(reason) => TrustVerdict::Altered { reason },
        None => TrustVerdict::OutOfBounds { reason: bounds },
    }
}

/// The path that a program had which was replaced or removed while it ran.
fn replaced(exe: &Path) -> Option<&str> {
    exe.to_str()?.strip_prefix("deleted:")?.strip_suffix(" (deleted)")
}

/// Why what runs is not the file that `pin` is for, although it has its path.
fn not_the_file(pin: &Pin, process: &Process) -> Option<String> {
    let path = process.exe.display();
    if pin.program.sha256 != process.sha256 {
        let changed = pin.program.changed_to(&process.sha256);
        return Some(format!(
            "{path} is not what was trusted: {changed}; if it was meant to change, a person can say so: \
             agentsecrets trust update {path}"
        ));
    }
    (!process.here).then(|| {
        format!(
            "what runs as {path} is not the file that was trusted, but one that lies at this path in another \
             view of the file system, or is hidden from us"
        )
    })
}

impl IndexedPin {
    /// The bound of the pin that does not hold for `caller`.
    fn out_of_bounds(&self, caller: &Caller, look: Option<&dyn ProcessDetails>) -> Option<String> {
        let (pin, process) = (&*self.pin, &*caller.process);
        if pin.is_unbound() {
            let what = pin.interpreter.as_deref().unwrap_or_default();
            return Some(format!(
                "it is an interpreter ({what}), which does what its script says: its pin needs --session, --cgroup \
                 or --script"
            ));
        }
        if pin.session && caller.session.is_empty() {
            return Some("its pin holds inside a session alone".to_owned());
        }
        if let Some(cgroup) = &self.cgroup
            && !(crate::policy::is_canonical_path(&process.cgroup) && cgroup.is_match(&process.cgroup))
        {
            return Some(format!("its pin holds in another cgroup than {}", process.cgroup));
        }
        let script = pin.script.as_ref()?;
        let path = script.path.display();
        match look.map(|look| look.script(process)) {
            Some(Ok(Some(said))) if said.path != script.path => {
                Some(format!("its pin is for the script {path}, and it says it runs {}", said.path.display()))
            }
            Some(Ok(Some(said))) if said.sha256 != script.sha256 => {
                let changed = script.changed_to(&said.sha256);
                let program = process.exe.display();
                Some(format!(
                    "the script {path} is not what was trusted: {changed}; if it was meant to change, a person can \
                     say so: agentsecrets trust update {program}"
                ))
            }
            Some(Ok(Some(_))) => None,
            Some(Ok(None)) => {
                Some(format!("its pin is for the script {path}, and its first argument names none"))
            }
            Some(Err(error)) => {
                Some(format!("its pin is for the script {path}, and what it runs cannot be seen: {error}"))
            }
            None => Some(format!("its pin is for the script {path}, and nobody here can see what it runs")),
        }
    }
}
