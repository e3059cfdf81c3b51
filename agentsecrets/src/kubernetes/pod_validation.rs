//! Rejects pods whose agent could bypass the sidecar. Such a setting is rejected with its reason and never
//! removed silently, because its author wanted something by it.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EphemeralContainer, Pod, PodSpec, SecurityContext, Volume, VolumeMount,
    VolumeProjection,
};

use crate::kubernetes::sidecar_template::SidecarTemplate;

/// Capabilities with which a container bypasses the hooks or reaches into the sidecar.
const FORBIDDEN_CAPABILITIES: &[&str] = &[
    "ALL",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "PERFMON",
    "SETPCAP",
    "SETUID",
    "SETGID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
];

/// Name prefix of the volume in which the API server mounts the service account's token.
const TOKEN_VOLUME_PREFIX: &str = "kube-api-access-";
/// The root certificates of the API server: the only ConfigMap in that volume.
const ROOT_CERTIFICATES: &str = "kube-root-ca.crt";

/// Reasons that `pod` cannot be guarded; empty if there are none.
pub fn validate_pod(pod: &Pod, template: &SidecarTemplate) -> Vec<String> {
    let Some(spec) = &pod.spec else { return vec!["the pod has no spec".to_owned()] };
    let mut reasons = validate_spec(spec, template);
    for volume in spec.volumes.iter().flatten() {
        reasons.extend(validate_volume(volume, template));
    }
    for container in agent_containers(spec, template) {
        reasons.extend(validate_container(container, spec, template));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        reasons.extend(validate_ephemeral_container(container, spec, template));
    }
    reasons
}

/// Like [`validate_pod`], for a pod that no webhook changes: it must have all settings that the webhook would
/// set.
pub fn validate_unmodified_pod(pod: &Pod, template: &SidecarTemplate) -> Vec<String> {
    let mut reasons = validate_pod(pod, template);
    let Some(spec) = &pod.spec else { return reasons };
    for container in agent_containers(spec, template) {
        let open = missing_settings(container.security_context.as_ref(), spec);
        reasons.extend(open.map(|what| format!("container {}: it must set {what}", container.name)));
    }
    if let Some(class) = &spec.runtime_class_name {
        reasons.push(format!(
            "runtimeClassName {class}: a network of the runtime's own cannot be held from outside"
        ));
    }
    if spec.volumes.iter().flatten().any(|volume| is_service_account_volume(&volume.name)) {
        reasons.push(
            "it must set automountServiceAccountToken: false: no agent holds a token of the cluster"
                .to_owned(),
        );
    }
    reasons
}

/// Whether this is the service account's token volume. The API server adds and mounts it before it calls the
/// webhook.
pub fn is_service_account_volume(volume: &str) -> bool {
    volume.starts_with(TOKEN_VOLUME_PREFIX)
}

/// The containers that are not the sidecar's.
pub fn agent_containers<'a>(
    spec: &'a PodSpec,
    template: &'a SidecarTemplate,
) -> impl Iterator<Item = &'a Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers).filter(|container| !template.has_container(&container.name))
}

fn validate_spec(spec: &PodSpec, template: &SidecarTemplate) -> Vec<String> {
    let context = spec.security_context.as_ref();
    let cases = [
        (spec.host_network == Some(true), "hostNetwork: the node's network is not the pod's"),
        (spec.host_pid == Some(true), "hostPID: every process of the node is in its sight"),
        (spec.host_ipc == Some(true), "hostIPC: it shares memory with the node"),
        (spec.share_process_namespace == Some(true), "shareProcessNamespace: the sidecar is in its sight"),
        (
            spec.automount_service_account_token == Some(true),
            "automountServiceAccountToken: the agent needs no token of the cluster, and must not hold one",
        ),
        (
            spec.host_users == Some(false),
            "hostUsers: false: the kernel loads programs from the host's user namespace alone",
        ),
        (
            context.and_then(|context| context.run_as_non_root) == Some(false),
            "securityContext.runAsNonRoot: false",
        ),
        (
            context.and_then(|context| context.run_as_user) == Some(0),
            "securityContext.runAsUser: 0: root writes where the node would execute it",
        ),
        (
            context.and_then(|context| context.sysctls.as_ref()).is_some_and(|sysctls| !sysctls.is_empty()),
            "securityContext.sysctls: they change the network that is guarded",
        ),
        (
            context
                .and_then(|context| context.app_armor_profile.as_ref())
                .is_some_and(|profile| profile.type_ == "Unconfined"),
            "securityContext.appArmorProfile: Unconfined",
        ),
    ];
    let mut reasons: Vec<String> =
        cases.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why.to_owned()).collect();
    let uid = context.and_then(|context| context.run_as_user);
    reasons.extend(runs_as_sidecar_user("securityContext", uid, template));
    reasons
}

fn validate_volume(volume: &Volume, template: &SidecarTemplate) -> Option<String> {
    let name = &volume.name;
    if template.has_volume(name) {
        // `inject` compares it with the sidecar's own.
        return None;
    }
    if is_service_account_volume(name) {
        return (!is_default_token_volume(volume))
            .then(|| format!("volume {name}: the name is the API server's own"));
    }
    if let Some(path) = &volume.host_path {
        return Some(format!("volume {name}: hostPath {}: the node's files are not the agent's", path.path));
    }
    let is_template_secret =
        |secret: Option<&String>| secret.is_some_and(|secret| template.secrets.contains(secret));
    if is_template_secret(volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref())) {
        return Some(format!("volume {name}: it holds the secrets that the agent must not have"));
    }
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    for source in projected {
        if is_template_secret(source.secret.as_ref().map(|secret| &secret.name)) {
            return Some(format!("volume {name}: it holds the secrets that the agent must not have"));
        }
        if source.service_account_token.is_some() {
            return Some(format!("volume {name}: a token of the pod's account is no agent's"));
        }
    }
    None
}

/// Whether `volume` is exactly the API server's default: token, certificates and namespace. Only that may be
/// removed silently; anything more was wanted by the pod's author.
fn is_default_token_volume(volume: &Volume) -> bool {
    let Some(projected) = &volume.projected else { return false };
    let alone = Volume { name: volume.name.clone(), projected: Some(projected.clone()), ..Volume::default() };
    let sources = || projected.sources.iter().flatten();
    let tokens = sources().filter(|source| source.service_account_token.is_some()).count();
    *volume == alone && tokens == 1 && sources().all(is_default_token_source)
}

fn is_default_token_source(source: &VolumeProjection) -> bool {
    if source.secret.is_some() || source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
        return false;
    }
    match (&source.service_account_token, &source.config_map, &source.downward_api) {
        (Some(token), None, None) => token.audience.as_ref().is_none_or(String::is_empty),
        (None, Some(map), None) => map.name == ROOT_CERTIFICATES,
        (None, None, Some(fields)) => fields.items.iter().flatten().all(|item| {
            item.field_ref.as_ref().is_some_and(|field| field.field_path == "metadata.namespace")
        }),
        _ => false,
    }
}

fn validate_container(container: &Container, spec: &PodSpec, template: &SidecarTemplate) -> Vec<String> {
    let name = &container.name;
    let mut reasons = validate_security_context(name, container.security_context.as_ref(), spec, template);
    reasons.extend(validate_user(name, container.security_context.as_ref(), spec, template));
    reasons.extend(validate_environment(name, container.env.as_ref(), container.env_from.as_ref(), template));
    reasons.extend(validate_mounts(name, container.volume_mounts.as_ref(), template));
    let devices = container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty());
    reasons.extend(devices.then(|| format!("container {name}: volumeDevices: a raw device is no agent's")));
    let ports = container.ports.iter().flatten();
    let host_ports = ports.filter_map(|port| port.host_port).filter(|port| *port != 0);
    reasons.extend(host_ports.map(|port| format!("container {name}: hostPort {port}: use a Service")));
    reasons
}

fn validate_ephemeral_container(
    container: &EphemeralContainer,
    spec: &PodSpec,
    template: &SidecarTemplate,
) -> Vec<String> {
    let name = &container.name;
    let mut reasons = validate_security_context(name, container.security_context.as_ref(), spec, template);
    reasons.extend(validate_user(name, container.security_context.as_ref(), spec, template));
    reasons.extend(validate_environment(name, container.env.as_ref(), container.env_from.as_ref(), template));
    reasons.extend(validate_mounts(name, container.volume_mounts.as_ref(), template));
    if container.target_container_name.as_ref().is_some_and(|target| template.has_container(target)) {
        reasons
            .push(format!("container {name}: targetContainerName: it would share the sidecar's processes"));
    }
    let open = missing_settings(container.security_context.as_ref(), spec);
    reasons.extend(open.map(|what| format!("container {name}: it must set {what}")));
    reasons
}

/// Settings that are missing in a container which the webhook cannot change, such as an ephemeral one.
fn missing_settings(
    context: Option<&SecurityContext>,
    spec: &PodSpec,
) -> impl Iterator<Item = &'static str> + use<> {
    let dropped = context.and_then(|context| context.capabilities.as_ref());
    let mut dropped = dropped.and_then(|it| it.drop.as_ref()).into_iter().flatten();
    let pods = spec.security_context.as_ref().and_then(|pod| pod.run_as_non_root);
    let cases = [
        (dropped.any(|it| it == "ALL"), "capabilities.drop: [ALL]"),
        (
            context.and_then(|context| context.allow_privilege_escalation) == Some(false),
            "allowPrivilegeEscalation: false",
        ),
        (context.and_then(|context| context.run_as_non_root).or(pods) == Some(true), "runAsNonRoot: true"),
    ];
    cases.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what)
}

fn validate_security_context(
    name: &str,
    context: Option<&SecurityContext>,
    spec: &PodSpec,
    template: &SidecarTemplate,
) -> Vec<String> {
    let Some(context) = context else { return Vec::new() };
    let pods = spec.security_context.as_ref();
    let unconfined = |kind: Option<&str>| kind == Some("Unconfined");
    let seccomp = context.seccomp_profile.as_ref().or(pods.and_then(|pod| pod.seccomp_profile.as_ref()));
    let app_armor = context.app_armor_profile.as_ref();
    let cases = [
        (context.privileged == Some(true), "privileged"),
        (context.allow_privilege_escalation == Some(true), "allowPrivilegeEscalation"),
        (context.run_as_user == Some(0), "runAsUser: 0: root writes where the node would execute it"),
        (context.run_as_non_root == Some(false), "runAsNonRoot: false"),
        (context.proc_mount.as_deref() == Some("Unmasked"), "procMount: Unmasked"),
        (unconfined(seccomp.map(|profile| &*profile.type_)), "seccompProfile: Unconfined"),
        (unconfined(app_armor.map(|profile| &*profile.type_)), "appArmorProfile: Unconfined"),
    ];
    let cases = cases.into_iter().filter(|(holds, _)| *holds);
    let mut reasons: Vec<String> = cases.map(|(_, why)| format!("container {name}: {why}")).collect();
    let added = context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    let added = added.map(|capability| capability.to_ascii_uppercase());
    let added =
        added.filter(|capability| FORBIDDEN_CAPABILITIES.contains(&capability.trim_start_matches("CAP_")));
    reasons.extend(added.map(|capability| format!("container {name}: capability {capability}")));
    reasons.extend(runs_as_sidecar_user(&format!("container {name}"), context.run_as_user, template));
    reasons
}

/// An error if the container has no explicit user but must have one.
fn validate_user(
    name: &str,
    context: Option<&SecurityContext>,
    spec: &PodSpec,
    template: &SidecarTemplate,
) -> Option<String> {
    let pods = spec.security_context.as_ref().and_then(|pod| pod.run_as_user);
    let is_open = context.and_then(|context| context.run_as_user).or(pods).is_none();
    (is_open && template.explicit_users).then(|| {
        format!("container {name}: it must set runAsUser: its image's own user may be the sidecar's, which is let out")
    })
}

fn runs_as_sidecar_user(scope: &str, uid: Option<i64>, template: &SidecarTemplate) -> Option<String> {
    let uid = uid.filter(|uid| template.uids.contains(uid))?;
    Some(format!("{scope}: runAsUser {uid} is the sidecar's own user"))
}

fn validate_environment(
    name: &str,
    env: Option<&Vec<EnvVar>>,
    from: Option<&Vec<EnvFromSource>>,
    template: &SidecarTemplate,
) -> Vec<String> {
    let keys = env.into_iter().flatten().filter_map(|variable| {
        let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((&variable.name, &reference.name))
    });
    let keys = keys.filter(|(_, secret)| template.secrets.contains(secret));
    let mut reasons: Vec<String> = keys
        .map(|(variable, secret)| {
            format!("container {name}: variable {variable} would hold a value of Secret {secret}")
        })
        .collect();
    let whole = from.into_iter().flatten().filter_map(|source| Some(&source.secret_ref.as_ref()?.name));
    let whole = whole.filter(|secret| template.secrets.contains(secret));
    reasons.extend(
        whole.map(|secret| format!("container {name}: envFrom would hold the values of Secret {secret}")),
    );
    reasons
}

/// Mounts of the sidecar's volumes that the template does not contain.
fn validate_mounts(name: &str, mounts: Option<&Vec<VolumeMount>>, template: &SidecarTemplate) -> Vec<String> {
    let is_unlisted = |mount: &&VolumeMount| !template.container.volume_mounts.contains(mount);
    let mounts =
        mounts.into_iter().flatten().filter(|mount| template.has_volume(&mount.name)).filter(is_unlisted);
    mounts.map(|mount| format!("container {name}: volume {} is the sidecar's", mount.name)).collect()
}
