//! A temporary home with a key and a policy, and the program that runs in it. Nothing outside that folder
//! changes, and the folder is removed at the end.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::digest::random_hex;
use crate::workspace;

/// A temporary home; dropping it removes its folder.
pub(crate) struct TestHome {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

/// The output and the result of a command.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestHome {
    /// Builds the program and sets up an empty home.
    pub(crate) fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// The same with the release build of the program.
    pub(crate) fn released() -> Result<Self> {
        Self::with(&["--release"])
    }

    fn with(profile: &[&str]) -> Result<Self> {
        let build = ["build", "--package", "agentsecrets", "--message-format", "json-render-diagnostics"];
        let output = workspace::cargo().args(build).args(profile).stderr(Stdio::inherit()).output();
        let output = output.context("cannot start cargo build")?;
        if !output.status.success() {
            bail!("cargo build failed ({})", output.status);
        }
        let folder = tempfile::Builder::new().prefix("agentsecrets-demo-").tempdir()?;
        let home = Self { folder, binary: binary(&output.stdout).context("cargo built no agentsecrets")? };
        fs::create_dir(home.path("home"))?;
        home.write("key", &random_hex::<32>()?)?;
        home.write("ca.pem", "")?;
        home.write("hosts", "127.0.0.1 localhost\n")?;
        Ok(home)
    }

    /// Writes the policy.
    pub(crate) fn policy(&self, yaml: &str) -> Result<()> {
        self.write("home/policy.yaml", yaml)
    }

    /// Resolves these names to `address`, and trusts `authority`, for agents of this home.
    pub(crate) fn set_upstream(&self, names: &[&str], address: IpAddr, authority: &str) -> Result<()> {
        let lines: Vec<String> = names.iter().map(|name| format!("{address} {name}\n")).collect();
        self.write("hosts", &format!("127.0.0.1 localhost\n{}", lines.concat()))?;
        self.write("ca.pem", authority)
    }

    /// Runs `agentsecrets` with these arguments and this input.
    pub(crate) fn agentsecrets(&self, arguments: &[&str], input: &str) -> Result<Outcome> {
        let mut command = Command::new(&self.binary);
        self.finish(command.args(arguments), input)
    }

    /// Runs `agentsecrets run -- arguments` in a mount namespace with its own `/etc/hosts`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        self.finish(&mut self.agent(arguments), "")
    }

    /// The command of [`run`](Self::run). Its process keeps its pid when it executes the program.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Command {
        let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(self.path("hosts")).arg(&self.binary).args(["run", "--"]).args(arguments);
        self.at_home(&mut command);
        command
    }

    /// The records of requests, oldest first.
    pub(crate) fn audit(&self) -> Result<Vec<Value>> {
        let lines = self.agentsecrets(&["audit", "list", "--json"], "")?.stdout;
        lines
            .lines()
            .map(|line| serde_json::from_str(line).context("the audit log is not readable"))
            .collect()
    }

    fn at_home(&self, command: &mut Command) {
        command
            .current_dir("/")
            .env("AGENTSECRETS_HOME", self.path("home"))
            .env("AGENTSECRETS_VAULT_KEY_FILE", self.path("key"))
            .env("AGENTSECRETS_UPSTREAM_CA", self.path("ca.pem"))
            .env("NO_COLOR", "1");
    }

    fn finish(&self, command: &mut Command, input: &str) -> Result<Outcome> {
        self.at_home(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", workspace::show(command)))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that fails before it reads closes its end.
            let _ = stdin.write_all(input.as_bytes());
        }
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Outcome { success: status.success(), stdout: text(stdout), stderr: text(stderr) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    }
}

impl Outcome {
    /// This outcome if the command succeeded; else an error with its stderr.
    pub(crate) fn expect(self, what: &str) -> Result<Self> {
        if !self.success {
            bail!("{what} failed: {}", self.stderr.trim());
        }
        Ok(self)
    }
}

/// The path of the program in cargo's build messages.
fn binary(messages: &[u8]) -> Option<PathBuf> {
    String::from_utf8_lossy(messages).lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let named = message.get("target")?.get("name")? == "agentsecrets";
        named.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    })
}
