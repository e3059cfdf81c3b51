//! What the flags mean: a request, and the secrets that are to be put into it.

use super::Args;
use crate::call::{Injection, Wanted};
use crate::cli::{Exit, Failure};

/// Reads `NAME=K`. A name may hold `=`, a secret's name cannot.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, key) = text.rsplit_once('=').ok_or("it is written as NAME=SECRET_NAME")?;
    Ok((name.to_owned(), key.to_owned()))
}

/// The secrets that `args` name.
pub(super) fn injections(args: &Args) -> Result<Vec<Injection>, Failure> {
    let mut found = Vec::new();
    let mut add = |flag: &str, kind: &str, about: Option<&str>, key: &str| {
        let injection = Injection::new(kind, about, key);
        found.push(injection.map_err(|why| Failure::new(Exit::Usage, format!("--{flag}: {why}")))?);
        Ok::<_, Failure>(())
    };
    if let Some(key) = &args.bearer {
        add("bearer", "bearer", None, key)?;
    }
    if let Some(key) = &args.basic {
        add("basic", "basic", None, key)?;
    }
    for (flag, kind, pairs) in [
        ("header", "header", &args.header),
        ("query", "query", &args.query),
        ("body-field", "body", &args.body_field),
        ("form-field", "form", &args.form_field),
    ] {
        for (about, key) in pairs {
            add(flag, kind, Some(about), key)?;
        }
    }
    Ok(found)
}

/// The request that `args` describe.
pub(super) fn wanted(args: &Args) -> Wanted {
    Wanted {
        url: args.url.clone(),
        method: args.method.clone(),
        headers: Vec::new(),
        body: args.body.clone(),
    }
}
