//! `agentsecrets doctor`: checks this machine and prints findings, each with its fix.

#[cfg(target_os = "linux")]
mod clients;
mod finding;
mod stores;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod system;
mod trust;

use std::process::ExitCode;

use crate::cli::context::Context;
use crate::config::Config;
use crate::policy::watch::PolicyWatcher;
use crate::sys;
use crate::types::failure::Failure;
use anstream::println;
use finding::{Finding, Severity};

/// Check for problems; every finding has a fix
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo agentsecrets doctor --json")]
pub(super) struct Args {
    #[command(subcommand)]
    topic: Option<system::Topic>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let findings = match args.topic {
        None => check_all(context),
        Some(about) => about.findings(),
    };
    if context.json {
        let text = serde_json::to_string_pretty(&findings).map_err(Failure::from_error)?;
        println!("{text}");
    } else {
        findings.iter().for_each(Finding::print);
    }
    let bad = findings.iter().any(|finding| finding.severity == Severity::Bad);
    Ok(ExitCode::from(u8::from(bad)))
}

fn check_all(context: &Context) -> Vec<Finding> {
    let mut findings = system::agents();
    findings.extend([home(context), configuration(context), policy(context)]);
    findings.extend(stores::all(context));
    findings.extend(trust::all(context));
    findings.push(roots());
    findings.extend(system::clients(context));
    findings
}

fn home(context: &Context) -> Finding {
    let mut folders = context.home.folders().into_iter().filter(|folder| folder.exists());
    match folders.find_map(|folder| sys::check_private_folder(folder).err()) {
        None => Finding::good("our files are readable only by their owner"),
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
            "the configuration is strict, but this system has no daemon: every command fails until it is not",
            "remove `strict: true` from config.yaml",
        ),
        Ok(_) if path.exists() => Finding::good(format!("the configuration is valid ({})", path.display())),
        Ok(_) => Finding::good("there is no configuration: the defaults apply"),
        Err(error) => Finding::bad(
            format!("the configuration is not valid: {error}"),
            "correct it: `agentsecrets run` starts nothing until then",
        ),
    }
}

fn policy(context: &Context) -> Finding {
    let path = context.home.policy();
    if !path.exists() {
        let fix = "write one with agents, hosts and the secrets for each; until then every request is denied";
        return Finding::warning(format!("there is no policy at {}", path.display()), fix);
    }
    match PolicyWatcher::open(&path) {
        Ok(_) => Finding::good(format!("the policy is valid ({})", path.display())),
        Err(error) => Finding::bad(format!("the policy is not valid: {error}"), "agentsecrets policy check"),
    }
}

fn roots() -> Finding {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.len() {
        0 => Finding::warning("the system has no certificate roots", system::MISSING_ROOTS_FIX),
        count => Finding::good(format!("servers are verified against {count} system roots")),
    }
}
