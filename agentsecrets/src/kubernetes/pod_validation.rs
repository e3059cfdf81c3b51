//! What would let an agent get around the sidecar in its pod. Each is refused with its reason, rather than
//! taken away in silence: whoever wrote it wanted something by it.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EphemeralContainer, Pod, PodSpec, SecurityContext, Volume, VolumeMount,
    VolumeProjection,
};

use crate::kubernetes::sidecar_template::Fragment;

/// Capabilities with which a container reaches past the hooks, or into the sidecar.
const CAPABILITIES: &[&str] = &[
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

/// How the name of the volume begins in which the API server gives a pod the token of its account.
const ACCOUNT: &str = "kube-api-access-";
/// The certificates by which pods know the API server: the only ConfigMap in that volume.
const ROOTS: &str = "kube-root-ca.crt";

/// Why `pod` cannot be guarded; empty when it can.
pub fn of_pod(pod: &Pod, fragment: &Fragment) -> Vec<String> {
    let Some(spec) = &pod.spec else { return vec!["the pod has no spec".to_owned()] };
    let mut reasons = of_spec(spec, fragment);
    for volume in spec.volumes.iter().flatten() {
        reasons.extend(of_volume(volume, fragment));
    }
    for container in agents(spec, fragment) {
        reasons.extend(of_container(container, spec, fragment));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        reasons.extend(of_ephemeral(container, spec, fragment));
    }
    reasons
}

/// The same where nobody changes the pod on its way: what the webhook would set has to be there.
pub fn of_unchanged(pod: &Pod, fragment: &Fragment) -> Vec<String> {
    let mut reasons = of_pod(pod, fragment);
    let Some(spec) = &pod.spec else { return reasons };
    for container in agents(spec, fragment) {
        let open = left_open(container.security_context.as_ref(), spec);
        reasons.extend(open.map(|what| format!("container {}: it must set {what}", container.name)));
    }
    if let Some(class) = &spec.runtime_class_name {
        reasons.push(format!(
            "runtimeClassName {class}: a network of the runtime's own cannot be held from outside"
        ));
    }
    if spec.volumes.iter().flatten().any(|volume| is_of_the_account(&volume.name)) {
        reasons.push(
            "it must set automountServiceAccountToken: false: no agent holds a token of the cluster"
                .to_owned(),
        );
    }
    reasons
}

/// Whether a volume of this name is the one with the token of the pod's account. The API server adds it, and
/// mounts it in every container, before it asks us.
pub fn is_of_the_account(volume: &str) -> bool {
    volume.starts_with(ACCOUNT)
}

/// The containers that are not the sidecar's.
pub fn agents<'a>(spec: &'a PodSpec, fragment: &'a Fragment) -> impl Iterator<Item = &'a Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers).filter(|container| !fragment.has_container(&container.name))
}

fn of_spec(spec: &PodSpec, fragment: &Fragment) -> Vec<String> {
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
    reasons.extend(as_the_sidecar("securityContext", uid, fragment));
    reasons
}

fn of_volume(volume: &Volume, fragment: &Fragment) -> Option<String> {
    let name = &volume.name;
    if fragment.has_volume(name) {
        // Ours, or one that pretends to be: `inject` compares them.
        return None;
    }
    if is_of_the_account(name) {
        return (!is_as_ever(volume)).then(|| format!("volume {name}: the name is the API server's own"));
    }
    if let Some(path) = &volume.host_path {
        return Some(format!("volume {name}: hostPath {}: the node's files are not the agent's", path.path));
    }
    let is_ours = |secret: Option<&String>| secret.is_some_and(|secret| fragment.secrets.contains(secret));
    if is_ours(volume.secret.as_ref().and_then(|secret| secret.secret_name.as_ref())) {
        return Some(format!("volume {name}: it holds the secrets that the agent must not have"));
    }
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    for source in projected {
        if is_ours(source.secret.as_ref().map(|secret| &secret.name)) {
            return Some(format!("volume {name}: it holds the secrets that the agent must not have"));
        }
        if source.service_account_token.is_some() {
            return Some(format!("volume {name}: a token of the pod's account is no agent's"));
        }
    }
    None
}

/// Whether the account's `volume` is what the API server makes: the token for itself, its certificates and the
/// namespace's name. That may be taken away without a word; whoever wrote more wanted something by it.
fn is_as_ever(volume: &Volume) -> bool {
    let Some(projected) = &volume.projected else { return false };
    let alone = Volume { name: volume.name.clone(), projected: Some(projected.clone()), ..Volume::default() };
    let sources = || projected.sources.iter().flatten();
    let tokens = sources().filter(|source| source.service_account_token.is_some()).count();
    *volume == alone && tokens == 1 && sources().all(is_source_as_ever)
}

fn is_source_as_ever(source: &VolumeProjection) -> bool {
    if source.secret.is_some() || source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
        return false;
    }
    match (&source.service_account_token, &source.config_map, &source.downward_api) {
        (Some(token), None, None) => token.audience.as_ref().is_none_or(String::is_empty),
        (None, Some(map), None) => map.name == ROOTS,
        (None, None, Some(fields)) => fields.items.iter().flatten().all(|item| {
            item.field_ref.as_ref().is_some_and(|field| field.field_path == "metadata.namespace")
        }),
        _ => false,
    }
}

fn of_container(container: &Container, spec: &PodSpec, fragment: &Fragment) -> Vec<String> {
    let name = &container.name;
    let mut reasons = of_context(name, container.security_context.as_ref(), spec, fragment);
    reasons.extend(of_user(name, container.security_context.as_ref(), spec, fragment));
    reasons.extend(of_environment(name, container.env.as_ref(), container.env_from.as_ref(), fragment));
    reasons.extend(of_mounts(name, container.volume_mounts.as_ref(), fragment));
    let devices = container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty());
    reasons.extend(devices.then(|| format!("container {name}: volumeDevices: a raw device is no agent's")));
    let ports = container.ports.iter().flatten();
    let host_ports = ports.filter_map(|port| port.host_port).filter(|port| *port != 0);
    reasons.extend(host_ports.map(|port| format!("container {name}: hostPort {port}: use a Service")));
    reasons
}

fn of_ephemeral(container: &EphemeralContainer, spec: &PodSpec, fragment: &Fragment) -> Vec<String> {
    let name = &container.name;
    let mut reasons = of_context(name, container.security_context.as_ref(), spec, fragment);
    reasons.extend(of_user(name, container.security_context.as_ref(), spec, fragment));
    reasons.extend(of_environment(name, container.env.as_ref(), container.env_from.as_ref(), fragment));
    reasons.extend(of_mounts(name, container.volume_mounts.as_ref(), fragment));
    if container.target_container_name.as_ref().is_some_and(|target| fragment.has_container(target)) {
        reasons
            .push(format!("container {name}: targetContainerName: it would share the sidecar's processes"));
    }
    let open = left_open(container.security_context.as_ref(), spec);
    reasons.extend(open.map(|what| format!("container {name}: it must set {what}")));
    reasons
}

/// What a container that we cannot change, such as one for debugging, has to say itself, and does not.
fn left_open(
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

fn of_context(
    name: &str,
    context: Option<&SecurityContext>,
    spec: &PodSpec,
    fragment: &Fragment,
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
    let added = added.filter(|capability| CAPABILITIES.contains(&capability.trim_start_matches("CAP_")));
    reasons.extend(added.map(|capability| format!("container {name}: capability {capability}")));
    reasons.extend(as_the_sidecar(&format!("container {name}"), context.run_as_user, fragment));
    reasons
}

/// What has to say its user and does not.
fn of_user(
    name: &str,
    context: Option<&SecurityContext>,
    spec: &PodSpec,
    fragment: &Fragment,
) -> Option<String> {
    let pods = spec.security_context.as_ref().and_then(|pod| pod.run_as_user);
    let is_open = context.and_then(|context| context.run_as_user).or(pods).is_none();
    (is_open && fragment.explicit_users).then(|| {
        format!("container {name}: it must set runAsUser: its image's own user may be the sidecar's, which is let out")
    })
}

fn as_the_sidecar(place: &str, uid: Option<i64>, fragment: &Fragment) -> Option<String> {
    let uid = uid.filter(|uid| fragment.uids.contains(uid))?;
    Some(format!("{place}: runAsUser {uid} is the sidecar's own user"))
}

fn of_environment(
    name: &str,
    env: Option<&Vec<EnvVar>>,
    from: Option<&Vec<EnvFromSource>>,
    fragment: &Fragment,
) -> Vec<String> {
    let keys = env.into_iter().flatten().filter_map(|variable| {
        let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((&variable.name, &reference.name))
    });
    let keys = keys.filter(|(_, secret)| fragment.secrets.contains(secret));
    let mut reasons: Vec<String> = keys
        .map(|(variable, secret)| {
            format!("container {name}: variable {variable} would hold a value of Secret {secret}")
        })
        .collect();
    let whole = from.into_iter().flatten().filter_map(|source| Some(&source.secret_ref.as_ref()?.name));
    let whole = whole.filter(|secret| fragment.secrets.contains(secret));
    reasons.extend(
        whole.map(|secret| format!("container {name}: envFrom would hold the values of Secret {secret}")),
    );
    reasons
}

/// A mount of one of our volumes that we did not give.
fn of_mounts(name: &str, mounts: Option<&Vec<VolumeMount>>, fragment: &Fragment) -> Vec<String> {
    let given = |mount: &&VolumeMount| !fragment.container.volume_mounts.contains(mount);
    let mounts = mounts.into_iter().flatten().filter(|mount| fragment.has_volume(&mount.name)).filter(given);
    mounts.map(|mount| format!("container {name}: volume {} is the sidecar's", mount.name)).collect()
}
