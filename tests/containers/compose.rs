//! `deploy/compose.yaml` as the tests read it; an unknown key is an error.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compose {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) secrets: BTreeMap<String, SecretFile>,
    pub(crate) volumes: BTreeMap<String, Option<()>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretFile {
    pub(crate) file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    pub(crate) cgroup_parent: String,
    pub(crate) user: String,
    pub(crate) cap_drop: Vec<String>,
    #[serde(default)]
    pub(crate) cap_add: Vec<String>,
    pub(crate) security_opt: Vec<String>,
    #[serde(default)]
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) restart: String,
    pub(crate) network_mode: Option<String>,
    #[serde(default)]
    pub(crate) depends_on: BTreeMap<String, Condition>,
    pub(crate) working_dir: Option<String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Healthcheck {
    pub(crate) test: Vec<String>,
    pub(crate) interval: String,
    pub(crate) timeout: String,
    pub(crate) retries: u32,
    pub(crate) start_period: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) condition: String,
}

impl Compose {
    /// Reads the file with these variables set.
    pub(crate) fn read(variables: &BTreeMap<String, String>) -> Self {
        let text = std::fs::read_to_string(super::deploy_file("compose.yaml")).unwrap();
        serde_yaml::from_str(&interpolate(&text, variables)).unwrap()
    }
}

/// Expands `${NAME:-default}` and `${NAME:?why}` as Compose does; other `$` stay.
fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').unwrap();
        let (name, otherwise) = inside.split_once(':').unwrap();
        let value = variables.get(name).map(String::as_str).or_else(|| otherwise.strip_prefix('-'));
        filled += before;
        filled += value.unwrap_or_else(|| panic!("{name}: {otherwise}"));
        rest = after;
    }
    filled + rest
}
