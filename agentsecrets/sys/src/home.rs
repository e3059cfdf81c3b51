//! The paths of our files: one folder if `AGENTSECRETS_HOME` names it, else the platform's folders.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// The folders of one installation.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
}

/// Why no home could be found.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither `AGENTSECRETS_HOME` nor a home directory is known.
    #[error("no home directory: set AGENTSECRETS_HOME to a folder of your own")]
    Unknown,
    /// `AGENTSECRETS_HOME` is a relative path.
    #[error("AGENTSECRETS_HOME must be an absolute path")]
    Relative,
}

impl Home {
    /// Everything in one folder.
    pub fn at(folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        Self { config: folder.clone(), data: folder.clone(), state: folder.clone(), runtime: folder }
    }

    /// The home that the environment names: `AGENTSECRETS_HOME`, else the platform's folders of the
    /// user whose `home` directory is given (or the caller's own).
    pub fn find(of_user: Option<&Path>) -> Result<Self, HomeError> {
        if let Some(folder) = std::env::var_os("AGENTSECRETS_HOME").filter(|value| !value.is_empty()) {
            let folder = PathBuf::from(folder);
            return if folder.is_absolute() { Ok(Self::at(&folder)) } else { Err(HomeError::Relative) };
        }
        if let Some(home) = of_user {
            return Ok(Self {
                config: home.join(".config/agentsecrets"),
                data: home.join(".local/share/agentsecrets"),
                state: home.join(".local/state/agentsecrets"),
                runtime: home.join(".local/state/agentsecrets/run"),
            });
        }
        let base = etcetera::choose_base_strategy().map_err(|_| HomeError::Unknown)?;
        let data = base.data_dir().join("agentsecrets");
        let state = base.state_dir().map_or_else(|| data.clone(), |dir| dir.join("agentsecrets"));
        let runtime = base.runtime_dir().map_or_else(|| state.join("run"), |dir| dir.join("agentsecrets"));
        Ok(Self { config: base.config_dir().join("agentsecrets"), data, state, runtime })
    }

    /// The policy file.
    pub fn policy(&self) -> PathBuf {
        self.config.join("policy.yaml")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.config.join("config.yaml")
    }

    /// Trusted programs, as `trust` writes them.
    pub fn trust(&self) -> PathBuf {
        self.config.join("trust.json")
    }

    /// The encrypted vault.
    pub fn vault(&self) -> PathBuf {
        self.data.join("vault")
    }

    /// The folder of what replaced stored secrets at run time.
    pub fn rotated(&self) -> PathBuf {
        self.data.join("rotated")
    }

    /// The file by which our processes tell one another that the keychain was changed.
    pub fn keychain_stamp(&self) -> PathBuf {
        self.data.join("keychain.changed")
    }

    /// The selection of `project use` and `environment switch`.
    pub fn scope(&self) -> PathBuf {
        self.config.join("scope.json")
    }

    /// The folder of what programs were given beside the policy's rules, apart from files that change often.
    pub fn capabilities(&self) -> PathBuf {
        self.config.join("capabilities")
    }

    /// The registered agents, with what is known of their tokens.
    pub fn agents(&self) -> PathBuf {
        self.capabilities().join("agents.json")
    }

    /// The sessions.
    pub fn sessions(&self) -> PathBuf {
        self.capabilities().join("sessions.json")
    }

    /// The use count of the session `id`: one byte per use.
    pub fn session_uses(&self, id: &str) -> PathBuf {
        self.state.join(format!("session-{id}.uses"))
    }

    /// The folder of the audit log.
    pub fn audit(&self) -> PathBuf {
        self.state.join("audit")
    }

    /// The folder of what clients' configuration files were before ours was added.
    pub fn mcp(&self) -> PathBuf {
        self.state.join("mcp")
    }

    /// The folder of requests that wait for a person, and of the answers to them.
    pub fn approvals(&self) -> PathBuf {
        self.state.join("approvals")
    }

    /// The folder of sockets and process files.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The certificate of the explicit proxy's authority, for clients that add it to their roots.
    pub fn proxy_authority(&self) -> PathBuf {
        self.runtime.join("proxy-ca.pem")
    }

    /// The system's roots and that authority, for clients whose roots are replaced.
    pub fn proxy_bundle(&self) -> PathBuf {
        self.runtime.join("proxy-bundle.pem")
    }

    /// The log output of the explicit proxy.
    pub fn proxy_log(&self) -> PathBuf {
        self.runtime.join("proxy.log")
    }

    /// Every folder of ours, for hiding them from an agent.
    pub fn folders(&self) -> Vec<&Path> {
        let mut folders = vec![&*self.config, &*self.data, &*self.state, &*self.runtime];
        folders.sort();
        folders.dedup();
        folders
    }
}
