//! A Windows of this machine's own: one for all of these tests, with a folder on its drive for each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::spine::SECRET;
use crate::support::certificate::Authority;
use crate::support::process::{Outcome, command, finish, finish_child, finish_with};
use crate::support::upstream::{Options, Upstream};

/// Wine's own program, without a look for one of 32 bits.
const WINE: &str = "/usr/lib/wine/wine64";
/// The workspace's folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A person's folder on the drive `C:`, with a server that their policy allows. Dropping it removes it.
pub(super) struct Windows {
    folder: tempfile::TempDir,
    pub(super) authority: Authority,
    pub(super) api: Upstream,
    /// The variables that programs started from here on get besides.
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Windows {
    /// One with a secret in the vault, which a key file opens.
    #[track_caller]
    pub(super) fn new() -> Self {
        let windows = Self::empty();
        windows.secret("API_KEY", SECRET);
        // Wine knows no roots that are added to the system's: the rule has its own.
        windows.agent("", "secrets: [API_KEY]\nroots: ca.pem");
        windows
    }

    /// One in which nothing is stored.
    #[track_caller]
    pub(super) fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("home-").tempdir_in(drive()).unwrap();
        let authority = Authority::new();
        let api = Upstream::start(Options::https(&authority, &["api.test"]));
        let windows = Self { folder, authority, api, variables: Vec::new() };
        fs::write(windows.path("key"), "a key file of at least thirty-two bytes\n").unwrap();
        private(&windows.path("key"));
        fs::write(windows.path("ca.pem"), windows.authority.pem()).unwrap();
        windows.write("ca.pem", &windows.authority.pem());
        windows
    }

    /// Where `name` of its folder is, for programs of this system.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same for its own programs.
    pub(super) fn named(&self, name: &str) -> String {
        let folder = self.folder.path().strip_prefix(drive()).unwrap().display().to_string();
        format!(r"C:\{folder}\{}", name.replace('/', r"\")).trim_end_matches('\\').to_owned()
    }

    /// `AGENTSECRETS_HOME`, as this system sees it.
    pub(super) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A program of that system, by its path there or here.
    pub(super) fn program(&self, program: &str) -> Command {
        let mut started = wine(program);
        started
            .current_dir(self.folder.path())
            .env("AGENTSECRETS_HOME", self.named("home"))
            .env("AGENTSECRETS_VAULT_KEY_FILE", self.named("key"))
            .envs(self.variables.iter().map(|(name, value)| (*name, value)));
        started
    }

    /// `agentsecrets` with these words.
    pub(super) fn types(&self, words: &[&str]) -> Command {
        let program = Path::new(ROOT).join("target/systems/x86_64-pc-windows-gnu/debug/agentsecrets.exe");
        assert!(program.exists(), "{} is not there: run cargo xtask systems", program.display());
        let mut started = self.program(program.to_str().unwrap());
        started.args(words);
        started
    }

    /// How it ends.
    #[track_caller]
    pub(super) fn sees(&self, words: &[&str]) -> Outcome {
        finish(&mut self.types(words))
    }

    /// Stores a secret from standard input.
    #[track_caller]
    pub(super) fn secret(&self, name: &str, value: &str) -> Outcome {
        let set = finish_with(&mut self.types(&["secrets", "set", name]), value.as_bytes());
        assert_eq!(set.code, Some(0), "{set:#?}");
        set
    }

    /// Writes a file of its home, which the program has made.
    #[track_caller]
    pub(super) fn write(&self, name: &str, text: &str) {
        if !self.home().exists() {
            fs::create_dir(self.home()).unwrap();
            private(&self.home());
        }
        let new = self.path(&format!("home/{name}.new"));
        fs::write(&new, text).unwrap();
        private(&new);
        fs::rename(new, self.home().join(name)).unwrap();
    }

    /// Puts a policy in force whose only rule allows the server, with `more` keys, to an agent entry with `facts`.
    pub(super) fn agent(&self, facts: &str, more: &str) {
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

    /// The server's URL for `path`.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    /// The audit log's records of requests, oldest first.
    #[track_caller]
    pub(super) fn audit(&self) -> Vec<Value> {
        let lines = self.sees(&["audit", "list", "--json"]).ok();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The drive `C:`, made when it is asked for first; the name of the tests' server is in its file of hosts.
fn drive() -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    let drive = prefix().join("drive_c");
    MADE.get_or_init(|| {
        fs::create_dir_all(prefix()).unwrap();
        if !drive.join("windows/system32/winecfg.exe").exists() {
            finish(wine("wineboot").arg("--init")).ok();
        }
        // Programs of today refuse older ones.
        finish(wine("winecfg").args(["-v", "win10"])).ok();
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
        // It would offer to fetch them.
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=");
    wine
}

/// Makes a file or folder its owner's alone, as Wine sees it too.
pub(super) fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Node, as a program of that system. It writes what it has to say to `said.txt` of the person's folder, which is
/// given back: Wine gives it no pipe that it knows.
#[track_caller]
pub(super) fn node(windows: &Windows, script: &str, arguments: &[&str]) -> String {
    let program = Path::new(ROOT).join("target/test-clients/windows/nodejs/node.exe");
    assert!(program.exists(), "{} is not there: run cargo xtask systems --run", program.display());
    // With a name of its own on that system's drive.
    let there = windows.path("node.exe");
    if !there.exists() {
        fs::hard_link(&program, &there).or_else(|_| fs::copy(&program, &there).map(drop)).unwrap();
    }
    let (said, told) = (windows.path("said.txt"), windows.path("script.js"));
    let _ = fs::remove_file(&said);
    let begin = "const say = text => require('fs').appendFileSync('said.txt', text + '');\n\
        process.on('uncaughtException', error => { say(error.stack); process.exit(1); });\n";
    fs::write(&told, format!("{begin}{script}")).unwrap();
    let mut node = windows.program(&windows.named("node.exe"));
    node.arg(windows.named("script.js")).args(arguments);
    let errors = fs::File::create(windows.path("errors.txt")).unwrap();
    node.stdout(errors.try_clone().unwrap()).stderr(errors);
    let ended = finish_child(node.spawn().unwrap(), format!("{node:?}"));
    let said = fs::read_to_string(&said).unwrap_or_default();
    let errors = fs::read_to_string(windows.path("errors.txt")).unwrap();
    assert_eq!(ended.code, Some(0), "{said}\n{errors}");
    said
}
