//! `agentsecrets session`: starts, lists and ends sessions. A session restricts what the policy allows; it
//! never grants more. Runs are sessions too.

use std::process::ExitCode;
use std::time::Duration;

use anstream::eprintln;
use jiff::Timestamp;
use serde_json::json;

use crate::authz::clock;
use crate::authz::registry;
use crate::authz::session_uses;
use crate::authz::sessions::{Holder, Session, Sessions, hierarchy};
use crate::authz::token;
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json};
use crate::cli::records;
use crate::identity::ancestry;
use crate::identity::container::{self, Container, is_whole_id};
use crate::types::failure::{Exit, Failure};
use crate::types::name::{AgentName, SecretName};
use crate::types::presented;

/// Start, list and end sessions
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets session start --agent coder --pid $$ --ttl 30m --secrets STRIPE_KEY
  agentsecrets session list
  agentsecrets session end --all")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start a session, and print its id or its token
    #[command(after_help = "Examples:
  agentsecrets session start --agent coder --pid $$ --ttl 30m
  agentsecrets session start --cgroup /agents.slice --hosts api.stripe.com --methods GET --uses 20
  agentsecrets session start --token --agent coder --ttl 1h

By default it applies to the process that starts it and its descendants. While the session lives, and
as long as those processes exist after it has ended, they may do only what the session includes.")]
    Start(Box<Start>),
    /// List the sessions, including those of `run`
    #[command(after_help = "Example: agentsecrets session list --json")]
    List,
    /// End a session: closes its connections within a second, and ends the command of a run
    #[command(
        after_help = "Examples:\n  agentsecrets session end 3f2a9c0d11e85b67\n  agentsecrets session end --all"
    )]
    End {
        /// Session id, as `session list` shows it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// End every session
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// Agent entry of the policy [default: the one that matches]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Lifetime, such as 30m or 8h [default: until its processes are gone]
    #[arg(long, value_name = "TIME", value_parser = super::run::parse_duration)]
    ttl: Option<Duration>,
    /// Allow only these secrets [default: those that the rules allow]
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    secrets: Option<Vec<SecretName>>,
    /// Allow only these hosts, written as in a rule [default: those that the rules allow]
    #[arg(long, value_name = "H1,H2", value_delimiter = ',')]
    hosts: Option<Vec<String>>,
    /// Allow only these methods [default: those that the rules allow]
    #[arg(long, value_name = "M1,M2", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Number of requests that may use a secret
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    /// Apply to this process and its descendants
    #[arg(long, value_name = "PID", group = "whom")]
    pid: Option<u32>,
    /// Apply to processes in this cgroup or below it
    #[arg(long, value_name = "PATH", group = "whom")]
    cgroup: Option<String>,
    /// Apply to processes in this container (full id)
    #[arg(long, value_name = "ID", group = "whom")]
    container: Option<String>,
    /// Apply to requests with a token, which is printed only once
    #[arg(long, group = "whom")]
    token: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Start(start) => begin(*start, context),
        Verb::List => list(context),
        Verb::End { id, all: _ } => end(id.as_deref(), context),
    }
}

fn begin(start: Start, context: &Context) -> Result<ExitCode, Failure> {
    let minted =
        start.token.then(|| token::mint(presented::SESSION)).transpose().map_err(Failure::from_error)?;
    let (id, who) = match &minted {
        Some(minted) => (minted.id.clone(), Holder::Token { sha256: minted.digest.clone() }),
        None => (token::new_id().map_err(Failure::from_error)?, session_subject(&start, context)?),
    };
    let methods =
        start.methods.map(|methods| methods.iter().map(|method| method.to_ascii_uppercase()).collect());
    let session = Session {
        secrets: start.secrets,
        hosts: start.hosts,
        methods,
        uses: start.uses,
        ..Session::begin(id.clone(), who, start.agent, start.ttl)
    };
    session.check().map_err(|reason| Failure::new(Exit::Usage, reason))?;
    registry::change(&context.home.sessions(), |sessions: &mut Sessions| {
        let secrets = session.secrets.as_deref().unwrap_or_default();
        let notes = vec![format!("session {id}: {}", describe_bounds(&session))];
        records::record_act(context, "session start", session.agent.as_ref(), secrets, notes)?;
        if session.uses.is_some() {
            session_uses::begin(&context.home.session_uses(&id)).map_err(Failure::from_error)?;
        }
        sessions.remove_expired(&context.home);
        sessions.sessions.push(session.clone());
        Ok::<_, Failure>(())
    })?;
    eprintln!("session {id} {}: {}", describe_subject(&session.who), describe_bounds(&session));
    let text = minted.as_ref().map_or(id.as_str(), |minted| minted.text.as_str());
    match context.json {
        true => {
            let token = minted.as_ref().map(|minted| minted.text.as_str());
            print_json(&json!({ "id": id, "token": token, "expires": session.expires }))
        }
        false => print_bytes(zeroize::Zeroizing::new(format!("{text}\n")).as_bytes()),
    }
}

/// The processes or the token that the session applies to.
fn session_subject(start: &Start, context: &Context) -> Result<Holder, Failure> {
    if let Some(path) = &start.cgroup {
        let path = format!("/{}", path.trim_matches('/'));
        let is_there = hierarchy().is_none_or(|root| root.join(path.trim_start_matches('/')).is_dir());
        return match is_there {
            true => Ok(Holder::Cgroup { path }),
            false => Err(Failure::new(Exit::NotFound, format!("there is no cgroup {path}"))),
        };
    }
    if let Some(id) = &start.container {
        let invalid =
            || Failure::new(Exit::Usage, "a container is named by its full id, 64 hexadecimal digits");
        return is_whole_id(id).then(|| Holder::Container { id: id.clone() }).ok_or_else(invalid);
    }
    let asked = || match context.parent_process() {
        Some(process) => Ok(process.pid),
        None => crate::identity::parent_id().map_err(Failure::from_error),
    };
    let pid = start.pid.map_or_else(asked, Ok)?;
    let start_time = ancestry::start_of(pid)
        .ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no process {pid}")))?;
    let cgroup = container::cgroup_of(pid).ok().flatten().unwrap_or_default();
    let container = Container::of(&cgroup).map(|container| container.id.to_owned());
    Ok(Holder::Tree { pid, start_time, container })
}

/// The state of a session, for display.
fn session_state(session: &Session, context: &Context) -> &'static str {
    let used = session
        .uses
        .map(|limit| session_uses::used(&context.home.session_uses(&session.id)).is_ok_and(|n| n < limit));
    if session.boot != clock::boot() || !session.who.is_alive() {
        "gone"
    } else if session.ended.is_some() {
        "ended"
    } else if session.expires.is_some_and(|end| end <= Timestamp::now()) {
        "expired"
    } else if used == Some(false) {
        "used up"
    } else {
        "live"
    }
}

/// The number of live sessions, including runs.
pub(super) fn count_live(context: &Context) -> Result<usize, Failure> {
    let sessions: Sessions = registry::read(&context.home.sessions())?;
    Ok(sessions.sessions.iter().filter(|session| session_state(session, context) == "live").count())
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let sessions: Sessions = registry::read(&context.home.sessions())?;
    let listed = sessions.sessions.iter().map(|session| (session, session_state(session, context)));
    // A session without processes has no effect.
    let listed: Vec<_> = listed.filter(|(_, state)| *state != "gone").collect();
    let used = |session: &Session| {
        session.uses.map(|_| session_uses::used(&context.home.session_uses(&session.id)).unwrap_or_default())
    };
    if context.json {
        let entry = |(session, state): &(&Session, &str)| {
            json!({
                "id": session.id, "state": state, "for": describe_subject(&session.who), "agent": session.agent,
                "secrets": session.secrets, "hosts": session.hosts, "methods": session.methods,
                "uses": session.uses, "used": used(session), "started": session.started,
                "expires": session.expires, "ended": session.ended,
            })
        };
        return print_json(&listed.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |(session, state): &(&Session, &str)| {
        let agent = session.agent.as_ref().map(ToString::to_string).unwrap_or_default();
        let until = session.expires.map_or("-".to_owned(), |end| format!("{end:.0}"));
        let used = used(session).map_or(String::new(), |used| format!("used {used}, "));
        let bounds = format!("{used}{}", describe_bounds(session));
        [session.id.clone(), (*state).to_owned(), describe_subject(&session.who), agent, until, bounds]
    };
    let rows: Vec<_> = listed.iter().map(row).collect();
    print_bytes(table(["Session", "State", "For", "Agent", "Until", "Includes"], &rows).as_bytes())
}

fn end(id: Option<&str>, context: &Context) -> Result<ExitCode, Failure> {
    let what = id.map_or("every session".to_owned(), |id| format!("session {id}"));
    let count = registry::change(&context.home.sessions(), |sessions: &mut Sessions| {
        sessions.remove_expired(&context.home);
        let selected = |session: &&mut Session| id.is_none_or(|id| session.id == id);
        let selected: Vec<&mut Session> = sessions.sessions.iter_mut().filter(selected).collect();
        if let Some(id) = id.filter(|_| selected.is_empty()) {
            return Err(Failure::new(Exit::NotFound, format!("there is no session {id}"))
                .hint("agentsecrets session list"));
        }
        records::record_act(context, "session end", None, &[], vec![what])?;
        let mut count = 0;
        for session in selected {
            count += usize::from(session.ended.is_none());
            session.ended.get_or_insert_with(Timestamp::now);
        }
        Ok(count)
    })?;
    eprintln!("ended {count}");
    Ok(ExitCode::SUCCESS)
}

fn describe_subject(who: &Holder) -> String {
    match who {
        Holder::Tree { pid, container: None, .. } => format!("process {pid}"),
        Holder::Tree { pid, container: Some(id), .. } => {
            format!("process {pid} in container {}", short_id(id))
        }
        Holder::Cgroup { path } => format!("cgroup {path}"),
        Holder::Container { id } => format!("container {}", short_id(id)),
        Holder::Run { .. } => "run".to_owned(),
        Holder::Token { .. } => "token".to_owned(),
    }
}

fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The limits of a session, for display.
fn describe_bounds(session: &Session) -> String {
    let list =
        |what: &str, names: Option<Vec<String>>| names.map(|names| format!("{what} {}", names.join(", ")));
    let secrets = session.secrets.as_ref().map(|secrets| secrets.iter().map(ToString::to_string).collect());
    let uses = session.uses.map(|uses| format!("{uses} uses"));
    let bounds = [
        list("secrets", secrets),
        list("hosts", session.hosts.clone()),
        list("methods", session.methods.clone()),
        uses,
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() { "what the rules allow".to_owned() } else { bounds.join("; ") }
}
