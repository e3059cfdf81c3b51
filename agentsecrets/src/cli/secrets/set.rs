//! `agentsecrets secrets set`: a value goes in, by a hidden prompt, a pipe or a file.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use zeroize::{Zeroize, Zeroizing};

use super::stores::{open_store_to_write, store_failure};
use super::{key, warn};
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::store::{Entry, LARGEST_VALUE, Store, Stores};
use crate::sys::files;
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// Values shorter than this stand in ordinary text by chance.
const SHORT: usize = 8;
/// A plain word or number shorter than this does so, too.
const PLAIN: usize = 16;
/// A placeholder shorter than this would be found where nobody meant it.
const SHORTEST_PLACEHOLDER: usize = 8;
/// Longer values that everybody uses, in lower case.
const COMMON: &[&str] = &[
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
    /// Its name; NAME=value is possible too, but stays in the shell's history
    #[arg(value_name = "NAME")]
    name: String,
    /// Take the value from this file, less one final newline
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// What agents use in its place, for clients that check a key's shape [default: AS_SECRET_<NAME>]
    #[arg(long, value_name = "TEXT")]
    placeholder: Option<String>,
}

impl std::fmt::Debug for Args {
    /// The name may have the value behind it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").finish_non_exhaustive()
    }
}

impl Args {
    /// The secret that is named.
    pub(super) fn name(&self) -> Option<SecretName> {
        self.name.split('=').next()?.parse().ok()
    }

    /// The file that is read.
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
            warn("the value is in your shell's history now, and was in the list of processes");
            value
        }
        (None, Some(file)) => read_file(file)?,
        (None, None) if io::stdin().is_terminal() => prompt(&name)?,
        (None, None) => read_value(io::stdin().lock(), "standard input")?,
    };
    if value.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("the value of {name} is empty; nothing was stored")));
    }
    warn_if_ordinary(&name, &value);
    if let Some(placeholder) = &args.placeholder {
        check_placeholder(placeholder, &value)?;
    }

    let stores = open_store_to_write(context)?;
    let entries = stores.list(&context.project, &context.environment).map_err(store_failure)?;
    let taken = |entry: &&Entry| entry.name != name && entry.placeholder == args.placeholder;
    if let Some(other) = args.placeholder.as_ref().and_then(|_| entries.iter().find(taken)) {
        return Err(Failure::new(Exit::Usage, format!("{} has this placeholder already", other.name)));
    }
    // A new value under an old name keeps the placeholder that clients were given.
    let before = entries.into_iter().find(|entry| entry.name == name);
    let replaced = before.is_some();
    let placeholder = args.placeholder.or(before.and_then(|entry| entry.placeholder));
    let key = key(&name, context);
    admin_record::record(context, "secrets set", None, std::slice::from_ref(&name), Vec::new())?;
    let store = stores.put(&key, value, placeholder.as_deref()).map_err(store_failure)?;
    let done = if replaced { "replaced" } else { "stored" };
    eprintln!("{done} {name} in {}/{} ({store})", context.project, context.environment);
    warn_if_hidden(&stores, &name, store, context);
    Ok(ExitCode::SUCCESS)
}

/// A store that comes before may hold the name, too, and answers.
pub(super) fn warn_if_hidden(stores: &Stores, name: &SecretName, store: &str, context: &Context) {
    if let Ok(Some(other)) = stores.answering(&key(name, context))
        && other != store
    {
        warn(&format!(
            "the {other} store holds {name} too, and comes first: its value is the one that is used"
        ));
    }
}

fn prompt(name: &SecretName) -> Result<Secret, Failure> {
    let typed = crate::sys::prompt::hidden(&format!("Value of {name} (not shown): "));
    let typed = typed.map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(Secret::new(typed.as_bytes().to_vec()))
}

fn read_file(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let file = files::open(path)
        .map_err(|error| Failure::new(Exit::Failure, format!("{shown} cannot be read: {error}")))?;
    read_value(file, &shown.to_string())
}

/// Reads a value to its end, less one final newline.
fn read_value(from: impl Read, source: &str) -> Result<Secret, Failure> {
    // Reserved in full, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_VALUE + 4));
    from.take(LARGEST_VALUE as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(Exit::Failure, format!("{source} cannot be read: {error}")))?;
    let value = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(&bytes);
    if value.len() > LARGEST_VALUE {
        return Err(Failure::new(Exit::Usage, format!("what {source} holds is larger than 1 MiB")));
    }
    Ok(Secret::new(value.to_vec()))
}

fn check_placeholder(placeholder: &str, value: &Secret) -> Result<(), Failure> {
    let bad = |what| Err(Failure::new(Exit::Usage, what));
    if placeholder.len() < SHORTEST_PLACEHOLDER || !placeholder.bytes().all(|b| b.is_ascii_graphic()) {
        return bad("a placeholder has at least 8 characters, all of them visible ASCII");
    }
    let holds = |long: &[u8], short: &[u8]| long.windows(short.len()).any(|window| window == short);
    if holds(placeholder.as_bytes(), value.expose()) || holds(value.expose(), placeholder.as_bytes()) {
        return bad("the placeholder and the value must not hold one another: agents see the placeholder");
    }
    Ok(())
}

/// Warns of a value that also stands in answers by chance, where redacting it would mangle them.
pub(super) fn warn_if_ordinary(name: &SecretName, value: &Secret) {
    if let Some(what) = ordinary(value.expose()) {
        warn(&format!(
            "{name} {what}: such text also stands in answers by chance, where redacting it would mangle them"
        ));
    }
}

fn ordinary(value: &[u8]) -> Option<String> {
    if value.len() < SHORT {
        return Some(format!("is shorter than {SHORT} bytes"));
    }
    let all = |of: fn(&u8) -> bool| value.iter().all(of);
    let repeated = value.windows(2).all(|pair| pair.first() == pair.last());
    let plain = value.len() < PLAIN
        && (all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase) || all(u8::is_ascii_digit));
    if repeated || plain {
        return Some("is one plain word or number".to_owned());
    }
    COMMON
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
    fn one_final_newline_is_not_part_of_a_value() {
        assert_eq!(value(b"token\n"), b"token");
        assert_eq!(value(b"token\r\n"), b"token");
        assert_eq!(value(b" to ken \n\n"), b" to ken \n");
        assert_eq!(value(&[0, 255, 10, 0]), [0, 255, 10, 0]);
    }

    #[test]
    fn a_value_of_a_mebibyte_is_the_largest() {
        assert_eq!(value(&vec![b'x'; LARGEST_VALUE]).len(), LARGEST_VALUE);
        let larger = read_value(&*vec![b'x'; LARGEST_VALUE + 1], "standard input");
        assert_eq!(larger.err().unwrap().exit(), Exit::Usage);
    }

    #[test]
    fn a_placeholder_is_plain_long_enough_and_gives_nothing_away() {
        let value = Secret::new(b"sk-proj-real".to_vec());
        assert!(check_placeholder("sk-proj-0000", &value).is_ok());
        for bad in ["short", "sk-proj 0000", "sk-proj-\u{e9}\u{e9}", "sk-proj-", "xx-sk-proj-real"] {
            assert!(check_placeholder(bad, &value).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_that_stand_anywhere_are_warned_of_and_keys_are_not() {
        for value in [
            "1234567",
            "password",
            "LOCALHOST",
            "12345678",
            "00000000000000000000",
            "Password1",
            "your-api-key",
        ] {
            assert!(ordinary(value.as_bytes()).is_some(), "{value}");
        }
        for value in [
            "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
            "correct horse battery",
            "Tr0ub4dor&3",
            "abcdefghijklmnopqrst",
        ] {
            assert!(ordinary(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn nothing_prints_what_was_typed_behind_a_name() {
        let typed = Args { name: "KEY=s3cret-value".into(), from_file: None, placeholder: None };
        assert!(!format!("{typed:?}").contains("s3cret"));
    }
}
