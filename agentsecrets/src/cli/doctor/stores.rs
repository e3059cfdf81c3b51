//! Checks that the configured stores can be read, in their order.

use super::finding::Finding;
use crate::cli::context::Context;
use crate::config::Config;
use crate::store;
use crate::store::Store;
use crate::store::StoreConfig;
use crate::store::StoreError;
use crate::store::StoreKind;
use crate::store::keychain;
use crate::sys::files;
use crate::vault;

/// One finding per store. An invalid configuration gives none, since it has a finding of its own.
pub(super) fn all(context: &Context) -> Vec<Finding> {
    let choices = Config::load(&context.home.config()).map(|config| config.stores).unwrap_or_default();
    choices.iter().map(|choice| check_store(choice, context)).collect()
}

fn check_store(choice: &StoreConfig, context: &Context) -> Finding {
    match &choice.kind {
        StoreKind::Vault => vault(context),
        // The keychain stays locked: a check must not prompt for a password.
        StoreKind::Keychain(_) => store_finding(choice, keychain::look(), "the keychain can be reached"),
        StoreKind::Mounted(_) | StoreKind::Command(_) => {
            let listed = store::open(std::slice::from_ref(choice), &context.home)
                .list(&context.project, &context.environment);
            let good = match (&choice.kind, &listed) {
                (StoreKind::Mounted(folder), Ok(entries)) => {
                    format!("{} secrets are mounted at {}", entries.len(), folder.path)
                }
                _ => "a command provides the secrets when they are needed".to_owned(),
            };
            store_finding(choice, listed.map(drop), &good)
        }
    }
}

/// Makes a finding of a store error, whose text has the fix after its last colon.
fn store_finding(choice: &StoreConfig, state: Result<(), StoreError>, good: &str) -> Finding {
    let Err(error) = state else { return Finding::good(good) };
    let text = error.to_string();
    let (what, fix) = text.rsplit_once(": ").unwrap_or((&text, "look at config.yaml's `stores`"));
    match choice.optional {
        true => Finding::warning(format!("{what} (it is optional: the next store answers)"), fix),
        false => Finding::bad(what, fix),
    }
}

fn vault(context: &Context) -> Finding {
    let path = context.home.vault();
    if !path.exists() {
        return Finding::warning("no secret is stored in the vault yet", "agentsecrets secrets set NAME");
    }
    let Some(key) = vault::unlock_from_environment() else {
        return Finding::good(format!("the vault is there and asks for its passphrase ({})", path.display()));
    };
    let checked = std::fs::File::open(&key).and_then(|file| files::check_private(&file, &key));
    if let Err(error) = checked {
        return Finding::bad("the key file cannot be used", error.to_string());
    }
    match vault::Vault::open(&path, &vault::Unlock::KeyFile(key)) {
        Ok(_) => Finding::good("the vault opens with its key file"),
        Err(error) => {
            Finding::bad(error.to_string(), "use the key file that made it, or restore it from a backup")
        }
    }
}
