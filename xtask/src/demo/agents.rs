//! The agents of the demo: curl, a Python program and a Node program. None of them knows AgentSecrets. Each sends a
//! request and prints its whole environment and the response.

use anyhow::{Context, Result};

use super::test_home::TestHome;

/// The name of the secret in the policy.
pub(super) const KEY: &str = "API_KEY";
/// The host of the API.
pub(super) const API: &str = "api.demo";
/// The line between the environment and the response in the output.
const SEPARATOR: &str = "-- answer --";

/// An agent's program.
pub(super) struct Agent {
    pub(super) name: &'static str,
    /// The command as a person would type it.
    pub(super) shown: &'static str,
    command: &'static [&'static str],
}

/// The output of an agent.
pub(super) struct AgentOutput {
    /// All of it: the environment, and the headers and body of the response.
    pub(super) all: String,
    /// The value of `API_KEY` in its environment.
    pub(super) variable: String,
    /// The credential that the API repeated in the response.
    pub(super) echo: String,
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
    /// Runs it as an agent of `home`.
    pub(super) fn run(&self, home: &TestHome) -> Result<AgentOutput> {
        let all = home.run(self.command)?.expect(self.name)?.stdout;
        let (environment, answer) =
            all.split_once(SEPARATOR).with_context(|| format!("{} got no answer: {all}", self.name))?;
        let variable = format!("{KEY}=");
        let variable_value =
            environment.lines().find_map(|line| line.strip_prefix(&variable)).unwrap_or("nothing");
        let body = answer.lines().rev().find(|line| line.starts_with('{'));
        let body: serde_json::Value = serde_json::from_str(body.unwrap_or_default())
            .with_context(|| format!("{} got an answer that is not the API's: {answer}", self.name))?;
        let echo = body.get("you_sent").or(body.get("error")).and_then(|text| text.as_str());
        Ok(AgentOutput {
            variable: variable_value.to_owned(),
            echo: echo.unwrap_or("nothing").to_owned(),
            all,
        })
    }
}
