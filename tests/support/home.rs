//! A home of a test's own: policy, key, vault and audit log in a temporary folder, names that resolve
//! only there, and the real binary started in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::{command, finish, finish_with};

/// The program under test.
pub(crate) const AGENTSECRETS: &str = env!("CARGO_BIN_EXE_agentsecrets");

/// The home; dropping it removes it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    shown: Vec<(PathBuf, &'static str)>,
    variables: BTreeMap<String, String>,
    audit_disk: Option<u32>,
}

impl Home {
    /// An empty home with a key, so that the vault needs no passphrase.
    pub(crate) fn new() -> Self {
        // Open to all but for what the program itself protects: that is what is tested.
        let open = fs::Permissions::from_mode(0o755);
        let folder =
            tempfile::Builder::new().prefix("agentsecrets-test-").permissions(open).tempdir().unwrap();
        let home = Self {
            folder,
            hosts: BTreeMap::new(),
            shown: Vec::new(),
            variables: BTreeMap::new(),
            audit_disk: None,
        };
        fs::create_dir(home.path()).unwrap();
        home.write("key", "a key file of at least thirty-two bytes\n", 0o600);
        home.write("ca.pem", "", 0o644);
        home
    }

    /// `AGENTSECRETS_HOME`.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The vault's key file.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// The roots that `trust` wrote, which agents can read too.
    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes the policy; a running interceptor reloads it.
    pub(crate) fn policy(&self, yaml: &str) {
        let new = self.path().join("policy.yaml.new");
        fs::write(&new, yaml).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path().join("policy.yaml")).unwrap();
    }

    /// Writes a file that a policy may name, whole or not at all.
    pub(crate) fn beside_the_policy(&self, name: &str, text: &str) {
        let new = self.path().join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path().join(name)).unwrap();
    }

    /// Writes the configuration, for programs started from here on.
    pub(crate) fn configure(&self, yaml: &str) {
        fs::write(self.path().join("config.yaml"), yaml).unwrap();
    }

    /// Stores a secret as a person would, from standard input.
    #[track_caller]
    pub(crate) fn secret(&self, name: &str, value: &str) {
        finish_with(&mut self.agentsecrets(["secrets", "set", name]), value.as_bytes()).ok();
    }

    /// Lets `name` resolve to `address`, for programs started from here on.
    pub(crate) fn host(&mut self, name: &str, address: impl Into<IpAddr>) {
        self.hosts.entry(name.into()).or_default().push(address.into());
    }

    /// Sets a variable of the environment, for programs started from here on.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// Shows `what` at the path `at`, to programs started from here on.
    pub(crate) fn show(&mut self, what: PathBuf, at: &'static str) {
        self.shown.push((what, at));
    }

    /// What `/etc/resolv.conf` says, for programs started from here on.
    pub(crate) fn resolv_conf(&mut self, text: &str) {
        let file = self.write("resolv.conf", text, 0o644);
        self.show(file, "/etc/resolv.conf");
    }

    /// Lets names that are in no file be asked of this server, for programs started from here on.
    pub(crate) fn name_server(&mut self, address: IpAddr) {
        self.resolv_conf(&format!("nameserver {address}\n"));
    }

    /// A program with this home's names, in no sandbox.
    pub(crate) fn beside<I, S>(&self, words: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut started = self.privately("env");
        started.args(words);
        started
    }

    /// Gives the audit log a disk of its own of `bytes`, for programs started from here on. It goes when
    /// they go.
    pub(crate) fn audit_disk(&mut self, bytes: u32) {
        fs::create_dir_all(self.path().join("audit")).unwrap();
        self.audit_disk = Some(bytes);
    }

    /// The file with the authority that upstream servers prove themselves by.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Lets upstream servers prove themselves by this authority.
    pub(crate) fn trust(&self, pem: &str) {
        self.write("ca.pem", pem, 0o644);
    }

    /// The program with `arguments`, at this home, with `/etc/hosts` of our own where root runs the test.
    pub(crate) fn agentsecrets<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut started = if nix::unistd::geteuid().is_root() {
            self.privately(AGENTSECRETS)
        } else {
            command(AGENTSECRETS)
        };
        started
            .args(arguments)
            .current_dir("/tmp")
            .envs(&self.variables)
            .env("AGENTSECRETS_HOME", self.path())
            .env("AGENTSECRETS_VAULT_KEY_FILE", self.key())
            .env("AGENTSECRETS_UPSTREAM_CA", self.bundle());
        started
    }

    /// `agentsecrets run -- arguments`.
    pub(crate) fn run_agent<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut started = self.agentsecrets(["run", "--"]);
        started.args(arguments);
        started
    }

    /// The audit log's records of requests, oldest first.
    #[track_caller]
    pub(crate) fn audit(&self) -> Vec<Value> {
        let lines = finish(&mut self.agentsecrets(["audit", "list", "--json"])).ok();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// `program` in a mount namespace whose `/etc/hosts` is ours, with what is shown; the machine's files
    /// stay as they are. It keeps the pid of the process that is started.
    fn privately(&self, program: &str) -> Command {
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, addresses) in &self.hosts {
            for address in addresses {
                hosts.push_str(&format!("{address} {name}\n"));
            }
        }
        let file = self.write("hosts", &hosts, 0o644);
        let mut started = command("unshare");
        let mut script = String::new();
        if let Some(bytes) = self.audit_disk {
            let audit = self.path().join("audit");
            // With what was recorded so far: the log's end is known outside of it.
            script += &format!(
                "mkdir {0}.disk && mount -t tmpfs -o mode=0700,size={bytes} audit {0}.disk && \
                 cp -a {0}/. {0}.disk && mount --move {0}.disk {0} && ",
                audit.display()
            );
        }
        script +=
            r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done; shift; exec "$@""#;
        started.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        for (what, at) in &self.shown {
            started.arg(what).arg(at);
        }
        started.arg(file).args(["/etc/hosts", "--", program]);
        started
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path: &Path = &self.folder.path().join(name);
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_path_buf()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_in_the_home_alone() {
        let mut home = Home::new();
        home.host("api.test", [10, 1, 2, 3]);
        let hosts = finish(home.privately("getent").args(["hosts", "api.test"])).ok();
        assert!(hosts.contains("10.1.2.3"), "{hosts}");
        assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("api.test"));
    }
}
