//! Which variables a command is given: the stored secrets under their own names, or those of a .env file
//! that names secrets in the place of values.

use std::ffi::OsStr;
use std::path::Path;

use zeroize::Zeroizing;

use super::Args;
use crate::cli::secrets::{dotenv, open_store, store_failure};
use crate::cli::{Context, Exit, Failure};
use crate::inject::placeholder::Vocabulary;
use crate::store::{Key, Store};
use crate::sys;
use crate::sys::files;
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The longest variable that the kernel passes on, in bytes, with its name and a final zero.
const LONGEST: usize = 128 * 1024;

/// How a whole value may name a secret.
const URL: &str = "agentsecrets://";

/// One variable of the command.
pub(super) struct Variable {
    name: SecretName,
    value: Secret,
    /// The values of the secrets in it, where it is not just one.
    parts: Vec<Secret>,
    /// The secrets whose values are in it.
    pub(super) secrets: Vec<SecretName>,
}

impl Variable {
    /// Name and value, as the system takes them.
    pub(super) fn as_pair(&self) -> (&OsStr, &OsStr) {
        (OsStr::new(self.name.as_str()), sys::os_text(self.value.expose()).unwrap_or_default())
    }

    /// The values of secrets in it.
    pub(super) fn into_values(self) -> Vec<Secret> {
        match (self.secrets.len(), self.parts.is_empty()) {
            (0, _) => Vec::new(),
            (_, true) => vec![self.value],
            (_, false) => self.parts,
        }
    }
}

/// The variables that `args` choose from the person's stores.
pub(super) fn of(args: &Args, context: &Context) -> Result<Vec<Variable>, Failure> {
    let store = open_store(context)?;
    let Context { project, environment, scope, .. } = context;
    let mut entries = store.list(project, environment).map_err(store_failure)?;
    entries.retain(|entry| scope.narrow.leaves(&entry.name));
    let known: Vec<_> = entries.into_iter().map(|entry| (entry.name, entry.placeholder)).collect();
    let value = |name: &SecretName| {
        if !scope.narrow.leaves(name) {
            let what = format!("{} leaves {name} out of its `secrets`", scope.narrow.file);
            return Err(Failure::new(Exit::Denied, what));
        }
        let key = Key { project: project.clone(), environment: environment.clone(), name: name.clone() };
        store.get(&key).map_err(store_failure)?.ok_or_else(|| {
            let what = format!("secret '{name}' not found in keychain ({project}/{environment})");
            Failure::new(Exit::NotFound, what).hint("agentsecrets secrets list")
        })
    };
    choose(args, &known, &value)
}

/// The variables that `args` choose, where the secrets that are `known` have the values of `value`.
pub(super) fn choose(args: &Args, known: &[Known], value: ValueOf<'_>) -> Result<Vec<Variable>, Failure> {
    let chosen = Chosen { value, only: &args.only, known };
    let mut variables = match &args.env_file {
        Some(file) => chosen.of_file(file)?,
        None if args.only.is_empty() => chosen.under_their_names(known.iter().map(|(name, _)| name))?,
        None => Vec::new(),
    };
    let missing = args.only.iter().filter(|name| !variables.iter().any(|variable| variable.name == **name));
    let named = chosen.under_their_names(missing)?;
    variables.extend(named);
    for variable in &variables {
        check(variable)?;
    }
    Ok(variables)
}

/// A secret, and the placeholder of its own that it may have.
pub(super) type Known = (SecretName, Option<String>);
/// Where values come from.
pub(super) type ValueOf<'a> = &'a dyn Fn(&SecretName) -> Result<Secret, Failure>;

struct Chosen<'a> {
    value: ValueOf<'a>,
    only: &'a [SecretName],
    known: &'a [Known],
}

impl Chosen<'_> {
    fn under_their_names<'n>(
        &self,
        names: impl Iterator<Item = &'n SecretName>,
    ) -> Result<Vec<Variable>, Failure> {
        let variable = |name: &SecretName| {
            let (value, secrets) = ((self.value)(name)?, vec![name.clone()]);
            Ok(Variable { name: name.clone(), value, parts: Vec::new(), secrets })
        };
        names.map(variable).collect()
    }

    fn of_file(&self, file: &Path) -> Result<Vec<Variable>, Failure> {
        let shown = file.display();
        let text = files::open(file).and_then(std::io::read_to_string).map(Zeroizing::new);
        let text = text.map_err(|error| super::ours(&format!("{shown} cannot be read"), error))?;
        let lines = dotenv::parse(&text).map_err(|bad| super::ours(&shown.to_string(), bad))?;
        let vocabulary = Vocabulary::new(self.known.iter().cloned());
        let variable = |(name, text): (SecretName, Zeroizing<String>)| {
            let (value, parts, secrets) = self.fill(&text, &vocabulary).map_err(|(secret, failure)| {
                let what = format!("{shown}, variable {name}: {}", failure.what());
                let failure = Failure::new(failure.exit(), what);
                failure.hint(format!("to store it, run: agentsecrets secrets set {secret}"))
            })?;
            Ok(Variable { name, value, parts, secrets })
        };
        lines.into_iter().map(variable).collect()
    }

    /// `text` with the values of the secrets that it names; an error names the secret too.
    #[allow(clippy::type_complexity, reason = "one caller, which takes it apart at once")]
    fn fill(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
    ) -> Result<(Secret, Vec<Secret>, Vec<SecretName>), (SecretName, Failure)> {
        let value = |name: &SecretName| self.permitted(name).map_err(|failure| (name.clone(), failure));
        if let Some(name) = text.strip_prefix(URL).and_then(|name| name.parse::<SecretName>().ok()) {
            return Ok((value(&name)?, Vec::new(), vec![name]));
        }
        let (mut parts, mut secrets, mut at) = (Vec::new(), Vec::new(), 0);
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut ranges = Vec::new();
        for mention in vocabulary.mentions(text.as_bytes()) {
            parts.push(value(&mention.name)?);
            secrets.push(mention.name);
            ranges.push(mention.range);
        }
        for (range, part) in ranges.into_iter().zip(&parts) {
            pieces.push(text.as_bytes().get(at..range.start).unwrap_or_default());
            pieces.push(part.expose());
            at = range.end;
        }
        pieces.push(text.as_bytes().get(at..).unwrap_or_default());
        Ok((Secret::new(pieces.concat()), parts, secrets))
    }

    fn permitted(&self, name: &SecretName) -> Result<Secret, Failure> {
        if !self.only.is_empty() && !self.only.contains(name) {
            return Err(Failure::new(Exit::Usage, format!("it names '{name}', which --only leaves out")));
        }
        (self.value)(name)
    }
}

/// Whether the system can pass the variable on.
fn check(variable: &Variable) -> Result<(), Failure> {
    let (name, value) = (&variable.name, variable.value.expose());
    if value.contains(&0) {
        let what = format!("{name} holds a zero byte, which no environment variable can");
        return Err(Failure::new(Exit::Ours, what).hint("choose others with --only"));
    }
    if sys::os_text(value).is_none() {
        let what = format!("{name} is no UTF-8 text, which an environment variable must be here");
        return Err(Failure::new(Exit::Ours, what).hint("choose others with --only"));
    }
    if name.as_str().len() + value.len() + 2 > LONGEST {
        let what = format!("{name} is larger than the 128 KiB that an environment variable can hold");
        return Err(Failure::new(Exit::Ours, what).hint("choose others with --only"));
    }
    Ok(())
}
