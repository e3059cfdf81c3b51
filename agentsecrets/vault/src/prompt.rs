//! The source of a vault's key: the file that the environment names, else a person at a terminal. A
//! passphrase is never read from a pipe or a variable, where copies would remain.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use agentsecrets_types::secret::Secret;
use agentsecrets_types::store::StoreError;

use super::Unlock;

/// The variable that names the key file.
const KEY_FILE: &str = "AGENTSECRETS_VAULT_KEY_FILE";
/// The shortest passphrase for a new vault, in bytes.
const MIN_PASSPHRASE_LEN: usize = 8;

/// The key file that `AGENTSECRETS_VAULT_KEY_FILE` names, if it is set.
pub fn unlock_from_environment() -> Option<PathBuf> {
    std::env::var_os(KEY_FILE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The secret that opens, or will open, the vault at `path`: the key file that the environment names, else a
/// passphrase from the terminal, asked twice for a new vault. `Locked` if there is neither.
pub fn unlock(path: &Path) -> Result<Unlock, StoreError> {
    if let Some(key_file) = unlock_from_environment() {
        return Ok(Unlock::KeyFile(key_file));
    }
    let exists = super::exists(path);
    // A program that keeps all our streams for itself shows no prompt to anybody.
    if !io::stdin().is_terminal() && !io::stderr().is_terminal() {
        return Err(no_terminal(path, exists));
    }
    let ask = |prompt: &str| agentsecrets_sys::prompt::hidden(prompt).map_err(|_| no_terminal(path, exists));
    if exists {
        return Ok(passphrase(&ask("Passphrase of the vault: ")?));
    }
    twice("Passphrase for a new vault: ", ask)
}

/// A new passphrase for the vault at `path`, asked for twice at the terminal.
pub fn new_passphrase(path: &Path) -> Result<Unlock, StoreError> {
    let none = || {
        StoreError::Locked(format!(
            "there is no terminal to ask for a new passphrase of {}: run this at one",
            path.display()
        ))
    };
    if !io::stdin().is_terminal() && !io::stderr().is_terminal() {
        return Err(none());
    }
    twice("New passphrase of the vault: ", |prompt| {
        agentsecrets_sys::prompt::hidden(prompt).map_err(|_| none())
    })
}

fn twice(
    prompt: &str,
    ask: impl Fn(&str) -> Result<Zeroizing<String>, StoreError>,
) -> Result<Unlock, StoreError> {
    let first = ask(prompt)?;
    if first.len() < MIN_PASSPHRASE_LEN {
        return Err(StoreError::Locked(format!(
            "a passphrase needs at least {MIN_PASSPHRASE_LEN} characters; nothing was changed"
        )));
    }
    if first != ask("The same passphrase again: ")? {
        return Err(StoreError::Locked("the two passphrases differ; nothing was changed".into()));
    }
    Ok(passphrase(&first))
}

fn passphrase(typed: &str) -> Unlock {
    Unlock::Passphrase(Secret::new(typed.as_bytes().to_vec()))
}

fn no_terminal(path: &Path, exists: bool) -> StoreError {
    let shown = path.display();
    let what = if exists { "is locked" } else { "does not exist yet" };
    StoreError::Locked(format!(
        "the vault at {shown} {what}, and there is no terminal to ask for a passphrase: \
         set {KEY_FILE} to a key file of at least 32 bytes, or run this at a terminal"
    ))
}
