//! `agentsecrets whoami`: what would be known of the program that calls it.

use std::process::ExitCode;
use std::sync::Arc;

use anstream::{eprintln, println};
use anstyle::Style;
use http::Request;
use http::header::HOST;
use http_body_util::BodyExt;

use super::{Context, Exit, Failure};
use crate::audit::visible;
use crate::authz::Capabilities;
use crate::authz::trust::Trust;
use crate::authz::whoami::{Known, known};
use crate::call::send;
use crate::config::Config;
use crate::identity::inspector::Witness;
use crate::identity::process_details::Look;
use crate::identity::{Caller, IdentityError};
use crate::pipeline::value_export;
use crate::pipeline::whoami;
use crate::policy::Policy;
use crate::types::body::empty;

/// Show what would be known of the program that calls this: who it is, whether it is trusted, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets whoami
  agentsecrets whoami --pid 4711 --json

It speaks of its parent: a shell that calls it sees the shell. Inside `agentsecrets run` the
interceptor answers, which judges requests by the same view; outside, this command looks itself, as
the explicit proxy would.")]
pub(super) struct Args {
    /// Another process of the same user
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let known = if crate::launch::inside_agent() { ask(&args)? } else { look(&args, context)? };
    if context.json {
        return super::secrets::json(&known);
    }
    match args.pid {
        Some(pid) => eprintln!("process {pid}, as it is known:"),
        None => eprintln!("the program that called this, as it is known:"),
    }
    print(&known);
    Ok(ExitCode::SUCCESS)
}

/// Asks the interceptor.
fn ask(args: &Args) -> Result<Known, Failure> {
    let unclear = || Failure::new(Exit::Failure, "the interceptor's answer cannot be understood");
    let query = args.pid.map(|pid| format!("?pid={pid}")).unwrap_or_default();
    let url = format!("https://{}{}{query}", value_export::HOST, whoami::PATH);
    let request = Request::get(url).header(HOST, value_export::HOST).body(empty()).map_err(|_| unclear())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    runtime.block_on(async {
        let response = send(request, Vec::new()).await?;
        let is_ok = response.status().is_success();
        let body = response.into_body().collect().await.map_err(|_| unclear())?.to_bytes();
        if is_ok {
            return serde_json::from_slice(&body).map_err(|_| unclear());
        }
        let told: serde_json::Value = serde_json::from_slice(&body).map_err(|_| unclear())?;
        let told = ["message", "error"].iter().find_map(|key| told.get(*key)?.as_str()).unwrap_or("refused");
        Err(Failure::new(Exit::Denied, told))
    })
}

/// Looks as the explicit proxy would.
fn look(args: &Args, context: &Context) -> Result<Known, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, error);
    let unseen = |error: IdentityError| {
        let what = match error {
            IdentityError::Gone => "there is no such process".to_owned(),
            error => format!("that process cannot be looked at: {error}"),
        };
        Failure::new(Exit::NotFound, what)
    };
    let config = Config::load(&context.home.config()).map_err(|error| failed(&error))?;
    let policy = Policy::load(&context.home.policy()).map_err(|error| failed(&error))?;
    let policy = policy.narrowed(&context.scope.narrow);
    let trust = Trust::open(&context.home.trust(), config.require_trust, Some(Arc::new(Witness::Here)));
    let trust = trust.map_err(|error| failed(&error))?;
    let capabilities = Capabilities::open(&context.home, &context.project, &context.environment, None);
    let capabilities = capabilities.map_err(|error| failed(&error))?.trusting(Arc::new(trust));
    let process =
        Witness::Here.process(args.pid.unwrap_or_else(std::os::unix::process::parent_id)).map_err(unseen)?;
    let own = nix::unistd::getuid().as_raw();
    if process.uid != own {
        let uid = process.uid;
        return Err(Failure::new(Exit::Denied, format!("that process is user {uid}'s, and you are {own}")));
    }
    let (agent, session) = (None, "".into());
    let like = Caller {
        process: process.clone().into(),
        agent,
        session,
        is_ours: true,
        standing: Default::default(),
    };
    known(process, &like, &policy, &capabilities, &Witness::Here, |_| true).map_err(unseen)
}

fn print(known: &Known) {
    let bold = Style::new().bold();
    let row = |name: &str, text: &str| println!("{bold}{name:<10}{bold:#} {}", visible(text));
    row("process", &format!("{}, started at tick {}", known.process.pid, known.process.start_time));
    row("program", &known.process.exe);
    row("sha256", &known.process.sha256);
    row("user", &known.process.uid.to_string());
    row("cgroup", &known.process.cgroup);
    if let Some(container) = &known.process.container {
        row("container", container);
    }
    if let Some(image) = known.process.image.as_ref().or(known.process.image_id.as_ref()) {
        row("image", image);
    }
    if let Some(pod) = &known.process.pod {
        row("pod", pod);
    }
    known.process.spiffe.iter().for_each(|id| row("spiffe", id));
    for (number, above) in known.ancestry.iter().enumerate() {
        let exe = above.exe.as_deref().unwrap_or("a program that may not be seen");
        row(if number == 0 { "below" } else { "" }, &format!("{exe} ({})", above.pid));
    }
    match (&known.agent, &known.no_agent) {
        (Some(agent), _) => row("agent", agent),
        (None, why) => row("agent", &format!("none: {}", why.as_deref().unwrap_or("unknown"))),
    }
    row("trusted", &format!("{}: {}", if known.trusted { "yes" } else { "no" }, known.trust));
    row("session", known.session.as_deref().unwrap_or("none"));
    for session in known.sessions.iter().filter(|session| Some(*session) != known.session.as_ref()) {
        row("", session);
    }
}
