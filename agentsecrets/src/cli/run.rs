//! `agentsecrets run`: runs a command as an agent.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::context::Context;
use crate::types::failure::{Exit, Failure};
use crate::types::name::AgentName;

/// Run a command as an agent: its traffic is intercepted, and it never holds a secret
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo agentsecrets run --agent coder --ttl 30m -- claude\n\n\
    The exit code is the command's own. 125 is our own failure, 126 a command that cannot be\n\
    executed, 127 a command that does not exist.")]
pub(super) struct Args {
    /// Agent entry of the policy [default: the first that matches]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// User to run the command as [default: the caller of sudo, otherwise nobody]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// End the command after this time, such as 30s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[cfg(target_os = "linux")]
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    use crate::launch::{RunConfig, run};

    if let Some(file) = &context.scope.file {
        // The file may come from a foreign repository, so its choice is shown.
        anstream::eprintln!(
            "agentsecrets: project {}, environment {}, as {} says",
            context.project,
            context.environment,
            file.display()
        );
    }
    let asked_by =
        context.invocation.as_ref().map(|invocation| (invocation.process.pid, invocation.process.start_time));
    let (person, variables) = match &context.invocation {
        Some(invocation) => {
            let person = match (invocation.by_root, invocation.uid) {
                (true, 0) => None,
                _ => Some(crate::launch::user_or_placeholder(invocation.uid, invocation.gid)),
            };
            // Only root may choose a user.
            let own = person.as_ref().map(|person| (person.name.clone(), person.uid.to_string()));
            if let (false, Some(user), Some((name, uid))) = (invocation.by_root, &args.user, own)
                && *user != name
                && *user != uid
            {
                let what = format!("only root may run an agent as another user than {name}");
                return Err(Failure::new(Exit::Denied, what).hint("omit --user"));
            }
            (person, invocation.environment.clone())
        }
        None => (None, std::env::vars_os().collect()),
    };
    let config = RunConfig {
        caller: person,
        requested_by: asked_by,
        caller_environment: variables,
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        restriction: context.scope.restriction.clone(),
        agent: args.agent,
        user: args.user,
        ttl: args.ttl,
        command: args.command,
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    run(&config, &interceptor).map(ExitCode::from).map_err(failure)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn run(_args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    Err(Failure::new(Exit::OwnFailure, "`run` needs Linux")
        .hint("elsewhere, use the explicit proxy: agentsecrets proxy start"))
}

#[cfg(target_os = "linux")]
fn failure(error: crate::launch::RunError) -> Failure {
    use crate::launch::{CgroupError, InterceptorError, RunError};

    let failure = |exit| Failure::new(exit, &error);
    match &error {
        RunError::RootRequired => failure(Exit::OwnFailure).hint(format!("sudo {}", command_line())),
        RunError::Cgroup(CgroupError::NotMounted) => failure(Exit::OwnFailure).hint(
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or start Linux with systemd.unified_cgroup_hierarchy=1",
        ),
        RunError::Cgroup(CgroupError::Hidden(_)) => failure(Exit::OwnFailure)
            .hint("in a container, start it with the host's cgroup namespace (--cgroupns=host)"),
        RunError::Interceptor(InterceptorError::Failed { exit, hint, .. }) => {
            let exit = match exit {
                4 => Exit::Denied,
                5 => Exit::Locked,
                _ => Exit::OwnFailure,
            };
            hint.iter().fold(failure(exit), |failure, hint| failure.hint(hint))
        }
        RunError::CommandNotStarted { exit: 127, .. } => failure(Exit::NoCommand),
        RunError::CommandNotStarted { exit: 126, .. } => failure(Exit::NotExecutable),
        _ => failure(Exit::OwnFailure),
    }
}

/// The command line of this process, quoted for a shell.
#[cfg(target_os = "linux")]
fn command_line() -> String {
    std::env::args_os().map(|word| crate::types::shell_quote::quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// A positive time, such as `30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("'{text}' is no time such as 30s, 10m or 2h");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(parsed).ok().filter(|time| !time.is_zero()).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units_are_parsed() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "10", "-5m", "0s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
