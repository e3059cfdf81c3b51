//! `agentsecrets trust`: manages pins, which reserve secrets for trusted programs. The manual's page on trust
//! describes pins.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use serde::Serialize;

use crate::audit::visible;
use crate::authz::registry;
use crate::authz::trust::interpreter::{kind, runs_other_programs};
use crate::authz::trust::package::{owner, vouch};
use crate::authz::trust::pins::{Pin, PinnedFile, Pins, short};
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json, warn};
use crate::types::failure::{Exit, Failure};
use crate::types::name::SecretName;

/// Manage which programs may use which secrets
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
    /// Trust a program by path and SHA-256
    #[command(after_help = "Examples:
  agentsecrets trust add /usr/local/bin/claude --secrets ANTHROPIC_API_KEY
  agentsecrets trust add /usr/bin/python3 --secrets DEPLOY_KEY --session

From then on only programs that are trusted for a named secret may use it. The content of an interpreter
proves little, since its script decides what it does: its pin is valid only with --session, --cgroup or
--script.")]
    Add(Add),
    /// List trusted programs, and whether they are unchanged
    #[command(after_help = "Example: agentsecrets trust list --json")]
    List,
    /// Remove a program from the trusted ones
    #[command(after_help = "Example: agentsecrets trust remove /usr/local/bin/claude")]
    Remove {
        /// Path of the program
        #[arg(value_name = "PATH")]
        program: PathBuf,
        /// Remove only its pin for this script
        #[arg(long, value_name = "FILE")]
        script: Option<PathBuf>,
    },
    /// Trust the current content of a changed program
    #[command(after_help = "Examples:
  agentsecrets trust update /usr/local/bin/claude
  agentsecrets trust update --from-package

With --from-package only files that dpkg or rpm installed are trusted; without a PATH this applies to
every changed program. dpkg stores only an MD5 of each file, so only root may be able to write the file.")]
    Update {
        /// Path of the program
        #[arg(value_name = "PATH", required_unless_present = "from_package")]
        program: Option<PathBuf>,
        /// Trust it only if an installed package contains exactly this file
        #[arg(long)]
        from_package: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Path of the program, or a name that is looked up in PATH
    #[arg(value_name = "PATH")]
    program: PathBuf,
    /// Secrets that it may use; other programs need a pin for them too
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    secrets: Vec<SecretName>,
    /// Only while its arguments name this script, and the script is unchanged
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Only in cgroups that match this pattern, such as '/agents.slice/**'
    #[arg(long, value_name = "GLOB")]
    cgroup: Option<String>,
    /// Only inside a session, such as that of `agentsecrets run`
    #[arg(long)]
    session: bool,
    /// Trust it only if an installed package contains exactly this file
    #[arg(long)]
    from_package: bool,
}

impl Args {
    /// The named programs and scripts, each with its absolute path for the caller.
    #[cfg(target_os = "linux")]
    pub(super) fn named_files(&self) -> Vec<(PathBuf, PathBuf)> {
        let (program, script) = match &self.verb {
            Verb::Add(add) => (Some(&add.program), add.script.as_ref()),
            Verb::Remove { program, script } => (Some(program), script.as_ref()),
            Verb::Update { program, .. } => (program.as_ref(), None),
            Verb::List => (None, None),
        };
        let program = program.map(|program| (program.clone(), find_program(program)));
        let named = program.into_iter().chain(script.map(|script| (script.clone(), script.clone())));
        named.filter_map(|(named, place)| Some((named, std::path::absolute(place).ok()?))).collect()
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Add(args) => add(args, context),
        Verb::List => list(context),
        Verb::Remove { program, script } => remove(&program, script.as_deref(), context),
        Verb::Update { program, from_package } => update(program.as_deref(), from_package, context),
    }
}

fn add(args: Add, context: &Context) -> Result<ExitCode, Failure> {
    let program = pin_file(&find_program(&args.program))?;
    let path = program.path.clone();
    let script = args.script.as_deref().map(pin_file).transpose()?;
    let voucher = if args.from_package { Some(package_voucher(&path)?) } else { None };
    if let Some(Err(error)) = args.cgroup.as_deref().map(crate::policy::parse_glob) {
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
    warn_if_weak(&pin);
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
    eprintln!("trusted {} as {}{what}{by}", visible_path(&path), short(&digest));
    if !secrets.is_empty() {
        eprintln!("from now on only programs that are trusted for it may use {}", joined_names(&secrets));
    }
    Ok(ExitCode::SUCCESS)
}

/// Warns about a pin that proves little.
fn warn_if_weak(pin: &Pin) {
    let path = visible_path(&pin.program.path);
    match &pin.interpreter {
        Some(kind) if pin.is_unbound() => warn(&format!(
            "{path} is an interpreter ({kind}): its content does not show what it does, so this pin is not valid \
             yet; add --session or --cgroup GLOB, which limit who runs it, or --script FILE"
        )),
        Some(kind) if pin.cgroup.is_none() && !pin.session => warn(&format!(
            "{path} ({kind}) itself reports which script it runs, and anyone who may start it can report the same; \
             add --session or --cgroup GLOB, which limit who starts it"
        )),
        None if pin.script.is_some() => {
            warn(&format!("{path} is not a known interpreter: its first argument must name the script"));
        }
        None if runs_other_programs(&pin.program.path) => warn(&format!(
            "{path} does what its arguments say: anyone who may start it can use its secrets; add \
             --session or --cgroup GLOB, which limit who starts it"
        )),
        _ => {}
    }
}

/// A pin as `trust list` shows it.
#[derive(Serialize)]
struct PinRow<'a> {
    path: &'a Path,
    sha256: &'a str,
    size: u64,
    modified: String,
    secrets: &'a BTreeSet<SecretName>,
    script: Option<&'a PinnedFile>,
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
    let all: Vec<PinRow<'_>> = pins.all().iter().map(PinRow::of).collect();
    if context.json {
        return print_json(&all);
    }
    if all.is_empty() {
        eprintln!("no program is trusted: agentsecrets trust add PATH --secrets K");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |pin: &PinRow<'_>| {
        let mut bounds = Vec::new();
        bounds.extend(pin.script.map(|script| format!("script {}", visible_path(&script.path))));
        bounds.extend(pin.cgroup.map(|cgroup| format!("cgroup {}", visible(cgroup))));
        bounds.extend(pin.session.then(|| "session".to_owned()));
        let secrets = if pin.secrets.is_empty() { "any".to_owned() } else { joined_names(pin.secrets) };
        [
            visible_path(pin.path),
            short(pin.sha256).to_owned(),
            secrets,
            bounds.join(", "),
            pin.state.to_owned(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    print_bytes(table(["Program", "SHA-256", "Secrets", "Bounds", "State"], &rows).as_bytes())?;
    for why in all.iter().filter_map(|pin| pin.why.as_deref()) {
        eprintln!("{why}");
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> PinRow<'a> {
    fn of(pin: &'a Pin) -> Self {
        let (state, why) = pin_state(pin);
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

/// The state of a pin, and its problem with a fix.
pub(super) fn pin_state(pin: &Pin) -> (&'static str, Option<String>) {
    let program = visible_path(&pin.program.path);
    for file in pin.files() {
        let path = visible_path(&file.path);
        match PinnedFile::now(&file.path) {
            Err(error) => return ("missing", Some(format!("{path} cannot be read: {error}"))),
            // It was replaced by a link.
            Ok(now) if now.path != file.path => {
                return ("changed", Some(format!("{path} is {}", link_warning(&file.path, &now.path))));
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
        let why = format!(
            "{program} is an interpreter: its pin is not valid without --session, --cgroup or --script"
        );
        return ("unbound", Some(why));
    }
    ("as pinned", None)
}

fn remove(program: &Path, script: Option<&Path>, context: &Context) -> Result<ExitCode, Failure> {
    let found = find_program(program);
    let (program, removed) = change_pins(context, |pins| {
        let (program, removed) = (pinned_path(&found, pins), pins.all().to_vec());
        let script = script.map(|script| pinned_path(script, pins));
        if pins.remove(&program, script.as_deref()) == 0 {
            return Err(not_trusted(&program));
        }
        let removed = removed.into_iter().filter(|pin| !pins.all().contains(pin));
        let secrets: BTreeSet<SecretName> = removed.flat_map(|pin| pin.secrets).collect();
        record(context, "trust remove", &program, &secrets)?;
        let reserved: BTreeSet<SecretName> =
            pins.all().iter().flat_map(|pin| pin.secrets.iter().cloned()).collect();
        Ok((program, secrets.difference(&reserved).cloned().collect::<BTreeSet<_>>()))
    })?;
    eprintln!("{} is no longer trusted", visible_path(&program));
    if !removed.is_empty() {
        warn(&format!(
            "no pin names {} any more: programs without a pin may use it again",
            joined_names(&removed)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn update(program: Option<&Path>, from_package: bool, context: &Context) -> Result<ExitCode, Failure> {
    let found = program.map(find_program);
    let mut changes = Vec::new();
    let skipped = change_pins(context, |pins| {
        let program = found.as_deref().map(|found| pinned_path(found, pins));
        let is_meant = |pin: &Pin| program.as_ref().is_none_or(|program| pin.program.path == *program);
        if let Some(program) = &program
            && !pins.all().iter().any(is_meant)
        {
            return Err(not_trusted(program));
        }
        let (mut skipped, mut renewals) = (0, Vec::new());
        for pin in pins.all_mut().iter_mut().filter(|pin| is_meant(pin)) {
            match updated_pin(pin, from_package) {
                Ok(Some(new)) => renewals.push((pin, new)),
                Ok(None) => {}
                // Programs without a package keep their old pin and are refused.
                Err(failure) if program.is_none() => {
                    warn(failure.message());
                    skipped += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
        for (_, new) in &renewals {
            record(context, "trust update", &new.program.path, &new.secrets)?;
        }
        for (pin, new) in renewals {
            if new.program != pin.program {
                warn_if_weak(&new);
            }
            changes.push(describe_change(pin, &new));
            *pin = new;
        }
        Ok(skipped)
    })?;
    if changes.is_empty() && skipped == 0 {
        eprintln!("nothing changed");
    }
    for change in changes {
        eprintln!("{change}");
    }
    Ok(if skipped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `pin` with the current files, if they have changed.
fn updated_pin(pin: &Pin, from_package: bool) -> Result<Option<Pin>, Failure> {
    let mut new = pin.clone();
    new.program = pin_file(&pin.program.path)?;
    if let Some(script) = &mut new.script {
        // A package contains the program, not the script.
        *script = if from_package { script.clone() } else { pin_file(&script.path)? };
    }
    if let Some((before, now)) = pin.files().zip(new.files()).find(|(before, now)| before.path != now.path) {
        let what =
            format!("{} is {}", visible_path(&before.path), link_warning(&pin.program.path, &now.path));
        return Err(Failure::new(Exit::Failure, what));
    }
    if new.files().eq(pin.files()) {
        return Ok(None);
    }
    if new.program != pin.program {
        let path = &new.program.path;
        new.package = if from_package { Some(package_voucher(path)?) } else { None };
        // The new content may be an interpreter.
        new.interpreter = kind(path, owner(path).as_deref());
    }
    new.since = jiff::Timestamp::now();
    Ok(Some(new))
}

fn describe_change(before: &Pin, now: &Pin) -> String {
    let files = before.files().zip(now.files()).filter(|(before, now)| before != now);
    let files = files.map(|(before, now)| {
        let (was, is) = (short(&before.sha256), short(&now.sha256));
        format!("trusted {} as {is} (it was trusted as {was})", visible_path(&now.path))
    });
    let by = now.package.as_ref().filter(|_| before.program != now.program);
    let by = by.map_or_else(String::new, |by| format!("; {by} vouches for it"));
    format!("{}{by}", files.collect::<Vec<_>>().join("; "))
}

/// The message about a pinned file that is now a link, whose target is another program.
fn link_warning(program: &Path, to: &Path) -> String {
    let (program, to) = (visible_path(program), visible_path(to));
    format!(
        "now a link to {to}; run agentsecrets trust remove {program}, and trust add for the right program"
    )
}

/// The package that contains the file at `path`, for display.
fn package_voucher(path: &Path) -> Result<String, Failure> {
    let voucher = vouch(path).map_err(|error| {
        Failure::new(Exit::Denied, format!("no package vouches for {}: {error}", visible_path(path)))
            .hint(format!("if you trust the file anyway: agentsecrets trust add {}", visible_path(path)))
    })?;
    Ok(format!("{} {} ({})", voucher.package, voucher.version, voucher.how))
}

/// The current content of the file at `path`.
fn pin_file(path: &Path) -> Result<PinnedFile, Failure> {
    PinnedFile::now(path).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
        let failure = Failure::new(exit, format!("{} cannot be read: {error}", visible_path(path)));
        match error.kind() {
            ErrorKind::PermissionDenied => failure.hint(
                "the process that checks pins must be able to read the program: on a strict machine that is the \
                 daemon's user, so install it outside of a private home, such as in /usr/local/bin",
            ),
            _ => failure,
        }
    })
}

/// The path of `program`: a name without a slash is looked up in `PATH`.
fn find_program(program: &Path) -> PathBuf {
    if program.components().count() != 1 || program.exists() {
        return program.to_path_buf();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| program.to_path_buf())
}

/// The canonical path of a file; a missing one has only an absolute path.
fn canonical_path(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// The path under which the file at `path` is pinned. A pinned file that is now a link means the link, not
/// its target.
fn pinned_path(path: &Path, pins: &Pins) -> PathBuf {
    let there = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = there.parent().and_then(|folder| folder.canonicalize().ok());
    let beside = folder.zip(there.file_name()).map(|(folder, name)| folder.join(name));
    let is_pinned = |path: &PathBuf| pins.all().iter().flat_map(Pin::files).any(|file| file.path == *path);
    [Some(there), beside].into_iter().flatten().find(is_pinned).unwrap_or_else(|| canonical_path(path))
}

fn not_trusted(program: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("{} is not trusted", visible_path(program)))
        .hint("agentsecrets trust list")
}

/// Records the change before it is made.
fn record(
    context: &Context,
    act: &str,
    program: &Path,
    secrets: &BTreeSet<SecretName>,
) -> Result<(), Failure> {
    let secrets: Vec<SecretName> = secrets.iter().cloned().collect();
    crate::cli::records::record_act(
        context,
        act,
        None,
        &secrets,
        vec![program.to_string_lossy().into_owned()],
    )
}

fn visible_path(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn joined_names(secrets: &BTreeSet<SecretName>) -> String {
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
    fn program_that_became_interpreter_is_unbound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        std::fs::copy("/usr/bin/sort", &path).unwrap();
        let pin = Pin {
            program: pin_file(&path).unwrap(),
            secrets: BTreeSet::new(),
            script: None,
            cgroup: None,
            session: false,
            interpreter: None,
            package: None,
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(updated_pin(&pin, false).unwrap(), None);
        std::fs::copy("/usr/bin/perl", &path).unwrap();
        let new = updated_pin(&pin, false).unwrap().unwrap();
        assert!(new.is_unbound() && new.interpreter.as_deref() == Some("perl"), "{new:?}");
    }
}
