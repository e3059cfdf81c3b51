//! The person's door as the verbs see it: what each of them takes, and how a command line gets through.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use super::scope::project_file::ProjectFile;
use super::{Cli, Exit, Failure, Verb};
use crate::authz::trust::Trust;
use crate::authz::trust::pins::Pin;
use crate::identity::{Caller, Process};
use crate::privsep::authorizer::{self, Need, Start, Verbs};
use crate::privsep::client::{Passed, pass};
use crate::privsep::system_config::{Means, System};
use crate::sys;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project, SecretName};

/// What the daemon must know of the verbs.
pub(super) const VERBS: Verbs = Verbs { understand, is_trusted };

/// Passes the command line through the door, on a machine that is strict. `None`: it is done here.
pub(super) fn through(cli: &Cli) -> Result<Option<u8>, Failure> {
    if is_local(&cli.verb) {
        return Ok(None);
    }
    let Some(system) = System::find()? else { return Ok(None) };
    if nix::unistd::geteuid() == system.uid {
        return Ok(None);
    }
    let mut arguments = match &cli.verb {
        Verb::Mcp(args) if args.speaks() => in_a_run(args, &cli.global)?,
        _ => std::env::args_os().skip(1).collect(),
    };
    // The caller's choice, which is the same as a flag, and all that is taken of the caller's variables.
    let variable =
        |names: [&str; 2]| names.into_iter().filter_map(std::env::var_os).find(|it| !it.is_empty());
    if let Some(project) = variable(["AGENTSECRETS_PROJECT"; 2]).filter(|_| cli.global.project.is_none()) {
        arguments.splice(0..0, ["--project".into(), project]);
    }
    if let Some(environment) =
        variable(["AGENTSECRETS_ENV", "AS_ENV"]).filter(|_| cli.global.environment.is_none())
    {
        arguments.splice(0..0, ["--environment".into(), environment]);
    }
    let folder = std::env::current_dir().ok();
    let passed = Passed {
        arguments,
        files: files(&cli.verb),
        places: match &cli.verb {
            Verb::Trust(args) => args.places(),
            _ => Vec::new(),
        },
        project_file: folder.and_then(|folder| ProjectFile::locate(&folder)),
        starts_a_command: start(&cli.verb) != Start::Daemon
            || matches!(&cli.verb, Verb::Mcp(args) if args.speaks()),
        // Root is asked nothing.
        asked_by_polkit: system.presence == Means::Polkit
            && need(&cli.verb) == Need::Presence
            && !nix::unistd::geteuid().is_root(),
    };
    pass(passed).map(Some)
}

/// The command line by which what speaks for an agent is started as one: outside of `run` nothing proves for
/// longer than a moment which program started it, and a run takes no presence.
fn in_a_run(args: &super::mcp::Args, global: &super::Global) -> Result<Vec<OsString>, Failure> {
    let program = sys::own_program().map_err(|error| Failure::new(Exit::Ours, error))?;
    let mut line: Vec<OsString> = vec!["run".into()];
    line.extend(args.agent().into_iter().flat_map(|agent| ["--agent".into(), agent.as_str().into()]));
    line.extend(["--".into(), program.into()]);
    line.extend(std::env::args_os().skip(1));
    let chosen = [
        ("--project", global.project.as_ref().map(Project::as_str)),
        ("--environment", global.environment.as_ref().map(Environment::as_str)),
    ];
    let chosen = chosen.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?.into()]));
    Ok(chosen.flatten().chain(line).collect())
}

/// Whether a verb is never for the door: what is a service or a part of one, what is about the caller's own
/// files, or tells the caller's own.
fn is_local(verb: &Verb) -> bool {
    match verb {
        Verb::Daemon(_) | Verb::Interceptor(_) | Verb::Sidecar(_) | Verb::Health(_) | Verb::Kubernetes(_) => {
            true
        }
        Verb::Completions(_) | Verb::Whoami(_) => true,
        Verb::Policy(args) => args.is_about_a_file(),
        Verb::Mcp(args) => args.is_about_clients(),
        _ => false,
    }
}

/// What a verb takes. A verb that is new takes presence until somebody says why it does not.
pub(super) fn need(verb: &Verb) -> Need {
    match verb {
        local if is_local(local) => Need::Nothing,
        Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_) => Need::Nothing,
        Verb::Policy(args) => args.need(),
        // Which environment applies.
        Verb::Mcp(args) if args.asks_for_status() => Need::Nothing,
        // It gives an agent what policy gives it, and no more to anybody; a session is asked for by `match`.
        Verb::Run(_) => Need::Nothing,
        Verb::Interceptor(_) | Verb::Daemon(_) | Verb::Whoami(_) => Need::Nothing,
        Verb::Sidecar(_) | Verb::Health(_) | Verb::Kubernetes(_) => Need::Nothing,
        Verb::Approvals(_) | Verb::Approve(_) | Verb::Deny(_) => Need::Presence,
        Verb::Mcp(_) | Verb::Exec(_) | Verb::Trust(_) | Verb::Agent(_) | Verb::Session(_) => Need::Presence,
        Verb::Call(_)
        | Verb::Env(_)
        | Verb::Proxy(_)
        | Verb::Secrets(_)
        | Verb::Environment(_)
        | Verb::Project(_)
        | Verb::Workspace(_)
        | Verb::Audit(_)
        | Verb::Presence(_) => Need::Presence,
    }
}

/// As whom it is started.
fn start(verb: &Verb) -> Start {
    match verb {
        Verb::Run(_) => Start::Launcher,
        Verb::Env(_) => Start::Giver,
        _ => Start::Daemon,
    }
}

/// The caller's files that it reads.
fn files(verb: &Verb) -> Vec<PathBuf> {
    match verb {
        Verb::Secrets(args) => args.files(),
        Verb::Env(args) => args.files(),
        Verb::Policy(args) => args.files(),
        _ => Vec::new(),
    }
}

fn understand(arguments: &[OsString]) -> Result<authorizer::Verb, Failure> {
    let words = std::iter::once(OsString::from("agentsecrets")).chain(arguments.iter().cloned());
    let wrong = |error: clap::Error| Failure::new(Exit::Usage, error.render());
    let matches = Cli::command().try_get_matches_from(words).map_err(wrong)?;
    let mut named = Vec::new();
    let mut level = Some(&matches);
    while let Some((word, below)) = level.and_then(|matches| matches.subcommand()) {
        named.push(word);
        level = Some(below);
    }
    let words = named.join(" ");
    let cli = Cli::from_arg_matches(&matches).map_err(wrong)?;
    if is_local(&cli.verb) {
        return Err(Failure::new(Exit::Usage, format!("`{words}` is not for the door")));
    }
    if let Some((what, instead)) = not_offered(&words, &cli.verb) {
        return Err(Failure::new(Exit::Denied, what).hint(instead));
    }
    let secrets: Vec<SecretName> = match &cli.verb {
        Verb::Secrets(args) => args.names(),
        Verb::Call(args) => args.names(),
        Verb::Env(args) => args.names(),
        _ => Vec::new(),
    };
    let environment = cli.global.environment.clone().unwrap_or_default();
    Ok(authorizer::Verb { need: need(&cli.verb), start: start(&cli.verb), words, environment, secrets })
}

/// What is not offered through the door: why, and what is done instead.
fn not_offered(words: &str, verb: &Verb) -> Option<(&'static str, &'static str)> {
    match words {
        "secrets vault backup" | "secrets vault restore" => Some((
            "the vault of a strict machine and the key that opens it are the daemon's, and are kept together",
            "sudo cp -a /var/lib/agentsecrets/UID FOLDER, and back the same way",
        )),
        other if other.starts_with("secrets vault ") => Some((
            "the vault of a strict machine is opened by a key of the daemon's, while nobody is there",
            "your own passphrase at the door is changed by: agentsecrets presence set",
        )),
        _ if matches!(verb, Verb::Proxy(_)) && !["proxy logs", "proxy status"].contains(&words) => Some((
            "a strict machine has no explicit proxy: that knows the programs of its own user alone, who is the daemon's",
            "agentsecrets run -- COMMAND, which needs neither a proxy nor your presence",
        )),
        "audit export" if matches!(verb, Verb::Audit(args) if args.reaches_out()) => {
            Some(("the daemon writes no file of yours", "agentsecrets audit export > FILE"))
        }
        "audit stream" if matches!(verb, Verb::Audit(args) if args.reaches_out()) => Some((
            "the daemon sends your records nowhere, and writes no file of yours",
            "agentsecrets audit stream | COLLECTOR",
        )),
        _ if matches!(verb, Verb::Mcp(args) if args.speaks()) => Some((
            "what speaks for an agent is started as one on a strict machine",
            "agentsecrets run -- agentsecrets mcp serve",
        )),
        _ => None,
    }
}

/// Verbs by which a trusted program may spend what it is trusted for, and nothing else: `call` would fill any
/// placeholder that stands in what it sends.
const TRUSTED: &[&str] = &["env", "exec", "secrets get"];

/// Whether the person trusts the program of `process` with every secret that `verb` names. `exec` is told the
/// names later, and then asks for each of them.
fn is_trusted(home: &Home, process: &Process, verb: &authorizer::Verb) -> bool {
    let named = if verb.words == "exec" { None } else { Some(&*verb.secrets) };
    TRUSTED.contains(&&*verb.words)
        && named.is_none_or(|secrets| !secrets.is_empty())
        && is_service(home, process, named.unwrap_or_default())
}

/// Whether `process` is a trusted program that runs as a service, with a pin for every one of `secrets`. Any
/// program of the person's user can become a trusted one after it connected, or be loaded into it: so the pin
/// must bind it to a cgroup, into which root alone moves processes.
pub(super) fn is_service(home: &Home, process: &Process, secrets: &[SecretName]) -> bool {
    if !is_roots(&process.cgroup) {
        return false;
    }
    // Pins that are not understood are none.
    let Ok(trust) = Trust::open(&home.trust(), true, None) else { return false };
    let caller = Caller {
        process: Arc::new(process.clone()),
        agent: None,
        session: "".into(),
        is_ours: false,
        standing: Default::default(),
    };
    let standing = trust.standing(&caller);
    let holds = |pin: &Pin| pin.cgroup.is_some() && pin.interpreter.is_none() && pin.script.is_none();
    let pins: Vec<_> = standing.holding().iter().filter(|pin| holds(pin)).collect();
    !pins.is_empty() && secrets.iter().all(|secret| pins.iter().any(|pin| pin.secrets.contains(secret)))
}

/// Whether root alone moves processes into the cgroup at `path`, which is not that of everybody.
fn is_roots(path: &str) -> bool {
    let Ok(mounts) = crate::launch::mounts::table() else { return false };
    let root = mounts.into_iter().find(|mount| mount.kind == "cgroup2" && mount.root == "/");
    let Some(root) = root.filter(|_| path.len() > 1) else { return false };
    let file = root.point.join(path.trim_start_matches('/')).join("cgroup.procs");
    std::fs::metadata(file).is_ok_and(|file| sys::is_roots_alone(&file))
}
