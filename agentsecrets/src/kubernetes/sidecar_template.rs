//! What the webhook puts into a pod, as the chart writes it into a file: the sidecar's containers and volumes,
//! and what each container of the agent is given.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVar, Volume, VolumeMount};
use serde::Deserialize;

use crate::sys::watched_file::Reading;

/// The largest file that is read, in bytes: a ConfigMap holds no more.
const LARGEST: u64 = 1 << 20;

/// What is put into a pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fragment {
    /// The sidecar, in the order in which its containers start: before every other container.
    pub init_containers: Vec<Container>,
    /// Volumes of the pod.
    pub volumes: Vec<Volume>,
    /// What each container of the agent is given.
    pub container: Given,
    /// The Secrets whose values the sidecar spends: no container of the agent may have them.
    pub secrets: Vec<String>,
    /// The uids as which the sidecar runs: no container of the agent may.
    pub uids: Vec<i64>,
    /// Whether each container of the agent must say its user: an image's own, which is not seen, may be the
    /// sidecar's, and that one is let out by rules of the network.
    #[serde(default)]
    pub explicit_users: bool,
}

/// What a container is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Given {
    /// Variables: they replace those of the same name.
    pub env: Vec<EnvVar>,
    /// What it sees of the pod's volumes.
    pub volume_mounts: Vec<VolumeMount>,
}

/// The file of the fragment.
pub struct FragmentFile(pub PathBuf);

/// Why the file is no fragment.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct NoFragment {
    path: PathBuf,
    why: String,
}

impl Fragment {
    /// Reads a fragment from `text`, which came from the file `path`.
    ///
    /// # Errors
    /// When it is none, with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, NoFragment> {
        let broken = |why: String| NoFragment { path: path.to_path_buf(), why };
        let options = serde_yaml::options! { with_snippet: false };
        let fragment: Self =
            serde_yaml::from_str_with_options(text, options).map_err(|error| broken(error.to_string()))?;
        if fragment.init_containers.is_empty() {
            return Err(broken("it names no container of the sidecar".to_owned()));
        }
        Ok(fragment)
    }

    /// Whether a container of this name is the sidecar's.
    pub fn has_container(&self, name: &str) -> bool {
        self.init_containers.iter().any(|container| container.name == name)
    }

    /// Whether a volume of this name is the sidecar's.
    pub fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().any(|volume| volume.name == name)
    }
}

impl Reading for FragmentFile {
    type Content = Fragment;
    type Error = NoFragment;

    const WHAT: &'static str = "sidecar";

    fn text(&self) -> Result<Option<String>, NoFragment> {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(&self.0).map_err(|error| self.failed(error))?;
        file.take(LARGEST).read_to_string(&mut text).map_err(|error| self.failed(error))?;
        Ok(Some(text))
    }

    fn understand(&self, text: Option<&str>, _last: Option<&Fragment>) -> Result<Fragment, NoFragment> {
        Fragment::parse(text.unwrap_or_default(), &self.0)
    }
}

impl FragmentFile {
    fn failed(&self, error: impl std::fmt::Display) -> NoFragment {
        NoFragment { path: self.0.clone(), why: error.to_string() }
    }
}

impl From<io::Error> for NoFragment {
    fn from(error: io::Error) -> Self {
        Self { path: PathBuf::new(), why: error.to_string() }
    }
}
