//! A test's home: policy, key, vault and audit log in a temporary folder, private host names, and the real
//! binary started in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::{command, run, run_with_input};

/// The program under test.
pub(crate) const AGENTSECRETS: &str = env!("CARGO_BIN_EXE_agentsecrets");

/// A home; dropping it removes it.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    bind_mounts: Vec<(PathBuf, &'static str)>,
    variables: BTreeMap<String, String>,
    audit_disk: Option<u32>,
}

impl Home {
    /// An empty home with a key file, so that the vault needs no passphrase.
    pub(crate) fn new() -> Self {
        // World-readable except for what the program itself protects: that is under test.
        let open = fs::Permissions::from_mode(0o755);
        let folder =
            tempfile::Builder::new().prefix("agentsecrets-test-").permissions(open).tempdir().unwrap();
        let home = Self {
            folder,
            hosts: BTreeMap::new(),
            bind_mounts: Vec::new(),
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

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// The upstream roots that `trust` wrote; agents can read them too.
    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes the policy; a running interceptor reloads it.
    pub(crate) fn write_policy(&self, yaml: &str) {
        let new = self.path().join("policy.yaml.new");
        fs::write(&new, yaml).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path().join("policy.yaml")).unwrap();
    }

    /// Writes a file that a policy may name, atomically.
    pub(crate) fn write_policy_file(&self, name: &str, text: &str) {
        let new = self.path().join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path().join(name)).unwrap();
    }

    /// Writes the configuration for programs started from here on.
    pub(crate) fn write_config(&self, yaml: &str) {
        fs::write(self.path().join("config.yaml"), yaml).unwrap();
    }

    /// Stores a secret from standard input.
    #[track_caller]
    pub(crate) fn set_secret(&self, name: &str, value: &str) {
        run_with_input(&mut self.agentsecrets(["secrets", "set", name]), value.as_bytes()).ok();
    }

    /// Makes `name` resolve to `address` for programs started from here on.
    pub(crate) fn add_host(&mut self, name: &str, address: impl Into<IpAddr>) {
        self.hosts.entry(name.into()).or_default().push(address.into());
    }

    /// Sets an environment variable for programs started from here on.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// Mounts `what` at the path `at` for programs started from here on.
    pub(crate) fn bind_mount(&mut self, what: PathBuf, at: &'static str) {
        self.bind_mounts.push((what, at));
    }

    /// Sets `/etc/resolv.conf` for programs started from here on.
    pub(crate) fn resolv_conf(&mut self, text: &str) {
        let file = self.write("resolv.conf", text, 0o644);
        self.bind_mount(file, "/etc/resolv.conf");
    }

    /// Sets the system's name server for programs started from here on.
    pub(crate) fn name_server(&mut self, address: IpAddr) {
        self.resolv_conf(&format!("nameserver {address}\n"));
    }

    /// A program with this home's host names, in no sandbox.
    pub(crate) fn command_outside<I, S>(&self, words: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut started = self.in_mount_namespace("env");
        started.args(words);
        started
    }

    /// Gives the audit log its own disk of `bytes`, for programs started from here on. It ends with them.
    pub(crate) fn audit_disk(&mut self, bytes: u32) {
        fs::create_dir_all(self.path().join("audit")).unwrap();
        self.audit_disk = Some(bytes);
    }

    /// The CA file for upstream servers.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Trusts this CA for upstream servers.
    pub(crate) fn trust(&self, pem: &str) {
        self.write("ca.pem", pem, 0o644);
    }

    /// The program at this home, with a private `/etc/hosts` if root runs the test.
    pub(crate) fn agentsecrets<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut started = if nix::unistd::geteuid().is_root() {
            self.in_mount_namespace(AGENTSECRETS)
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
        run(&mut self.agentsecrets(["audit", "list", "--json"])).json_lines()
    }

    /// `program` in a mount namespace with a private `/etc/hosts` and the bind mounts. It keeps the pid of
    /// the started process.
    fn in_mount_namespace(&self, program: &str) -> Command {
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
            // With the existing records: the log's end is stored outside of it.
            script += &format!(
                "mkdir {0}.disk && mount -t tmpfs -o mode=0700,size={bytes} audit {0}.disk && \
                 cp -a {0}/. {0}.disk && mount --move {0}.disk {0} && ",
                audit.display()
            );
        }
        script +=
            r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done; shift; exec "$@""#;
        started.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        for (what, at) in &self.bind_mounts {
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
    fn hosts_resolve_only_in_home() {
        let mut home = Home::new();
        home.add_host("api.test", [10, 1, 2, 3]);
        let hosts = run(home.in_mount_namespace("getent").args(["hosts", "api.test"])).ok();
        assert!(hosts.contains("10.1.2.3"), "{hosts}");
        assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("api.test"));
    }
}
