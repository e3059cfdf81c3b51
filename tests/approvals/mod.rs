//! Requests that a person must approve: held, seen, answered from another door, and spent as they were seen.

mod answers;
mod binding;
mod desktop;
mod limits;
mod own;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::spine::World;
use crate::support::home::Home;
use crate::support::process::{Outcome, finish};

/// What the agent sends is a line of curl's arguments; what it says is the answer's body and status.
const AGENT: &str = r#"echo ready
while read -r line; do
  eval "curl -sS --max-time 60 -w '\n%{http_code}\n' -H 'Authorization: Bearer AS_SECRET_API_KEY' $line"
  echo end
done"#;

/// What asks for something that is held, and meanwhile for something that is not whenever it is told to.
const BESIDE: &str = r#"echo ready
as_agent() { curl -sS -o /dev/null -w '%{http_code}\n' -H 'Authorization: Bearer AS_SECRET_API_KEY' "$1"; }
as_agent $1 &
while read -r line; do as_agent $2; done
wait"#;

/// A world whose only rule holds requests.
fn holding(wait: &str, more: &str) -> World {
    let world = World::new();
    world.rule(&format!("secrets: [API_KEY]\napprove: {{ wait: {wait} }}\n{more}"));
    world
}

/// An agent that asks when it is told to, until it is dropped.
struct Asking {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Asking {
    fn of(world: &World) -> Self {
        Self::as_program(world.home.run_agent(["sh", "-c", AGENT]))
    }

    fn as_program(mut program: Command) -> Self {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, says }
    }

    /// Asks, and does not wait.
    fn ask(&mut self, arguments: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{arguments}").unwrap();
    }

    /// What it was answered.
    #[track_caller]
    fn told(&mut self) -> (u16, String) {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "the agent ended: {lines:?}");
            if line == "end\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines.pop().unwrap();
        (status.parse().unwrap_or_else(|_| panic!("{lines:?} {status}")), lines.join("\n"))
    }

    /// Has asked for `/pay`, which is held, and asks for `/other`, which is not, whenever it is told to.
    fn beside(world: &World) -> Self {
        let port = world.api.port();
        let held = "secrets: [API_KEY]\napprove: { wait: 30s }";
        let free = "secrets: [API_KEY]\npaths: [/other]";
        world.rules(&[("api.test", port, free), ("api.test", port, held)]);
        let (held, free) = (world.url("/pay"), world.url("/other"));
        Self::as_program(world.home.run_agent(["sh", "-c", BESIDE, "sh", &held, &free]))
    }

    /// Its next line.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Tells it to ask for what is not held: the status.
    fn other(&mut self) -> String {
        self.ask("");
        self.line()
    }

    /// Asks, and is refused.
    #[track_caller]
    fn refused(&mut self, arguments: &str) -> (u16, Value) {
        self.ask(arguments);
        let (status, body) = self.told();
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}")))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A person who watches.
struct Watching {
    child: Child,
    says: Receiver<String>,
}

impl Watching {
    fn at(home: &Home) -> Self {
        Self::of(home.agentsecrets(["approvals", "--watch", "--show-body", "--json"]))
    }

    fn of(mut program: Command) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, says) = channel();
        // Ends with the child, or with whoever listens.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { child, says }
    }

    /// The next question.
    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.says.recv_timeout(Duration::from_secs(60)).expect("nothing was asked");
        serde_json::from_str(&line).unwrap()
    }

    /// Its id.
    #[track_caller]
    fn next_id(&mut self) -> String {
        self.next()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What waits now.
#[track_caller]
fn waiting(home: &Home) -> Vec<Value> {
    let all = finish(&mut home.agentsecrets(["approvals", "--json"])).json();
    all.as_array().unwrap().clone()
}

/// `agentsecrets` with these words, as the person.
#[track_caller]
fn person(home: &Home, words: &[&str]) -> Outcome {
    finish(&mut home.agentsecrets(words))
}

/// The id that a refusal names.
#[track_caller]
fn id_in(refusal: &Value) -> String {
    let message = refusal["message"].as_str().unwrap();
    let (_, rest) = message.split_once("agentsecrets approve ").unwrap_or_else(|| panic!("{message}"));
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
}
