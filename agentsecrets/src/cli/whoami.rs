//! `agentsecrets whoami`: the identity of the calling program as the policy sees it.

use std::process::ExitCode;
use std::sync::Arc;

use anstream::{eprintln, println};
use anstyle::Style;
use http::Request;
use http::header::HOST;
use http_body_util::BodyExt;

use crate::audit::visible;
use crate::authz::Capabilities;
use crate::authz::trust::Trust;
use crate::authz::whoami::{CallerReport, report};
use crate::call::send;
use crate::cli::context::Context;
use crate::config::Config;
use crate::identity::inspector::ProcessInspector;
use crate::identity::process_details::ProcessDetails;
use crate::identity::{Caller, IdentityError};
use crate::pipeline::value_export;
use crate::pipeline::whoami;
use crate::policy::Policy;
use crate::types::body::empty;
use crate::types::failure::{Exit, Failure};

/// Show the identity of the calling program as the policy sees it, and whether it is trusted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets whoami
  agentsecrets whoami --pid 4711 --json

It describes its parent process, such as the shell that calls it. Inside `agentsecrets run` the
interceptor answers, with the identity that it uses for requests. Outside, this command inspects the
process itself, as the explicit proxy would.")]
pub(super) struct Args {
    /// Describe this process of the same user instead
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let known = if crate::launch::is_inside_agent() {
        query_interceptor(&args)?
    } else {
        inspect_locally(&args, context)?
    };
    if context.json {
        return crate::cli::output::print_json(&known);
    }
    match args.pid {
        Some(pid) => eprintln!("process {pid}:"),
        None => eprintln!("the calling program:"),
    }
    print(&known);
    Ok(ExitCode::SUCCESS)
}

fn query_interceptor(args: &Args) -> Result<CallerReport, Failure> {
    let unclear = || Failure::new(Exit::Failure, "the interceptor's response is not valid");
    let query = args.pid.map(|pid| format!("?pid={pid}")).unwrap_or_default();
    let url = format!("https://{}{}{query}", value_export::HOST, whoami::PATH);
    let request = Request::get(url).header(HOST, value_export::HOST).body(empty()).map_err(|_| unclear())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    runtime.block_on(async {
        let response = send(request, Vec::new()).await?;
        let is_ok = response.status().is_success();
        let body = response.into_body().collect().await.map_err(|_| unclear())?.to_bytes();
        if is_ok {
            return serde_json::from_slice(&body).map_err(|_| unclear());
        }
        let error: serde_json::Value = serde_json::from_slice(&body).map_err(|_| unclear())?;
        let error =
            ["message", "error"].iter().find_map(|key| error.get(*key)?.as_str()).unwrap_or("refused");
        Err(Failure::new(Exit::Denied, error))
    })
}

/// Inspects the process as the explicit proxy would.
fn inspect_locally(args: &Args, context: &Context) -> Result<CallerReport, Failure> {
    let unseen = |error: IdentityError| {
        let what = match error {
            IdentityError::Gone => "there is no such process".to_owned(),
            error => format!("that process cannot be inspected: {error}"),
        };
        Failure::new(Exit::NotFound, what)
    };
    let config = Config::load(&context.home.config()).map_err(Failure::from_error)?;
    let policy = Policy::load(&context.home.policy()).map_err(Failure::from_error)?;
    let policy = policy.restricted_to(&context.scope.restriction);
    let trust =
        Trust::open(&context.home.trust(), config.require_trust, Some(Arc::new(ProcessInspector::Here)));
    let trust = trust.map_err(Failure::from_error)?;
    let capabilities = Capabilities::open(&context.home, &context.project, &context.environment, None);
    let capabilities = capabilities.map_err(Failure::from_error)?.trusting(Arc::new(trust));
    let process = ProcessInspector::Here
        .process(args.pid.unwrap_or_else(std::os::unix::process::parent_id))
        .map_err(unseen)?;
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
        attributes: Default::default(),
    };
    report(process, &like, &policy, &capabilities, &ProcessInspector::Here, |_| true).map_err(unseen)
}

fn print(known: &CallerReport) {
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
        let exe = above.exe.as_deref().unwrap_or("a program that cannot be inspected");
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
