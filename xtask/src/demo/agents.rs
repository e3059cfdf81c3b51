//! The agents of the demo: curl, a Python and a Node program, none of which knows of us. Each does what
//! its language's manual says, and then tells everything it holds: its environment and the answer.

use anyhow::{Context, Result};

use super::stage::Stage;

/// The name that the policy calls the secret by.
pub(super) const KEY: &str = "API_KEY";
/// The API that the secret is for.
pub(super) const API: &str = "api.demo";
/// Where the line between the environment and the answer is.
const LINE: &str = "-- answer --";

/// An agent's program.
pub(super) struct Agent {
    pub(super) name: &'static str,
    /// What a person would type.
    pub(super) shown: &'static str,
    command: &'static [&'static str],
}

/// What an agent told.
pub(super) struct Told {
    /// Everything: the whole environment, the answer's headers and body.
    pub(super) all: String,
    /// Its environment's `API_KEY`.
    pub(super) held: String,
    /// What the API said that it was sent.
    pub(super) back: String,
}

/// All of them.
pub(super) const AGENTS: &[Agent] = &[
    Agent {
        name: "curl",
        shown: r#"sh -c 'curl https://api.demo/v1/me -H "Authorization: Bearer $API_KEY"'"#,
        command: &[
            "/bin/sh",
            "-c",
            r#"env; echo "-- answer --"; curl -sSi https://api.demo/v1/me -H "Authorization: Bearer $API_KEY""#,
        ],
    },
    Agent {
        name: "Python",
        shown: "python3 me.py",
        command: &[
            "/usr/bin/python3",
            "-c",
            r#"
import os, urllib.request
print("\n".join(f"{name}={value}" for name, value in os.environ.items()))
request = urllib.request.Request("https://api.demo/v1/me", headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
with urllib.request.urlopen(request) as answer:
    print("-- answer --", answer.headers, answer.read().decode(), sep="\n")
"#,
        ],
    },
    Agent {
        name: "Node",
        shown: "node me.mjs",
        command: &[
            "/usr/bin/node",
            "--input-type=module",
            "-e",
            r#"
for (const [name, value] of Object.entries(process.env)) console.log(`${name}=${value}`);
const headers = { authorization: "Bearer " + process.env.API_KEY };
const answer = await fetch("https://api.demo/v1/me", { headers });
console.log("-- answer --\n" + JSON.stringify([...answer.headers]) + "\n" + (await answer.text()));
"#,
        ],
    },
];

impl Agent {
    /// Runs it on the stage.
    pub(super) fn run(&self, stage: &Stage) -> Result<Told> {
        let all = stage.run(self.command)?.expect(self.name)?.stdout;
        let (environment, answer) =
            all.split_once(LINE).with_context(|| format!("{} got no answer: {all}", self.name))?;
        let variable = format!("{KEY}=");
        let held = environment.lines().find_map(|line| line.strip_prefix(&variable)).unwrap_or("nothing");
        let body = answer.lines().rev().find(|line| line.starts_with('{'));
        let body: serde_json::Value = serde_json::from_str(body.unwrap_or_default())
            .with_context(|| format!("{} got an answer that is not the API's: {answer}", self.name))?;
        let back = body.get("you_sent").or(body.get("error")).and_then(|text| text.as_str());
        Ok(Told { held: held.to_owned(), back: back.unwrap_or("nothing").to_owned(), all })
    }
}
