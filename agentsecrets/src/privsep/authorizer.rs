//! Who may: root, the daemon's own user, a trusted program, else the person, present: by a passphrase at a
//! terminal, or by polkit. The judge runs as the daemon's user, and leaves a record of every act that takes more
//! than asking.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Uid, isatty};

use super::peer::Peer;
use super::polkit::{self, Answer};
use crate::audit::{Act, Log, Status, visible};
use crate::identity::Process;
use crate::privsep::confirmation::{Absent, Presence};
use crate::privsep::system_config::{Means, System};
use crate::privsep::user_home;
use crate::sys::home::Home;
use crate::sys::prompt::hidden_at;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, SecretName};
use crate::types::shell_quote::quoted;

/// How long a person may take to type a passphrase.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it may be mistyped.
const TRIES: u32 = 3;
/// The longest command line that is shown, in characters.
const LONGEST_SHOWN: usize = 1000;

/// What a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It shows no value and gives no right.
    Nothing,
    /// It shows a value, gives a right, or changes what does.
    Presence,
}

/// As whom a verb is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As the daemon's user.
    Daemon,
    /// With the privileges of the launcher.
    Launcher,
    /// As the daemon's user, with the right to start a command as the person.
    Giver,
}

/// A command line as the judge understands it.
#[derive(Debug)]
pub struct Verb {
    /// What it takes.
    pub need: Need,
    /// As whom it is started.
    pub start: Start,
    /// Its words, such as `secrets set`.
    pub words: String,
    /// The environment that it names.
    pub environment: Environment,
    /// The secrets that it names.
    pub secrets: Vec<SecretName>,
}

/// What the door must know of the verbs, which lie above it.
#[derive(Clone, Copy)]
pub struct Verbs {
    /// Understands a command line.
    pub understand: fn(&[OsString]) -> Result<Verb, Failure>,
    /// Whether a process is a program that the person trusts with these secrets.
    pub is_trusted: fn(&Home, &Process, &Verb) -> bool,
}

/// What is judged.
pub struct Question<'a> {
    /// The machine.
    pub system: &'a System,
    /// Who asks.
    pub peer: &'a Peer,
    /// For whom.
    pub person: Uid,
    /// What for.
    pub arguments: &'a [OsString],
    /// Where a person could be asked.
    pub terminals: Vec<BorrowedFd<'a>>,
}

/// What the judge says of an act that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// How the verb is started.
    pub start: Start,
    /// Whether a trusted program has it done, and nobody was there to be asked.
    pub by_trust: bool,
}

/// Judges. The answer is how the verb is started.
pub fn judge(question: &Question<'_>, verbs: &Verbs) -> Result<Leave, Failure> {
    let verb = (verbs.understand)(question.arguments)?;
    let cannot = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("the door: {error}"));
    user_home::make_key(question.person).map_err(|error| cannot(&error))?;
    if verb.need == Need::Nothing {
        return Ok(Leave { start: verb.start, by_trust: false });
    }
    let home = Home::at(&user_home::of(question.person));
    let may = may(question, &verb, verbs, &home);
    let log = Log::open(&home.audit()).map_err(|error| cannot(&error))?;
    let (status, reason) = match &may {
        Ok(_) => (Status::Ok, None),
        Err(failure) => (Status::Blocked, Some(failure.what().to_owned())),
    };
    let mut notes: Vec<String> = may.iter().map(|why| why.shown().to_owned()).collect();
    if let Some(parent) = &question.peer.started_by {
        notes.push(format!(
            "started by {} (pid {}, sha256 {})",
            parent.exe.display(),
            parent.pid,
            parent.sha256
        ));
    }
    let act = Act {
        environment: &verb.environment,
        act: &verb.words,
        agent: None,
        secrets: &verb.secrets,
        process: Some(Arc::new(question.peer.process.clone())),
        status,
        reason,
        notes,
    };
    log.administrative(act).map_err(|error| cannot(&error))?;
    may.map(|why| Leave { start: verb.start, by_trust: why == Why::Trusted })
}

/// Why something may be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Root,
    Trusted,
    Present(Means),
}

impl Why {
    fn shown(self) -> &'static str {
        match self {
            Self::Root => "by root or the daemon's user",
            Self::Trusted => "by a trusted program",
            Self::Present(Means::Passphrase) => "by the person, present",
            Self::Present(Means::Polkit) => "by the person, present (polkit)",
        }
    }
}

fn may(question: &Question<'_>, verb: &Verb, verbs: &Verbs, home: &Home) -> Result<Why, Failure> {
    let peer = question.peer;
    if peer.uid.is_root() || peer.uid == question.system.uid {
        return Ok(Why::Root);
    }
    let callers = std::iter::once(&peer.process).chain(&peer.started_by);
    if callers.into_iter().any(|process| (verbs.is_trusted)(home, process, verb)) {
        return Ok(Why::Trusted);
    }
    present(question, verb).map(Why::Present)
}

/// Has the person prove presence.
fn present(question: &Question<'_>, verb: &Verb) -> Result<Means, Failure> {
    let announced = Announced::new(question, verb)?;
    match question.system.presence {
        Means::Passphrase => at_terminal(question, &announced, ""),
        // polkit writes the command line of who asks into the system's log.
        Means::Polkit if announced.holds_a_value => at_terminal(
            question,
            &announced,
            " (not by polkit: it logs command lines, and this one holds a value)",
        ),
        Means::Polkit => match polkit::ask(question.peer, &announced.on_one_line(), PATIENCE)? {
            Answer::Present => Ok(Means::Polkit),
            Answer::Nobody(why) => at_terminal(question, &announced, &format!(" (not by polkit: {why})")),
        },
    }
}

/// Has the person type the passphrase. `besides` says what was tried before.
fn at_terminal(question: &Question<'_>, announced: &Announced, besides: &str) -> Result<Means, Failure> {
    let denied = |what: &dyn std::fmt::Display| Failure::new(Exit::Denied, format!("{what}{besides}"));
    let terminal = question.terminals.iter().find(|terminal| isatty(**terminal).unwrap_or(false));
    let Some(terminal) = terminal else {
        return Err(denied(&"this needs your presence, and there is no terminal to ask at")
            .hint("run it at a terminal, or from a program that you trust"));
    };
    let presence = Presence::in_home(&user_home::of(question.person));
    let absent = |error: Absent| {
        let failure = denied(&error);
        match error {
            Absent::NotSet => failure.hint("sudo agentsecrets presence set"),
            _ => failure,
        }
    };
    presence.may_be_asked().map_err(absent)?;
    let mut prompt = format!("{announced}Your passphrase for it: ");
    for left in (0..TRIES).rev() {
        let typed = hidden_at(*terminal, &prompt, Some(PATIENCE)).map_err(|error| {
            denied(&format!("no passphrase was typed: {error}")).hint("run it again, and type it in time")
        })?;
        match presence.prove(&typed) {
            Ok(()) => return Ok(Means::Passphrase),
            Err(Absent::Wrong) if left > 0 => {
                presence.may_be_asked().map_err(absent)?;
                prompt = "That is not it. Your passphrase: ".into();
            }
            Err(error) => return Err(absent(error)),
        }
    }
    Err(absent(Absent::Wrong))
}

/// What the person is asked to agree to, in full view: a program that changed the command line on its way
/// would be seen here.
struct Announced {
    line: String,
    by: Option<String>,
    /// Whether a value was given inline, which is not shown.
    holds_a_value: bool,
}

impl Announced {
    /// What is too long to be seen is not asked.
    fn new(question: &Question<'_>, verb: &Verb) -> Result<Self, Failure> {
        let inline = verb.words == "secrets set";
        let mut holds_a_value = false;
        let shown = |word: &OsString| match word.to_string_lossy().split_once('=') {
            Some((name, _)) if inline && !name.starts_with('-') => {
                holds_a_value = true;
                format!("{}=…", visible(name))
            }
            _ => visible(&quoted(word)),
        };
        let line = question.arguments.iter().map(shown).collect::<Vec<_>>().join(" ");
        if line.chars().count() > LONGEST_SHOWN {
            let what = "this command line is too long to be shown to you whole, and so to be agreed to";
            return Err(Failure::new(Exit::Denied, what).hint("put what is long into a file"));
        }
        let by = question.peer.started_by.as_ref().map(|parent| {
            format!("asked for by {} (pid {})", visible(&parent.exe.to_string_lossy()), parent.pid)
        });
        Ok(Self { line, by, holds_a_value })
    }

    /// The same for a dialog, which shows one text.
    fn on_one_line(&self) -> String {
        std::iter::once(&self.line).chain(&self.by).map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for Announced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "AgentSecrets is to do this for you:")?;
        std::iter::once(&self.line).chain(&self.by).try_for_each(|line| writeln!(f, "  {line}"))
    }
}
