//! `agentsecrets session`: who may act for now, and how far. What bounds a session only takes away from what the
//! policy's rules allow; runs are sessions too, and are ended like any other.

use std::process::ExitCode;
use std::time::Duration;

use anstream::eprintln;
use jiff::Timestamp;
use serde_json::json;

use super::secrets::{json as print_json, show};
use super::table::table;
use crate::authz::clock;
use crate::authz::registry;
use crate::authz::session_uses;
use crate::authz::sessions::{Session, Sessions, Who, hierarchy};
use crate::authz::token;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::identity::ancestry;
use crate::identity::container::{self, Container, is_whole_id};
use crate::types::name::{AgentName, SecretName};
use crate::types::presented;

/// Start, list and end sessions.
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
    /// Start a session, and print its id; for a token, print that
    #[command(after_help = "Examples:
  agentsecrets session start --agent coder --pid $$ --ttl 30m
  agentsecrets session start --cgroup /agents.slice --hosts api.stripe.com --methods GET --uses 20
  agentsecrets session start --token --agent coder --ttl 1h

It is for the process that starts it and what descends from that, unless another is given. While it lives, and
for as long as those are there after it has ended, they may do nothing that it does not include.")]
    Start(Box<Start>),
    /// List the sessions, those of `run` too
    #[command(after_help = "Example: agentsecrets session list --json")]
    List,
    /// End a session: its connections are closed within a second, a run's command is ended
    #[command(
        after_help = "Examples:\n  agentsecrets session end 3f2a9c0d11e85b67\n  agentsecrets session end --all"
    )]
    End {
        /// Its id, as `session list` shows it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Every session
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// The agent entry that they act under [default: whichever holds for them]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// When it ends, such as 30m or 8h [default: when those are gone whom it is for]
    #[arg(long, value_name = "TIME", value_parser = super::run::duration)]
    ttl: Option<Duration>,
    /// The secrets that may be spent [default: those that the rules allow]
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    secrets: Option<Vec<SecretName>>,
    /// The hosts that may be reached, each as in a rule [default: those that the rules allow]
    #[arg(long, value_name = "H1,H2", value_delimiter = ',')]
    hosts: Option<Vec<String>>,
    /// The methods that may be used [default: those that the rules allow]
    #[arg(long, value_name = "M1,M2", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// How many requests may spend a secret
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    /// For this process and what descends from it
    #[arg(long, value_name = "PID", group = "whom")]
    pid: Option<u32>,
    /// For what is in this cgroup, or below it
    #[arg(long, value_name = "PATH", group = "whom")]
    cgroup: Option<String>,
    /// For what is in this container: its whole id
    #[arg(long, value_name = "ID", group = "whom")]
    container: Option<String>,
    /// For whoever shows a token, which is printed this once
    #[arg(long, group = "whom")]
    token: bool,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Start(start) => begin(*start, context),
        Verb::List => list(context),
        Verb::End { id, all: _ } => end(id.as_deref(), context),
    }
}

fn begin(start: Start, context: &Context) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failure, error);
    let minted = start.token.then(|| token::mint(presented::SESSION)).transpose().map_err(failed)?;
    let (id, who) = match &minted {
        Some(minted) => (minted.id.clone(), Who::Token { sha256: minted.digest.clone() }),
        None => (token::new_id().map_err(failed)?, who(&start, context)?),
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
    session.check().map_err(|why| Failure::new(Exit::Usage, why))?;
    registry::change(&context.home.sessions(), |sessions: &mut Sessions| {
        let secrets = session.secrets.as_deref().unwrap_or_default();
        let notes = vec![format!("session {id}: {}", bounds(&session))];
        admin_record::record(context, "session start", session.agent.as_ref(), secrets, notes)?;
        if session.uses.is_some() {
            session_uses::begin(&context.home.session_uses(&id)).map_err(failed)?;
        }
        sessions.forget_gone(&context.home);
        sessions.sessions.push(session.clone());
        Ok::<_, Failure>(())
    })?;
    eprintln!("session {id} {}: {}", whom(&session.who), bounds(&session));
    let text = minted.as_ref().map_or(id.as_str(), |minted| minted.text.as_str());
    match context.json {
        true => {
            let token = minted.as_ref().map(|minted| minted.text.as_str());
            print_json(&json!({ "id": id, "token": token, "expires": session.expires }))
        }
        false => show(zeroize::Zeroizing::new(format!("{text}\n")).as_bytes()),
    }
}

/// Whom it is for.
fn who(start: &Start, context: &Context) -> Result<Who, Failure> {
    if let Some(path) = &start.cgroup {
        let path = format!("/{}", path.trim_matches('/'));
        let is_there = hierarchy().is_none_or(|root| root.join(path.trim_start_matches('/')).is_dir());
        return match is_there {
            true => Ok(Who::Cgroup { path }),
            false => Err(Failure::new(Exit::NotFound, format!("there is no cgroup {path}"))),
        };
    }
    if let Some(id) = &start.container {
        let wrong = || Failure::new(Exit::Usage, "a container is named by its whole id, 64 digits of hex");
        return is_whole_id(id).then(|| Who::Container { id: id.clone() }).ok_or_else(wrong);
    }
    let asked = || match context.starter() {
        Some(process) => Ok(process.pid),
        None => crate::identity::parent_id().map_err(|error| Failure::new(Exit::Failure, error)),
    };
    let pid = start.pid.map_or_else(asked, Ok)?;
    let start_time = ancestry::start_of(pid)
        .ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no process {pid}")))?;
    let cgroup = container::cgroup_of(pid).ok().flatten().unwrap_or_default();
    let container = Container::of(&cgroup).map(|container| container.id.to_owned());
    Ok(Who::Tree { pid, start_time, container })
}

/// How a session stands, for those who look at it.
fn state(session: &Session, context: &Context) -> &'static str {
    let used = session
        .uses
        .map(|most| session_uses::used(&context.home.session_uses(&session.id)).is_ok_and(|n| n < most));
    if session.boot != clock::boot() || !session.who.is_there() {
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

/// How many sessions are live, runs included.
pub(super) fn live(context: &Context) -> Result<usize, Failure> {
    let sessions: Sessions = registry::read(&context.home.sessions())?;
    Ok(sessions.sessions.iter().filter(|session| state(session, context) == "live").count())
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let sessions: Sessions = registry::read(&context.home.sessions())?;
    let shown = sessions.sessions.iter().map(|session| (session, state(session, context)));
    // Those of whom nobody is left bound nobody.
    let shown: Vec<_> = shown.filter(|(_, state)| *state != "gone").collect();
    let used = |session: &Session| {
        session.uses.map(|_| session_uses::used(&context.home.session_uses(&session.id)).unwrap_or_default())
    };
    if context.json {
        let entry = |(session, state): &(&Session, &str)| {
            json!({
                "id": session.id, "state": state, "for": whom(&session.who), "agent": session.agent,
                "secrets": session.secrets, "hosts": session.hosts, "methods": session.methods,
                "uses": session.uses, "used": used(session), "started": session.started,
                "expires": session.expires, "ended": session.ended,
            })
        };
        return print_json(&shown.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |(session, state): &(&Session, &str)| {
        let agent = session.agent.as_ref().map(ToString::to_string).unwrap_or_default();
        let until = session.expires.map_or("-".to_owned(), |end| format!("{end:.0}"));
        let used = used(session).map_or(String::new(), |used| format!("used {used}, "));
        let bounds = format!("{used}{}", bounds(session));
        [session.id.clone(), (*state).to_owned(), whom(&session.who), agent, until, bounds]
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    show(table(["Session", "State", "For", "Agent", "Until", "Includes"], &rows).as_bytes())
}

fn end(id: Option<&str>, context: &Context) -> Result<ExitCode, Failure> {
    let what = id.map_or("every session".to_owned(), |id| format!("session {id}"));
    let count = registry::change(&context.home.sessions(), |sessions: &mut Sessions| {
        sessions.forget_gone(&context.home);
        let meant = |session: &&mut Session| id.is_none_or(|id| session.id == id);
        let meant: Vec<&mut Session> = sessions.sessions.iter_mut().filter(meant).collect();
        if let Some(id) = id.filter(|_| meant.is_empty()) {
            return Err(Failure::new(Exit::NotFound, format!("there is no session {id}"))
                .hint("agentsecrets session list"));
        }
        admin_record::record(context, "session end", None, &[], vec![what])?;
        let mut count = 0;
        for session in meant {
            count += usize::from(session.ended.is_none());
            session.ended.get_or_insert_with(Timestamp::now);
        }
        Ok(count)
    })?;
    eprintln!("ended {count}");
    Ok(ExitCode::SUCCESS)
}

fn whom(who: &Who) -> String {
    match who {
        Who::Tree { pid, container: None, .. } => format!("process {pid}"),
        Who::Tree { pid, container: Some(id), .. } => format!("process {pid} in container {}", short(id)),
        Who::Cgroup { path } => format!("cgroup {path}"),
        Who::Container { id } => format!("container {}", short(id)),
        Who::Run { .. } => "run".to_owned(),
        Who::Token { .. } => "token".to_owned(),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// What it includes, for people.
fn bounds(session: &Session) -> String {
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
