//! A Wine prefix for all of these tests, with a folder on drive `C:` for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::end_to_end::SECRET;
use crate::support::certificate::Authority;
use crate::support::process::{Outcome, command, run, run_with_input, wait_with_output};
use crate::support::upstream::{Options, Upstream};

/// Wine's 64-bit program.
const WINE: &str = "/usr/lib/wine/wine64";
/// The workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A user's folder on drive `C:`, with a server that the policy allows. Dropping it removes it.
pub(super) struct Windows {
    folder: tempfile::TempDir,
    pub(super) authority: Authority,
    pub(super) api: Upstream,
    /// Further variables for programs started from here on.
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Windows {
    /// With a secret in a vault that a key file opens.
    #[track_caller]
    pub(super) fn new() -> Self {
        let windows = Self::empty();
        windows.secret("API_KEY", SECRET);
        // Wine ignores roots added to the system's: the rule has its own.
        windows.write_policy("", "secrets: [API_KEY]\nroots: ca.pem");
        windows
    }

    /// Without a stored secret.
    #[track_caller]
    pub(super) fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("home-").tempdir_in(drive()).unwrap();
        let authority = Authority::new();
        let api = Upstream::start(Options::https(&authority, &["api.test"]));
        let windows = Self { folder, authority, api, variables: Vec::new() };
        fs::write(windows.path("key"), "a key file of at least thirty-two bytes\n").unwrap();
        make_private(&windows.path("key"));
        fs::write(windows.path("ca.pem"), windows.authority.pem()).unwrap();
        windows.write("ca.pem", &windows.authority.pem());
        windows
    }

    /// The Linux path of `name` in its folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The Windows path of `name` in its folder.
    pub(super) fn windows_path(&self, name: &str) -> String {
        let folder = self.folder.path().strip_prefix(drive()).unwrap().display().to_string();
        format!(r"C:\{folder}\{}", name.replace('/', r"\")).trim_end_matches('\\').to_owned()
    }

    /// `AGENTSECRETS_HOME` as a Linux path.
    pub(super) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A Windows program, by its Windows or Linux path.
    pub(super) fn program(&self, program: &str) -> Command {
        let mut started = wine(program);
        started
            .current_dir(self.folder.path())
            .env("AGENTSECRETS_HOME", self.windows_path("home"))
            .env("AGENTSECRETS_VAULT_KEY_FILE", self.windows_path("key"))
            .envs(self.variables.iter().map(|(name, value)| (*name, value)));
        started
    }

    /// `agentsecrets` with these arguments.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let program = Path::new(ROOT).join("target/systems/x86_64-pc-windows-gnu/debug/agentsecrets.exe");
        assert!(program.exists(), "{} is not there: run cargo xtask systems", program.display());
        let mut started = self.program(program.to_str().unwrap());
        started.args(words);
        started
    }

    #[track_caller]
    pub(super) fn run(&self, words: &[&str]) -> Outcome {
        run(&mut self.command(words))
    }

    /// Stores a secret from standard input.
    #[track_caller]
    pub(super) fn secret(&self, name: &str, value: &str) -> Outcome {
        let set = run_with_input(&mut self.command(&["secrets", "set", name]), value.as_bytes());
        assert_eq!(set.code, Some(0), "{set:#?}");
        set
    }

    /// Writes a file of the existing home.
    #[track_caller]
    pub(super) fn write(&self, name: &str, text: &str) {
        if !self.home().exists() {
            fs::create_dir(self.home()).unwrap();
            make_private(&self.home());
        }
        let new = self.path(&format!("home/{name}.new"));
        fs::write(&new, text).unwrap();
        make_private(&new);
        fs::rename(new, self.home().join(name)).unwrap();
    }

    /// Writes a policy with an agent entry with `facts`, whose only rule allows the server with `more` keys.
    pub(super) fn write_policy(&self, facts: &str, more: &str) {
        let port = self.api.port();
        self.write(
            "policy.yaml",
            &format!(
                "version: 1\nagents:\n  - name: coder\n{facts}    allow:\n      - host: api.test\n        ports: \
                 [{port}]\n        private: true\n        {}\n",
                more.replace('\n', "\n        ")
            ),
        );
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    /// The audit records of requests, oldest first.
    #[track_caller]
    pub(super) fn audit(&self) -> Vec<Value> {
        self.run(&["audit", "list", "--json"]).json_lines()
    }
}

/// The drive `C:`, created at first use; its hosts file has the test server's name.
fn drive() -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    let drive = prefix().join("drive_c");
    MADE.get_or_init(|| {
        fs::create_dir_all(prefix()).unwrap();
        if !drive.join("windows/system32/winecfg.exe").exists() {
            run(wine("wineboot").arg("--init")).ok();
        }
        // Current programs refuse older versions.
        run(wine("winecfg").args(["-v", "win10"])).ok();
        let hosts = drive.join("windows/system32/drivers/etc/hosts");
        fs::write(hosts, "127.0.0.1 localhost\r\n127.0.0.1 api.test\r\n").unwrap();
    });
    drive
}

fn prefix() -> PathBuf {
    Path::new(ROOT).canonicalize().unwrap().join("target/wine/prefix")
}

fn wine(program: &str) -> Command {
    let mut wine = command(WINE);
    wine.arg(program)
        .env("WINEPREFIX", prefix())
        .env("HOME", prefix())
        .env("WINEARCH", "win64")
        .env("WINEDEBUG", "-all")
        // Wine would offer to download them.
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=");
    wine
}

/// Restricts a file or folder to its owner, also in Wine's view.
pub(super) fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs Node as a Windows program. It writes its output to `said.txt` in the user's folder, since Node
/// rejects Wine's pipes.
#[track_caller]
pub(super) fn node(windows: &Windows, script: &str, arguments: &[&str]) -> String {
    let program = Path::new(ROOT).join("target/test-clients/windows/nodejs/node.exe");
    assert!(program.exists(), "{} is not there: run cargo xtask systems --run", program.display());
    // Under its own name on the Windows drive.
    let there = windows.path("node.exe");
    if !there.exists() {
        fs::hard_link(&program, &there).or_else(|_| fs::copy(&program, &there).map(drop)).unwrap();
    }
    let (output, script_file) = (windows.path("said.txt"), windows.path("script.js"));
    let _ = fs::remove_file(&output);
    let begin = "const say = text => require('fs').appendFileSync('said.txt', text + '');\n\
        process.on('uncaughtException', error => { say(error.stack); process.exit(1); });\n";
    fs::write(&script_file, format!("{begin}{script}")).unwrap();
    let mut node = windows.program(&windows.windows_path("node.exe"));
    node.arg(windows.windows_path("script.js")).args(arguments);
    let errors = fs::File::create(windows.path("errors.txt")).unwrap();
    node.stdout(errors.try_clone().unwrap()).stderr(errors);
    let ended = wait_with_output(node.spawn().unwrap(), format!("{node:?}"));
    let output = fs::read_to_string(&output).unwrap_or_default();
    let errors = fs::read_to_string(windows.path("errors.txt")).unwrap();
    assert_eq!(ended.code, Some(0), "{output}\n{errors}");
    output
}
