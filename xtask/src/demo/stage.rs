//! The demo's stage: a temporary home with a key, a policy and a secret of this run's own, and the real
//! binary in it. Nothing outside the folder changes; it is removed at the end.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace;

/// The stage; dropping it removes it.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

/// What a command printed and how it ended.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Stage {
    /// Builds the program and sets up an empty home.
    pub(crate) fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// The same with the program as it is released.
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
        let stage = Self { folder, binary: binary(&output.stdout).context("cargo built no agentsecrets")? };
        fs::create_dir(stage.path("home"))?;
        stage.write("key", &random_hex::<32>()?)?;
        stage.write("ca.pem", "")?;
        stage.write("hosts", "127.0.0.1 localhost\n")?;
        Ok(stage)
    }

    /// Writes the policy.
    pub(crate) fn policy(&self, yaml: &str) -> Result<()> {
        self.write("home/policy.yaml", yaml)
    }

    /// Lets these names lead to `address` inside the demo, and trusts `authority` to vouch for them.
    pub(crate) fn world(&self, names: &[&str], address: IpAddr, authority: &str) -> Result<()> {
        let lines: Vec<String> = names.iter().map(|name| format!("{address} {name}\n")).collect();
        self.write("hosts", &format!("127.0.0.1 localhost\n{}", lines.concat()))?;
        self.write("ca.pem", authority)
    }

    /// `agentsecrets` with these arguments and this input.
    pub(crate) fn agentsecrets(&self, arguments: &[&str], input: &str) -> Result<Outcome> {
        let mut command = Command::new(&self.binary);
        self.finish(command.args(arguments), input)
    }

    /// `agentsecrets run -- arguments`, where the demo's names lead to the demo's API: `/etc/hosts` is
    /// covered in a mount namespace of this run's own.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        self.finish(&mut self.agent(arguments), "")
    }

    /// The same, yet to be started. It keeps the pid of the process that is started.
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
            // A command that refuses before it reads closes its end.
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
    /// The same, if it succeeded; else an error with what it said.
    pub(crate) fn expect(self, what: &str) -> Result<Self> {
        if !self.success {
            bail!("{what} failed: {}", self.stderr.trim());
        }
        Ok(self)
    }
}

/// Random bytes in hex.
pub(crate) fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).context("no randomness")?;
    Ok(hex(&bytes))
}

/// The first half of a value's SHA-256, in hex: enough to see that two are one.
pub(crate) fn fingerprint(value: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
    hex(digest.as_ref().get(..8).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program that cargo says it built.
fn binary(messages: &[u8]) -> Option<PathBuf> {
    String::from_utf8_lossy(messages).lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let named = message.get("target")?.get("name")? == "agentsecrets";
        named.then(|| message.get("executable")?.as_str().map(PathBuf::from)).flatten()
    })
}
