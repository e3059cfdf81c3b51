//! `agentsecrets trust`: which programs may spend which secrets. What a pin means is in the manual's page on
//! trust.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use serde::Serialize;

use super::secrets::{json, show, warn};
use super::table::table;
use super::{Context, Exit, Failure};
use crate::audit::visible;
use crate::authz::registry;
use crate::authz::trust::interpreter::{kind, obliges};
use crate::authz::trust::package::{owner, vouch};
use crate::authz::trust::pins::{Pin, Pinned, Pins, short};
use crate::types::name::SecretName;

/// Say which programs may spend which secrets
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets trust add /usr/local/bin/claude --secrets ANTHROPIC_API_KEY
  agentsecrets trust add /usr/bin/python3 --script ~/agents/deploy.py --session
  agentsecrets trust update --from-package")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Trust a program as it is now: its path and its content
    #[command(after_help = "Examples:
  agentsecrets trust add /usr/local/bin/claude --secrets ANTHROPIC_API_KEY
  agentsecrets trust add /usr/bin/python3 --secrets DEPLOY_KEY --session

A secret that is named here is from then on spent by programs that are trusted for it alone. An
interpreter does what its script says, so that its content proves little: its pin holds only with
--session, --cgroup or --script beside it.")]
    Add(Add),
    /// List what is trusted, and whether it is as it was
    #[command(after_help = "Example: agentsecrets trust list --json")]
    List,
    /// Trust a program no longer
    #[command(after_help = "Example: agentsecrets trust remove /usr/local/bin/claude")]
    Remove {
        /// The program
        #[arg(value_name = "PATH")]
        program: PathBuf,
        /// Only its pin for this script
        #[arg(long, value_name = "FILE")]
        script: Option<PathBuf>,
    },
    /// Trust a program that changed as it is now
    #[command(after_help = "Examples:
  agentsecrets trust update /usr/local/bin/claude
  agentsecrets trust update --from-package

With --from-package only what dpkg or rpm says it brought is trusted; without a PATH that is every
program that changed. dpkg knows an MD5 of each file, so the file must be one that root alone can
have put there.")]
    Update {
        /// The program
        #[arg(value_name = "PATH", required_unless_present = "from_package")]
        program: Option<PathBuf>,
        /// Only if a package vouches for it
        #[arg(long)]
        from_package: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The program: a path, or a name that is looked up in PATH
    #[arg(value_name = "PATH")]
    program: PathBuf,
    /// The secrets that it may spend, and that no program spends without being trusted for them
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    secrets: Vec<SecretName>,
    /// Only while it says that it runs this script, and the script is as it is now
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Only in cgroups that this pattern matches, such as '/agents.slice/**'
    #[arg(long, value_name = "GLOB")]
    cgroup: Option<String>,
    /// Only inside a session, such as that of `agentsecrets run`
    #[arg(long)]
    session: bool,
    /// Only if a package vouches for it
    #[arg(long)]
    from_package: bool,
}

impl Args {
    /// The programs and scripts that are named, each with where it lies for who named it.
    #[cfg(target_os = "linux")]
    pub(super) fn places(&self) -> Vec<(PathBuf, PathBuf)> {
        let (program, script) = match &self.verb {
            Verb::Add(add) => (Some(&add.program), add.script.as_ref()),
            Verb::Remove { program, script } => (Some(program), script.as_ref()),
            Verb::Update { program, .. } => (program.as_ref(), None),
            Verb::List => (None, None),
        };
        let program = program.map(|program| (program.clone(), found(program)));
        let named = program.into_iter().chain(script.map(|script| (script.clone(), script.clone())));
        named.filter_map(|(named, place)| Some((named, std::path::absolute(place).ok()?))).collect()
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Add(args) => add(args, context),
        Verb::List => list(context),
        Verb::Remove { program, script } => remove(&program, script.as_deref(), context),
        Verb::Update { program, from_package } => update(program.as_deref(), from_package, context),
    }
}

fn add(args: Add, context: &Context) -> Result<ExitCode, Failure> {
    let program = pinned(&found(&args.program))?;
    let path = program.path.clone();
    let script = args.script.as_deref().map(pinned).transpose()?;
    let voucher = if args.from_package { Some(vouched(&path)?) } else { None };
    if let Some(Err(error)) = args.cgroup.as_deref().map(crate::policy::glob) {
        return Err(Failure::new(Exit::Usage, format!("--cgroup: {error}")));
    }
    let interpreter = kind(&path, owner(&path).as_deref());
    let pin = Pin {
        program,
        secrets: args.secrets.into_iter().collect(),
        script,
        cgroup: args.cgroup,
        session: args.session,
        interpreter,
        package: voucher.clone(),
        since: jiff::Timestamp::now(),
    };
    advise(&pin);
    let (digest, secrets) = (pin.program.sha256.clone(), pin.secrets.clone());
    record(context, "trust add", &path, &secrets)?;
    let before = change_pins(context, |pins| Ok(pins.add(pin)))?;
    let what = match &before {
        Some(before) if before.program.sha256 != digest => {
            format!(" (it was trusted as {})", short(&before.program.sha256))
        }
        Some(_) => " (its pin was there, and is replaced)".to_owned(),
        None => String::new(),
    };
    let by = voucher.map_or_else(String::new, |by| format!("; {by} vouches for it"));
    eprintln!("trusted {} as {}{what}{by}", shown(&path), short(&digest));
    if !secrets.is_empty() {
        eprintln!("{} spent by programs that are trusted for it alone, from now on", joined(&secrets));
    }
    Ok(ExitCode::SUCCESS)
}

/// What whoever trusts such a program should know.
fn advise(pin: &Pin) {
    let path = shown(&pin.program.path);
    match &pin.interpreter {
        Some(kind) if pin.is_unbound() => warn(&format!(
            "{path} is an interpreter ({kind}): its content says nothing of what it does, so this pin holds for \
             nothing yet; add --session or --cgroup GLOB, which bound who runs it, or --script FILE"
        )),
        Some(kind) if pin.cgroup.is_none() && !pin.session => warn(&format!(
            "which script {path} ({kind}) runs is its own say: whoever may start it may say the same; add --session \
             or --cgroup GLOB, which bound who starts it"
        )),
        None if pin.script.is_some() => {
            warn(&format!("{path} is not known for an interpreter: its first argument must name the script"));
        }
        None if obliges(&pin.program.path) => warn(&format!(
            "{path} does what its arguments say: whoever may start it has it spend what it is trusted for; add \
             --session or --cgroup GLOB, which bound who starts it"
        )),
        _ => {}
    }
}

/// A pin as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a Path,
    sha256: &'a str,
    size: u64,
    modified: String,
    secrets: &'a BTreeSet<SecretName>,
    script: Option<&'a Pinned>,
    cgroup: Option<&'a str>,
    session: bool,
    interpreter: Option<&'a str>,
    package: Option<&'a str>,
    since: String,
    state: &'static str,
    why: Option<String>,
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let pins: Pins = registry::read(&context.home.trust())?;
    let all: Vec<Shown<'_>> = pins.all().iter().map(Shown::of).collect();
    if context.json {
        return json(&all);
    }
    if all.is_empty() {
        eprintln!("no program is trusted: agentsecrets trust add PATH --secrets K");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |pin: &Shown<'_>| {
        let mut bounds = Vec::new();
        bounds.extend(pin.script.map(|script| format!("script {}", shown(&script.path))));
        bounds.extend(pin.cgroup.map(|cgroup| format!("cgroup {}", visible(cgroup))));
        bounds.extend(pin.session.then(|| "session".to_owned()));
        let secrets = if pin.secrets.is_empty() { "any".to_owned() } else { joined(pin.secrets) };
        [shown(pin.path), short(pin.sha256).to_owned(), secrets, bounds.join(", "), pin.state.to_owned()]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    show(table(["Program", "SHA-256", "Secrets", "Bounds", "State"], &rows).as_bytes())?;
    for why in all.iter().filter_map(|pin| pin.why.as_deref()) {
        eprintln!("{why}");
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Shown<'a> {
    fn of(pin: &'a Pin) -> Self {
        let (state, why) = state(pin);
        let program = &pin.program;
        Self {
            path: &program.path,
            sha256: &program.sha256,
            size: program.size,
            modified: program.modified.to_string(),
            secrets: &pin.secrets,
            script: pin.script.as_ref(),
            cgroup: pin.cgroup.as_deref(),
            session: pin.session,
            interpreter: pin.interpreter.as_deref(),
            package: pin.package.as_deref(),
            since: pin.since.to_string(),
            state,
            why,
        }
    }
}

/// How a pin stands, and what to do about it.
pub(super) fn state(pin: &Pin) -> (&'static str, Option<String>) {
    let program = shown(&pin.program.path);
    for file in pin.files() {
        let path = shown(&file.path);
        match Pinned::now(&file.path) {
            Err(error) => return ("missing", Some(format!("{path} cannot be read: {error}"))),
            // A link took its place.
            Ok(now) if now.path != file.path => {
                return ("changed", Some(format!("{path} is {}", a_link(&file.path, &now.path))));
            }
            Ok(now) if now.sha256 != file.sha256 => {
                let changed = file.changed_to(&now.sha256);
                let fix = format!("agentsecrets trust update {program}");
                return ("changed", Some(format!("{path} is not what was trusted: {changed}; {fix}")));
            }
            Ok(_) => {}
        }
    }
    if pin.is_unbound() {
        let why = format!("{program} is an interpreter: its pin holds for nothing without a bound");
        return ("unbound", Some(why));
    }
    ("as pinned", None)
}

fn remove(program: &Path, script: Option<&Path>, context: &Context) -> Result<ExitCode, Failure> {
    let found = found(program);
    let (program, gone) = change_pins(context, |pins| {
        let (program, gone) = (meant(&found, pins), pins.all().to_vec());
        let script = script.map(|script| meant(script, pins));
        if pins.remove(&program, script.as_deref()) == 0 {
            return Err(unknown(&program));
        }
        let gone = gone.into_iter().filter(|pin| !pins.all().contains(pin));
        let secrets: BTreeSet<SecretName> = gone.flat_map(|pin| pin.secrets).collect();
        record(context, "trust remove", &program, &secrets)?;
        let reserved: BTreeSet<SecretName> =
            pins.all().iter().flat_map(|pin| pin.secrets.iter().cloned()).collect();
        Ok((program, secrets.difference(&reserved).cloned().collect::<BTreeSet<_>>()))
    })?;
    eprintln!("{} is trusted no longer", shown(&program));
    if !gone.is_empty() {
        warn(&format!("no pin names {} any more: programs without a pin may spend it again", joined(&gone)));
    }
    Ok(ExitCode::SUCCESS)
}

fn update(program: Option<&Path>, from_package: bool, context: &Context) -> Result<ExitCode, Failure> {
    let found = program.map(found);
    let mut told = Vec::new();
    let kept = change_pins(context, |pins| {
        let program = found.as_deref().map(|found| meant(found, pins));
        let is_meant = |pin: &Pin| program.as_ref().is_none_or(|program| pin.program.path == *program);
        if let Some(program) = &program
            && !pins.all().iter().any(is_meant)
        {
            return Err(unknown(program));
        }
        let (mut kept, mut renewals) = (0, Vec::new());
        for pin in pins.all_mut().iter_mut().filter(|pin| is_meant(pin)) {
            match renewed(pin, from_package) {
                Ok(Some(new)) => renewals.push((pin, new)),
                Ok(None) => {}
                // Of all, those that no package vouches for stay as they are, and are refused.
                Err(failure) if program.is_none() => {
                    warn(failure.what());
                    kept += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
        for (_, new) in &renewals {
            record(context, "trust update", &new.program.path, &new.secrets)?;
        }
        for (pin, new) in renewals {
            if new.program != pin.program {
                advise(&new);
            }
            told.push(change(pin, &new));
            *pin = new;
        }
        Ok(kept)
    })?;
    if told.is_empty() && kept == 0 {
        eprintln!("nothing changed: what is trusted is as it was");
    }
    for told in told {
        eprintln!("{told}");
    }
    Ok(if kept == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `pin` for its files as they are now, if they are not what they were.
fn renewed(pin: &Pin, from_package: bool) -> Result<Option<Pin>, Failure> {
    let mut new = pin.clone();
    new.program = pinned(&pin.program.path)?;
    if let Some(script) = &mut new.script {
        // A package vouches for the program, and for nothing that it runs.
        *script = if from_package { script.clone() } else { pinned(&script.path)? };
    }
    if let Some((before, now)) = pin.files().zip(new.files()).find(|(before, now)| before.path != now.path) {
        let what = format!("{} is {}", shown(&before.path), a_link(&pin.program.path, &now.path));
        return Err(Failure::new(Exit::Failure, what));
    }
    if new.files().eq(pin.files()) {
        return Ok(None);
    }
    if new.program != pin.program {
        let path = &new.program.path;
        new.package = if from_package { Some(vouched(path)?) } else { None };
        // What was none may have become an interpreter.
        new.interpreter = kind(path, owner(path).as_deref());
    }
    new.since = jiff::Timestamp::now();
    Ok(Some(new))
}

fn change(before: &Pin, now: &Pin) -> String {
    let files = before.files().zip(now.files()).filter(|(before, now)| before != now);
    let files = files.map(|(before, now)| {
        let (was, is) = (short(&before.sha256), short(&now.sha256));
        format!("trusted {} as {is} (it was trusted as {was})", shown(&now.path))
    });
    let by = now.package.as_ref().filter(|_| before.program != now.program);
    let by = by.map_or_else(String::new, |by| format!("; {by} vouches for it"));
    format!("{}{by}", files.collect::<Vec<_>>().join("; "))
}

/// What is told of a file that is a link now: what it leads to is another program than the pinned one.
fn a_link(program: &Path, to: &Path) -> String {
    let (program, to) = (shown(program), shown(to));
    format!("a link to {to} now; agentsecrets trust remove {program}, and trust add what is meant")
}

/// The package that vouches for the file at `path`, as it is told.
fn vouched(path: &Path) -> Result<String, Failure> {
    let voucher = vouch(path).map_err(|error| {
        Failure::new(Exit::Denied, format!("nobody vouches for {}: {error}", shown(path))).hint(format!(
            "if you know what it is, without --from-package: agentsecrets trust add {}",
            shown(path)
        ))
    })?;
    Ok(format!("{} {} ({})", voucher.package, voucher.version, voucher.how))
}

/// The file at `path` as it is now.
fn pinned(path: &Path) -> Result<Pinned, Failure> {
    Pinned::now(path).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
        let failure = Failure::new(exit, format!("{} cannot be read: {error}", shown(path)));
        match error.kind() {
            ErrorKind::PermissionDenied => failure.hint(
                "a program is known again where whoever keeps the pins may look at it: on a strict machine that is \
                 the daemon's user, so put it outside of a closed home, such as into /usr/local/bin",
            ),
            _ => failure,
        }
    })
}

/// Where `program` is: a name without a slash is looked up as a shell would.
fn found(program: &Path) -> PathBuf {
    if program.components().count() != 1 || program.exists() {
        return program.to_path_buf();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| program.to_path_buf())
}

/// The path under which a file is pinned; one that is gone has no links to follow.
fn named(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// The path under which the file at `path` is pinned; one that is a link now is meant, not where that leads.
fn meant(path: &Path, pins: &Pins) -> PathBuf {
    let there = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = there.parent().and_then(|folder| folder.canonicalize().ok());
    let beside = folder.zip(there.file_name()).map(|(folder, name)| folder.join(name));
    let is_pinned = |path: &PathBuf| pins.all().iter().flat_map(Pin::files).any(|file| file.path == *path);
    [Some(there), beside].into_iter().flatten().find(is_pinned).unwrap_or_else(|| named(path))
}

fn unknown(program: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("{} is not trusted", shown(program))).hint("agentsecrets trust list")
}

/// Leaves a record of what is about to be changed, without which nothing is.
fn record(
    context: &Context,
    act: &str,
    program: &Path,
    secrets: &BTreeSet<SecretName>,
) -> Result<(), Failure> {
    let secrets: Vec<SecretName> = secrets.iter().cloned().collect();
    crate::cli::admin_record::record(
        context,
        act,
        None,
        &secrets,
        vec![program.to_string_lossy().into_owned()],
    )
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn joined(secrets: &BTreeSet<SecretName>) -> String {
    secrets.iter().map(SecretName::as_str).collect::<Vec<_>>().join(", ")
}

fn change_pins<T>(
    context: &Context,
    change: impl FnOnce(&mut Pins) -> Result<T, Failure>,
) -> Result<T, Failure> {
    registry::change(&context.home.trust(), change)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_became_an_interpreter_is_renewed_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        std::fs::copy("/usr/bin/sort", &path).unwrap();
        let pin = Pin {
            program: pinned(&path).unwrap(),
            secrets: BTreeSet::new(),
            script: None,
            cgroup: None,
            session: false,
            interpreter: None,
            package: None,
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(renewed(&pin, false).unwrap(), None);
        std::fs::copy("/usr/bin/perl", &path).unwrap();
        let new = renewed(&pin, false).unwrap().unwrap();
        assert!(new.is_unbound() && new.interpreter.as_deref() == Some("perl"), "{new:?}");
    }
}
