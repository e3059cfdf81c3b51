//! Trust: which programs may spend. A pin names a file by its path and its content; what the kernel says of a
//! caller is compared with the pins each time something is to be spent. The manual's page on trust says
//! what this proves, and what it cannot.

mod index;
pub mod interpreter;
pub mod package;
pub mod pins;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::registry::{self, RegistryError};
use crate::identity::Caller;
use crate::identity::process_details::ProcessDetails;
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::injection::SecretUse;
use crate::sys::watched_file::{FileSource, WatchedFile};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};

use index::PinIndex;
use pins::Pin;

pub use verdict::TrustVerdict;

/// The pins in force, and who looks at processes for them.
pub struct Trust {
    pins: WatchedFile<PinsFile>,
    /// Whether nothing is spent by programs without a pin.
    is_required: bool,
    look: Option<Arc<dyn ProcessDetails>>,
}

impl Trust {
    /// The pins in the file at `path`, which is followed. Without somebody who can `look` closer, no pin
    /// with a script holds.
    ///
    /// # Errors
    /// When there is a file that is not understood.
    pub fn open(
        path: &Path,
        is_required: bool,
        look: Option<Arc<dyn ProcessDetails>>,
    ) -> Result<Self, RegistryError> {
        let pins = WatchedFile::open(path, PinsFile(path.to_path_buf()))?;
        Ok(Self { pins, is_required, look })
    }

    /// The source of process details.
    pub fn look(&self) -> Option<&dyn ProcessDetails> {
        self.look.as_deref()
    }

    /// The trust verdict on `caller`.
    pub fn verdict(&self, caller: &Caller) -> TrustVerdict {
        verdict::of(&self.pins.get(), caller, self.look.as_deref())
    }

    /// Whether a pin holds for `caller`: what `match: { trusted: true }` asks.
    pub fn holds(&self, caller: &Caller) -> bool {
        // Most homes have no pin for most programs.
        self.pins.get().of(&caller.process.exe).is_some() && self.verdict(caller).is_trusted()
    }

    /// Whether `caller` is trusted for `secret` in so many words: a pin holds for it, and names the secret or
    /// names none.
    ///
    /// # Errors
    /// Says why not, and what a person can do about it.
    pub fn vouches(&self, caller: &Caller, secret: &SecretName) -> Result<(), String> {
        let verdict = self.verdict(caller);
        match self.objection(&verdict, caller, secret) {
            Some(objection) => Err(objection),
            None if verdict.is_trusted() => Ok(()),
            None => Err(untrusted(&verdict, caller, secret)),
        }
    }

    /// Why `caller`, which stands as it does, may not spend `secret`.
    fn objection(&self, verdict: &TrustVerdict, caller: &Caller, secret: &SecretName) -> Option<String> {
        let exe = caller.process.exe.display();
        if let TrustVerdict::Altered { reason } = verdict {
            return Some(reason.clone());
        }
        if self.pins.get().is_reserved(secret) {
            let names = |pin: &Arc<Pin>| pin.secrets.contains(secret);
            let named = verdict.holding().iter().any(names);
            return (!named).then(|| untrusted(verdict, caller, secret));
        }
        match verdict {
            TrustVerdict::Holds { pins } if pins.iter().all(|pin| !pin.secrets.is_empty()) => {
                let names = verdict.names();
                Some(format!("{exe} is trusted for {names} alone, and not for '{secret}'"))
            }
            TrustVerdict::Holds { .. } => None,
            _ if self.is_required => Some(untrusted(verdict, caller, secret)),
            _ => None,
        }
    }
}

impl CapabilityCheck for Trust {
    fn rejection(
        &self,
        caller: &Caller,
        _ask: &AccessRequest<'_>,
        spends: &[SecretUse],
    ) -> Option<Rejection> {
        if spends.is_empty() || (!self.is_required && self.pins.get().is_empty()) {
            return None;
        }
        let verdict = self.verdict(caller);
        let objection = spends.iter().find_map(|spend| self.objection(&verdict, caller, &spend.name))?;
        Some(Rejection::new(ErrorCode::CapabilityDenied, objection))
    }
}

/// The error text for a secret that only trusted programs spend.
fn untrusted(verdict: &TrustVerdict, caller: &Caller, secret: &SecretName) -> String {
    let exe = caller.process.exe.display();
    format!(
        "'{secret}' is spent by programs that are trusted for it, and {exe} is not: {}; a person can say \
         otherwise: agentsecrets trust add PROGRAM --secrets {secret}",
        verdict.reason()
    )
}

/// The file, followed.
struct PinsFile(PathBuf);

impl FileSource for PinsFile {
    type Content = PinIndex;
    type Error = RegistryError;

    const NAME: &'static str = "trust";

    fn text(&self) -> Result<Option<String>, RegistryError> {
        registry::text(&self.0)
    }

    fn parse(&self, text: Option<&str>, last: Option<&PinIndex>) -> Result<PinIndex, RegistryError> {
        let had = last.is_some_and(|last| !last.is_empty());
        PinIndex::new(registry::follow(text, &self.0, had)?, &self.0)
    }
}

#[cfg(test)]
mod tests;
