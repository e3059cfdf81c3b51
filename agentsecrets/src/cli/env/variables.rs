//! Selects the variables of the command: stored secrets under their own names, or the variables of a .env
//! file that refers to secrets.

use std::ffi::OsStr;
use std::path::Path;

use zeroize::Zeroizing;

use super::args::Args;
use crate::cli::context::Context;
use crate::cli::secrets::dotenv;
use crate::cli::stores::open_store;
use crate::inject::placeholder::Placeholders;
use crate::store::{Key, Store};
use crate::sys;
use crate::sys::files;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The kernel's limit for one variable, with its name and the final zero.
const MAX_VARIABLE_BYTES: usize = 128 * 1024;

/// Prefix of a value that is a reference to one secret.
const SECRET_URL_PREFIX: &str = "agentsecrets://";

/// One variable of the command.
pub(super) struct Variable {
    name: SecretName,
    value: Secret,
    /// The values of the secrets in it, unless the value is exactly one secret.
    parts: Vec<Secret>,
    /// The secrets in it.
    pub(super) secrets: Vec<SecretName>,
}

impl Variable {
    /// Name and value for `Command::envs`.
    pub(super) fn as_pair(&self) -> (&OsStr, &OsStr) {
        (OsStr::new(self.name.as_str()), sys::os_text(self.value.expose()).unwrap_or_default())
    }

    /// The secret values in it, which are masked.
    pub(super) fn into_values(self) -> Vec<Secret> {
        match (self.secrets.len(), self.parts.is_empty()) {
            (0, _) => Vec::new(),
            (_, true) => vec![self.value],
            (_, false) => self.parts,
        }
    }
}

/// The variables that `args` select from the person's stores.
pub(super) fn from_stores(args: &Args, context: &Context) -> Result<Vec<Variable>, Failure> {
    let store = open_store(context)?;
    let Context { project, environment, scope, .. } = context;
    let mut entries = store.list(project, environment)?;
    entries.retain(|entry| scope.restriction.allows_secret(&entry.name));
    let available: Vec<_> = entries.into_iter().map(|entry| (entry.name, entry.placeholder)).collect();
    let value = |name: &SecretName| {
        if !scope.restriction.allows_secret(name) {
            let what = format!("{} leaves {name} out of its `secrets`", scope.restriction.file);
            return Err(Failure::new(Exit::Denied, what));
        }
        let key = Key { project: project.clone(), environment: environment.clone(), name: name.clone() };
        store.get(&key)?.ok_or_else(|| {
            let what = format!("secret '{name}' not found in keychain ({project}/{environment})");
            Failure::new(Exit::NotFound, what).hint("agentsecrets secrets list")
        })
    };
    choose(args, &available, &value)
}

/// The variables that `args` select from the secrets `available`, whose values `value` looks up.
pub(super) fn choose(
    args: &Args,
    available: &[NamedSecret],
    value: SecretLookup<'_>,
) -> Result<Vec<Variable>, Failure> {
    let chosen = Selection { value, only: &args.only, available };
    let mut variables = match &args.env_file {
        Some(file) => chosen.read_env_file(file)?,
        None if args.only.is_empty() => chosen.by_name(available.iter().map(|(name, _)| name))?,
        None => Vec::new(),
    };
    let missing = args.only.iter().filter(|name| !variables.iter().any(|variable| variable.name == **name));
    let named = chosen.by_name(missing)?;
    variables.extend(named);
    for variable in &variables {
        check(variable)?;
    }
    Ok(variables)
}

/// A secret and its custom placeholder.
pub(super) type NamedSecret = (SecretName, Option<String>);
/// Looks up the value of a secret.
pub(super) type SecretLookup<'a> = &'a dyn Fn(&SecretName) -> Result<Secret, Failure>;

struct Selection<'a> {
    value: SecretLookup<'a>,
    only: &'a [SecretName],
    available: &'a [NamedSecret],
}

impl Selection<'_> {
    fn by_name<'n>(&self, names: impl Iterator<Item = &'n SecretName>) -> Result<Vec<Variable>, Failure> {
        let variable = |name: &SecretName| {
            let (value, secrets) = ((self.value)(name)?, vec![name.clone()]);
            Ok(Variable { name: name.clone(), value, parts: Vec::new(), secrets })
        };
        names.map(variable).collect()
    }

    fn read_env_file(&self, file: &Path) -> Result<Vec<Variable>, Failure> {
        let shown = file.display();
        let text = files::open(file).and_then(std::io::read_to_string).map(Zeroizing::new);
        let text = text.context_with_exit(Exit::OwnFailure, format!("{shown} cannot be read"))?;
        let lines = dotenv::parse(&text).context_with_exit(Exit::OwnFailure, &shown)?;
        let vocabulary = Placeholders::new(self.available.iter().cloned());
        let variable = |(name, text): (SecretName, Zeroizing<String>)| {
            let (value, parts, secrets) = self.fill(&text, &vocabulary).map_err(|(secret, failure)| {
                let what = format!("{shown}, variable {name}: {}", failure.message());
                let failure = Failure::new(failure.exit(), what);
                failure.hint(format!("to store it, run: agentsecrets secrets set {secret}"))
            })?;
            Ok(Variable { name, value, parts, secrets })
        };
        lines.into_iter().map(variable).collect()
    }

    /// Replaces the references in `text` by values; an error names the secret.
    #[allow(clippy::type_complexity, reason = "one caller, which takes it apart at once")]
    fn fill(
        &self,
        text: &str,
        vocabulary: &Placeholders,
    ) -> Result<(Secret, Vec<Secret>, Vec<SecretName>), (SecretName, Failure)> {
        let value = |name: &SecretName| self.permitted(name).map_err(|failure| (name.clone(), failure));
        if let Some(name) =
            text.strip_prefix(SECRET_URL_PREFIX).and_then(|name| name.parse::<SecretName>().ok())
        {
            return Ok((value(&name)?, Vec::new(), vec![name]));
        }
        let (mut parts, mut secrets, mut at) = (Vec::new(), Vec::new(), 0);
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut ranges = Vec::new();
        for mention in vocabulary.find_iter(text.as_bytes()) {
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

/// Fails if the system cannot pass the variable on.
fn check(variable: &Variable) -> Result<(), Failure> {
    let (name, value) = (&variable.name, variable.value.expose());
    if value.contains(&0) {
        let what = format!("{name} holds a zero byte, which an environment variable cannot contain");
        return Err(Failure::new(Exit::OwnFailure, what).hint("choose others with --only"));
    }
    if sys::os_text(value).is_none() {
        let what = format!("{name} is no UTF-8 text, which an environment variable must be here");
        return Err(Failure::new(Exit::OwnFailure, what).hint("choose others with --only"));
    }
    if name.as_str().len() + value.len() + 2 > MAX_VARIABLE_BYTES {
        let what = format!("{name} is larger than the 128 KiB that an environment variable can hold");
        return Err(Failure::new(Exit::OwnFailure, what).hint("choose others with --only"));
    }
    Ok(())
}
