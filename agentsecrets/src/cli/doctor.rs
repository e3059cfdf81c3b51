//! `agentsecrets doctor`: what stands in the way, each finding with its fix.

#[cfg(target_os = "linux")]
mod clients;
mod stores;
mod trust;

use std::process::ExitCode;

use anstream::println;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Context, Exit, Failure};
use crate::app::config::Config;
use crate::connection::ebpf;
use crate::policy::live::Live;

/// Look for problems, each with its fix.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo agentsecrets doctor --json")]
pub(super) struct Args {
    #[command(subcommand)]
    about: Option<About>,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// Which programs trust a run's authority, and what to do about those that cannot
    #[cfg(target_os = "linux")]
    #[command(after_help = "Example:\n  agentsecrets doctor clients")]
    Clients,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    mark: Mark,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let findings = match args.about {
        None => everything(context),
        #[cfg(target_os = "linux")]
        Some(About::Clients) => clients::all(),
    };
    if context.json {
        let text =
            serde_json::to_string_pretty(&findings).map_err(|error| Failure::new(Exit::Failure, error))?;
        println!("{text}");
    } else {
        findings.iter().for_each(Finding::print);
    }
    let bad = findings.iter().any(|finding| finding.mark == Mark::Bad);
    Ok(ExitCode::from(u8::from(bad)))
}

fn everything(context: &Context) -> Vec<Finding> {
    let mut findings = vec![kernel(), home(context), configuration(context), policy(context)];
    findings.extend(stores::all(context));
    findings.extend(trust::all(context));
    findings.push(roots());
    #[cfg(target_os = "linux")]
    findings.extend(clients::summary());
    findings.push(door(context));
    findings
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { mark: Mark::Good, what: what.into(), fix: None }
    }

    fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, what: what.into(), fix: Some(fix.into()) }
    }

    fn print(&self) {
        let (sign, colour) = match self.mark {
            Mark::Good => ("✓", AnsiColor::Green),
            Mark::Warning => ("!", AnsiColor::Yellow),
            Mark::Bad => ("✗", AnsiColor::Red),
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        println!("{style}{sign}{style:#} {}", self.what);
        if let Some(fix) = &self.fix {
            println!("    {fix}");
        }
    }
}

fn kernel() -> Finding {
    match ebpf::probe() {
        Ok(()) => Finding::good("the kernel can send an agent's connections through us"),
        Err(error) => Finding::bad("agents cannot be started here", error.to_string()),
    }
}

fn home(context: &Context) -> Finding {
    for folder in context.home.folders() {
        if let Ok(metadata) = std::fs::metadata(folder) {
            use std::os::unix::fs::PermissionsExt;
            let mode = metadata.permissions().mode();
            if mode & 0o077 != 0 {
                let shown = folder.display();
                return Finding::bad(
                    format!("{shown} can be read by others (mode {:04o})", mode & 0o7777),
                    format!("chmod 700 {shown}"),
                );
            }
        }
    }
    Finding::good("our files are readable by their owner alone")
}

fn configuration(context: &Context) -> Finding {
    let path = context.home.config();
    match Config::load(&path) {
        Ok(_) if path.exists() => Finding::good(format!("the configuration is valid ({})", path.display())),
        Ok(_) => Finding::good("there is no configuration: its defaults hold"),
        Err(error) => Finding::bad(
            format!("the configuration is not valid: {error}"),
            "correct it: `agentsecrets run` starts nothing until then",
        ),
    }
}

fn policy(context: &Context) -> Finding {
    let path = context.home.policy();
    if !path.exists() {
        let fix =
            "write one: agents, hosts and the secrets each may spend there; everything is denied until then";
        return Finding::warning(format!("there is no policy at {}", path.display()), fix);
    }
    match Live::open(&path) {
        Ok(_) => Finding::good(format!("the policy is valid ({})", path.display())),
        Err(error) => Finding::bad(format!("the policy is not valid: {error}"), "agentsecrets policy check"),
    }
}

fn roots() -> Finding {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.len() {
        0 => Finding::warning("the system has no certificate roots", "apt-get install ca-certificates"),
        count => Finding::good(format!("servers are verified against {count} system roots")),
    }
}

/// What is promised only inside `run`, said plainly.
fn door(context: &Context) -> Finding {
    #[cfg(target_os = "linux")]
    if let Some(ticket) = &context.ticket {
        use crate::door::presence::Presence;
        let presence = context.home.policy().parent().is_some_and(|home| Presence::in_home(home).is_set());
        return if presence || ticket.uid == 0 {
            Finding::good("the person's door is closed: what is stored belongs to the daemon's own user")
        } else {
            Finding::warning(
                "no passphrase is set for your presence: only root and trusted programs may do anything",
                "sudo agentsecrets presence set",
            )
        };
    }
    let _ = context;
    Finding::warning(
        "unguarded: outside `run`, a program of the same user can read our files as you can",
        "start agents with `agentsecrets run`, which hides them; to keep them from every program of yours: sudo \
         agentsecrets daemon install",
    )
}
