//! A pod as the tests read it: every key that the chart and the webhook write; an unknown key is an error.

use serde::Deserialize;
use serde_json::Value;

/// The pod spec for a kubelet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) automount_service_account_token: bool,
    #[serde(default)]
    #[expect(dead_code, reason = "sets variables of other Services, which these agents do not look at")]
    pub(super) enable_service_links: bool,
    pub(super) init_containers: Vec<Container>,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    #[serde(default)]
    pub(super) security_context: PodContext,
}

/// Defaults of the pod's containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PodContext {
    pub(super) run_as_user: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    #[serde(default)]
    #[expect(dead_code, reason = "there is no registry here")]
    pub(super) image_pull_policy: Option<String>,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    pub(super) working_dir: Option<String>,
    pub(super) restart_policy: Option<String>,
    pub(super) security_context: SecurityContext,
    pub(super) startup_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    #[serde(default)]
    #[expect(dead_code, reason = "the tree of these tests has no controllers")]
    pub(super) resources: Value,
    #[serde(default)]
    #[expect(dead_code, reason = "a name for a port opens nothing")]
    ports: Vec<Value>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    pub(super) volume_mounts: Vec<Mount>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<u32>,
    pub(super) run_as_group: Option<u32>,
    pub(super) run_as_non_root: bool,
    pub(super) allow_privilege_escalation: bool,
    #[serde(default)]
    pub(super) read_only_root_filesystem: bool,
    pub(super) capabilities: Capabilities,
    pub(super) seccomp_profile: SeccompProfile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capabilities {
    pub(super) drop: Vec<String>,
    #[serde(default)]
    pub(super) add: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeccompProfile {
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) exec: Exec,
    pub(super) period_seconds: u64,
    pub(super) timeout_seconds: u64,
    pub(super) failure_threshold: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) command: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default)]
    pub(super) read_only: bool,
}

/// A volume with one of the sources.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) host_path: Option<HostPath>,
    pub(super) config_map: Option<ConfigMap>,
    pub(super) empty_dir: Option<EmptyDir>,
    pub(super) secret: Option<Secret>,
    pub(super) csi: Option<Csi>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostPath {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigMap {
    pub(super) name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct EmptyDir {
    #[expect(dead_code, reason = "the kubelet puts out a pod that has more, once a minute")]
    pub(super) size_limit: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Secret {
    pub(super) secret_name: String,
    pub(super) default_mode: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Csi {
    pub(super) driver: String,
    pub(super) read_only: bool,
}
