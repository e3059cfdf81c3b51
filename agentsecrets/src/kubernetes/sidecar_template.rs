//! The sidecar template, which the chart writes into a file: the sidecar's containers and volumes, and the
//! additions to each container of the agent.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVar, Volume, VolumeMount};
use serde::Deserialize;

use crate::sys::watched_file::FileSource;

/// Maximum length of the file: a ConfigMap holds no more.
const MAX_FILE_LENGTH: u64 = 1 << 20;

/// The additions to a pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SidecarTemplate {
    /// The sidecar's containers in the order of their start, before all others.
    pub init_containers: Vec<Container>,
    /// Further volumes of the pod.
    pub volumes: Vec<Volume>,
    /// The additions to each container of the agent.
    pub container: ContainerTemplate,
    /// Secrets that the sidecar uses: no container of the agent may have their values.
    pub secrets: Vec<String>,
    /// The sidecar's user ids, which no container of the agent may have.
    pub uids: Vec<i64>,
    /// Whether each container of the agent must set its user. Network rules exempt the sidecar's user, and an
    /// image's own user cannot be seen.
    #[serde(default)]
    pub explicit_users: bool,
}

/// The additions to one container.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContainerTemplate {
    /// Variables; they replace those of the same name.
    pub env: Vec<EnvVar>,
    /// Mounts of the pod's volumes.
    pub volume_mounts: Vec<VolumeMount>,
}

/// The template's file, which is watched.
pub struct TemplateFile(pub PathBuf);

/// The file is not a valid template.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TemplateError {
    path: PathBuf,
    reason: String,
}

impl SidecarTemplate {
    /// Parses `text`, the content of the file `path`.
    ///
    /// # Errors ¶| If it is invalid, with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TemplateError> {
        let invalid = |reason: String| TemplateError { path: path.to_path_buf(), reason };
        let options = serde_yaml::options! { with_snippet: false };
        let template: Self =
            serde_yaml::from_str_with_options(text, options).map_err(|error| invalid(error.to_string()))?;
        if template.init_containers.is_empty() {
            return Err(invalid("it names no container of the sidecar".to_owned()));
        }
        Ok(template)
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

impl FileSource for TemplateFile {
    type Content = SidecarTemplate;
    type Error = TemplateError;

    const NAME: &'static str = "sidecar";

    fn text(&self) -> Result<Option<String>, TemplateError> {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(&self.0).map_err(|error| self.failed(error))?;
        file.take(MAX_FILE_LENGTH).read_to_string(&mut text).map_err(|error| self.failed(error))?;
        Ok(Some(text))
    }

    fn parse(
        &self,
        text: Option<&str>,
        _last: Option<&SidecarTemplate>,
    ) -> Result<SidecarTemplate, TemplateError> {
        SidecarTemplate::parse(text.unwrap_or_default(), &self.0)
    }
}

impl TemplateFile {
    fn failed(&self, error: impl std::fmt::Display) -> TemplateError {
        TemplateError { path: self.0.clone(), reason: error.to_string() }
    }
}

impl From<io::Error> for TemplateError {
    fn from(error: io::Error) -> Self {
        Self { path: PathBuf::new(), reason: error.to_string() }
    }
}
