//! `agentsecrets run`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use super::{Context, Exit, Failure};
use crate::types::name::AgentName;

/// Start a command as an agent: its traffic goes through us, its secrets stay here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo agentsecrets run --agent coder --ttl 30m -- claude\n\n\
    The exit code is the command's own; 125 is a failure of ours, 126 a command that cannot be\n\
    executed, 127 one that does not exist.")]
pub(super) struct Args {
    /// The policy's agent entry [default: the first that matches]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// The user that the command runs as [default: who called sudo, else nobody]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// End the command after this time, such as 30s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the verb.
#[cfg(target_os = "linux")]
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    use crate::launch::{Run, run};

    if let Some(file) = &context.scope.file {
        // It may have come with somebody's repository: what it chose is not left unsaid.
        anstream::eprintln!(
            "agentsecrets: project {}, environment {}, as {} says",
            context.project,
            context.environment,
            file.display()
        );
    }
    let asked_by = context.ticket.as_ref().map(|ticket| (ticket.process.pid, ticket.process.start_time));
    let (person, variables) = match &context.ticket {
        Some(ticket) => {
            let person = match (ticket.by_root, ticket.uid) {
                (true, 0) => None,
                _ => Some(crate::launch::person(ticket.uid, ticket.gid)),
            };
            // What root may choose, the kernel has chosen for everybody else.
            let own = person.as_ref().map(|person| (person.name.clone(), person.uid.to_string()));
            if let (false, Some(user), Some((name, uid))) = (ticket.by_root, &args.user, own)
                && *user != name
                && *user != uid
            {
                let what = format!("only root runs an agent as somebody else than {name}");
                return Err(Failure::new(Exit::Denied, what).hint("leave --user out"));
            }
            (person, ticket.environment.clone())
        }
        None => (None, std::env::vars_os().collect()),
    };
    let wanted = Run {
        person,
        asked_by,
        variables,
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        narrow: context.scope.narrow.clone(),
        agent: args.agent,
        user: args.user,
        ttl: args.ttl,
        command: args.command,
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    run(&wanted, &interceptor).map(ExitCode::from).map_err(failure)
}

/// Runs the verb.
#[cfg(not(target_os = "linux"))]
pub(super) fn run(_args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    Err(Failure::new(Exit::Ours, "`run` needs Linux")
        .hint("elsewhere, use the explicit proxy: agentsecrets proxy start"))
}

#[cfg(target_os = "linux")]
fn failure(error: crate::launch::NotRun) -> Failure {
    use crate::launch::{NoCgroup, NoInterceptor, NotRun};

    let failure = |exit| Failure::new(exit, &error);
    match &error {
        NotRun::NotRoot => failure(Exit::Ours).hint(format!("sudo {}", command_line())),
        NotRun::NoCgroup(NoCgroup::NotMounted) => failure(Exit::Ours).hint(
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or start Linux with systemd.unified_cgroup_hierarchy=1",
        ),
        NotRun::NoCgroup(NoCgroup::Hidden(_)) => failure(Exit::Ours)
            .hint("in a container, start it with the host's cgroup namespace (--cgroupns=host)"),
        NotRun::NoInterceptor(NoInterceptor::Refused { exit, hint, .. }) => {
            let exit = match exit {
                4 => Exit::Denied,
                5 => Exit::Locked,
                _ => Exit::Ours,
            };
            hint.iter().fold(failure(exit), |failure, hint| failure.hint(hint))
        }
        NotRun::NotStarted { exit: 127, .. } => failure(Exit::NoCommand),
        NotRun::NotStarted { exit: 126, .. } => failure(Exit::NotExecutable),
        _ => failure(Exit::Ours),
    }
}

/// The caller's own command line, as a shell would read it.
#[cfg(target_os = "linux")]
fn command_line() -> String {
    std::env::args_os().map(|word| crate::types::shell_quote::quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// A positive time, such as `30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time such as 30s, 10m or 2h");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).ok().filter(|time| !time.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "10", "-5m", "0s", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
