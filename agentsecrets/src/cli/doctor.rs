//! `agentsecrets doctor`: what stands in the way, each finding with its fix.

#[cfg(target_os = "linux")]
mod clients;
mod stores;
#[cfg_attr(not(target_os = "linux"), path = "doctor/elsewhere.rs")]
mod system;
mod trust;

use std::process::ExitCode;

use anstream::println;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Context, Exit, Failure};
use crate::config::Config;
use crate::policy::watch::Live;
use crate::sys;

/// Look for problems, each with its fix.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo agentsecrets doctor --json")]
pub(super) struct Args {
    #[command(subcommand)]
    about: Option<system::About>,
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
        Some(about) => about.findings(),
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
    let mut findings = system::agents();
    findings.extend([home(context), configuration(context), policy(context)]);
    findings.extend(stores::all(context));
    findings.extend(trust::all(context));
    findings.push(roots());
    findings.extend(system::clients(context));
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

fn home(context: &Context) -> Finding {
    let mut folders = context.home.folders().into_iter().filter(|folder| folder.exists());
    match folders.find_map(|folder| sys::check_private_folder(folder).err()) {
        None => Finding::good("our files are readable by their owner alone"),
        Some(error) => {
            let text = error.to_string();
            let (what, fix) = text.split_once("; run: ").unwrap_or((&text, "look at its permissions"));
            Finding::bad(what, fix)
        }
    }
}

fn configuration(context: &Context) -> Finding {
    let path = context.home.config();
    match Config::load(&path) {
        Ok(config) if config.strict && !cfg!(target_os = "linux") => Finding::bad(
            "the configuration is strict, for which there is no daemon here: nothing is done until it is not",
            "take `strict: true` out of config.yaml",
        ),
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
        0 => Finding::warning("the system has no certificate roots", system::ROOTS),
        count => Finding::good(format!("servers are verified against {count} system roots")),
    }
}
