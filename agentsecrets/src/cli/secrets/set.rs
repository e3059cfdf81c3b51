//! `agentsecrets secrets set`: stores a value from a hidden prompt, a pipe or a file.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use zeroize::{Zeroize, Zeroizing};

use crate::cli::context::Context;
use crate::cli::output::warn;
use crate::cli::records;
use crate::cli::stores::open_store_to_write;
use crate::store::{ChainedStore, Entry, MAX_VALUE_SIZE, Store};
use crate::sys::files;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// Shorter values occur in ordinary text by chance.
const SHORT_VALUE_BYTES: usize = 8;
/// Shorter plain words and numbers occur in ordinary text too.
const SIMPLE_VALUE_BYTES: usize = 16;
/// Shorter placeholders would be replaced where nobody intended it.
const MIN_PLACEHOLDER_BYTES: usize = 8;
/// Longer values that are common, in lower case.
const COMMON_VALUES: &[&str] = &[
    "application/json",
    "change-me",
    "changeme123",
    "example.com",
    "password1",
    "password123",
    "passw0rd",
    "your-api-key",
    "your_api_key",
];

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of the secret; NAME=value works too, but stays in the shell's history
    #[arg(value_name = "NAME")]
    name: String,
    /// Read the value from this file, without one final newline
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Placeholder for agents whose clients check the format of a key [default: AS_SECRET_<NAME>]
    #[arg(long, value_name = "TEXT")]
    placeholder: Option<String>,
}

impl std::fmt::Debug for Args {
    /// Omits the name, which may be followed by the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").finish_non_exhaustive()
    }
}

impl Args {
    /// The name of the secret.
    pub(super) fn name(&self) -> Option<SecretName> {
        self.name.split('=').next()?.parse().ok()
    }

    /// The input file.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.from_file.clone()
    }
}

pub(super) fn set(mut args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let (name, inline) = match args.name.split_once('=') {
        Some((name, value)) => (name, Some(Secret::new(value.as_bytes().to_vec()))),
        None => (&*args.name, None),
    };
    let name: SecretName = name.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
    args.name.zeroize();
    let value = match (inline, &args.from_file) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(Exit::Usage, "a value was given twice: inline and by --from-file"));
        }
        (Some(value), None) => {
            warn("the value is now in your shell's history, and was visible in the process list");
            value
        }
        (None, Some(file)) => read_file(file)?,
        (None, None) if io::stdin().is_terminal() => prompt(&name)?,
        (None, None) => read_value(io::stdin().lock(), "standard input")?,
    };
    if value.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("the value of {name} is empty; nothing was stored")));
    }
    warn_if_guessable(&name, &value);
    if let Some(placeholder) = &args.placeholder {
        check_placeholder(placeholder, &value)?;
    }

    let stores = open_store_to_write(context)?;
    let entries = stores.list(&context.project, &context.environment)?;
    let taken = |entry: &&Entry| entry.name != name && entry.placeholder == args.placeholder;
    if let Some(other) = args.placeholder.as_ref().and_then(|_| entries.iter().find(taken)) {
        return Err(Failure::new(Exit::Usage, format!("{} has this placeholder already", other.name)));
    }
    // A replaced secret keeps its placeholder.
    let before = entries.into_iter().find(|entry| entry.name == name);
    let replaced = before.is_some();
    let placeholder = args.placeholder.or(before.and_then(|entry| entry.placeholder));
    let key = context.secret_key(&name);
    records::record_act(context, "secrets set", None, std::slice::from_ref(&name), Vec::new())?;
    let store = stores.set_in_first(&key, value, placeholder.as_deref())?;
    let done = if replaced { "replaced" } else { "stored" };
    eprintln!("{done} {name} in {}/{} ({store})", context.project, context.environment);
    warn_if_shadowed(&stores, &name, store, context);
    Ok(ExitCode::SUCCESS)
}

/// Warns if an earlier store holds the name too, since that store is used first.
pub(super) fn warn_if_shadowed(stores: &ChainedStore, name: &SecretName, store: &str, context: &Context) {
    if let Ok(Some(other)) = stores.answering(&context.secret_key(name))
        && other != store
    {
        warn(&format!("the {other} store holds {name} too and has precedence: its value is used"));
    }
}

fn prompt(name: &SecretName) -> Result<Secret, Failure> {
    let typed = crate::sys::prompt::hidden(&format!("Value of {name} (not shown): "));
    let typed = typed.map_err(Failure::from_error)?;
    Ok(Secret::new(typed.as_bytes().to_vec()))
}

fn read_file(path: &Path) -> Result<Secret, Failure> {
    let name = path.display();
    let file = files::open(path).context(format!("{name} cannot be read"))?;
    read_value(file, &name.to_string())
}

/// Reads a value, without one final newline.
fn read_value(from: impl Read, source: &str) -> Result<Secret, Failure> {
    // Allocated in full, so that growing leaves no copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_VALUE_SIZE + 4));
    from.take(MAX_VALUE_SIZE as u64 + 3)
        .read_to_end(&mut bytes)
        .context(format!("{source} cannot be read"))?;
    let value = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(&bytes);
    if value.len() > MAX_VALUE_SIZE {
        return Err(Failure::new(Exit::Usage, format!("the value from {source} is larger than 1 MiB")));
    }
    Ok(Secret::new(value.to_vec()))
}

fn check_placeholder(placeholder: &str, value: &Secret) -> Result<(), Failure> {
    let bad = |what| Err(Failure::new(Exit::Usage, what));
    if placeholder.len() < MIN_PLACEHOLDER_BYTES || !placeholder.bytes().all(|b| b.is_ascii_graphic()) {
        return bad("a placeholder needs at least 8 characters, all of them visible ASCII");
    }
    let holds = |long: &[u8], short: &[u8]| long.windows(short.len()).any(|window| window == short);
    if holds(placeholder.as_bytes(), value.expose()) || holds(value.expose(), placeholder.as_bytes()) {
        return bad("the placeholder and the value must not contain each other: agents see the placeholder");
    }
    Ok(())
}

/// Warns if the value may occur in responses by chance, since redaction would damage them.
pub(super) fn warn_if_guessable(name: &SecretName, value: &Secret) {
    if let Some(what) = guessable_reason(value.expose()) {
        warn(&format!(
            "{name} {what}: such text also occurs in responses by chance, and redacting it would damage them"
        ));
    }
}

fn guessable_reason(value: &[u8]) -> Option<String> {
    if value.len() < SHORT_VALUE_BYTES {
        return Some(format!("is shorter than {SHORT_VALUE_BYTES} bytes"));
    }
    let all = |of: fn(&u8) -> bool| value.iter().all(of);
    let repeated = value.windows(2).all(|pair| pair.first() == pair.last());
    let plain = value.len() < SIMPLE_VALUE_BYTES
        && (all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase) || all(u8::is_ascii_digit));
    if repeated || plain {
        return Some("is one plain word or number".to_owned());
    }
    COMMON_VALUES
        .iter()
        .any(|common| value.eq_ignore_ascii_case(common.as_bytes()))
        .then(|| "is a common value".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Vec<u8> {
        read_value(bytes, "standard input").unwrap().expose().to_vec()
    }

    #[test]
    fn final_newline_is_stripped() {
        assert_eq!(value(b"token\n"), b"token");
        assert_eq!(value(b"token\r\n"), b"token");
        assert_eq!(value(b" to ken \n\n"), b" to ken \n");
        assert_eq!(value(&[0, 255, 10, 0]), [0, 255, 10, 0]);
    }

    #[test]
    fn value_over_1_mib_is_refused() {
        assert_eq!(value(&vec![b'x'; MAX_VALUE_SIZE]).len(), MAX_VALUE_SIZE);
        let larger = read_value(&*vec![b'x'; MAX_VALUE_SIZE + 1], "standard input");
        assert_eq!(larger.err().unwrap().exit(), Exit::Usage);
    }

    #[test]
    fn bad_placeholder_is_refused() {
        let value = Secret::new(b"sk-proj-real".to_vec());
        assert!(check_placeholder("sk-proj-0000", &value).is_ok());
        for bad in ["short", "sk-proj 0000", "sk-proj-\u{e9}\u{e9}", "sk-proj-", "xx-sk-proj-real"] {
            assert!(check_placeholder(bad, &value).is_err(), "{bad}");
        }
    }

    #[test]
    fn guessable_values_are_detected() {
        for value in [
            "1234567",
            "password",
            "LOCALHOST",
            "12345678",
            "00000000000000000000",
            "Password1",
            "your-api-key",
        ] {
            assert!(guessable_reason(value.as_bytes()).is_some(), "{value}");
        }
        for value in [
            "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
            "correct horse battery",
            "Tr0ub4dor&3",
            "abcdefghijklmnopqrst",
        ] {
            assert!(guessable_reason(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn debug_output_has_no_value() {
        let typed = Args { name: "KEY=s3cret-value".into(), from_file: None, placeholder: None };
        assert!(!format!("{typed:?}").contains("s3cret"));
    }
}
