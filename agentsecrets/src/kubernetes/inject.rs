//! A pod with the sidecar in it.

use k8s_openapi::api::core::v1::{Capabilities, Container, EnvVar, Pod, SeccompProfile, Volume};

use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::Fragment;

/// What marks a pod that has the sidecar. It proves nothing: who may spend what is decided by what the kernel
/// and the kubelet say.
pub const INJECTED: &str = "agentsecrets.dev/injected";

/// Puts the sidecar into `pod`: its containers before every other, what the agent's containers need to trust
/// its certificates, and the settings that keep the agent inside. The token that the API server gave it before we
/// were asked is taken away. A pod that has the sidecar stays as it is.
///
/// # Errors
/// Why this pod cannot be guarded.
pub fn inject(mut pod: Pod, fragment: &Fragment) -> Result<Pod, Vec<String>> {
    let mut reasons = pod_validation::of_pod(&pod, fragment);
    let Some(spec) = &mut pod.spec else { return Err(reasons) };
    reasons.extend(pretenders(spec, fragment));
    if !reasons.is_empty() {
        return Err(reasons);
    }
    spec.automount_service_account_token = Some(false);
    let init = spec.init_containers.get_or_insert_default();
    init.retain(|container| !fragment.has_container(&container.name));
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| {
        !fragment.has_volume(&volume.name) && !pod_validation::is_of_the_account(&volume.name)
    });
    volumes.extend(fragment.volumes.iter().cloned());
    init.iter_mut().chain(&mut spec.containers).for_each(|container| guard(container, fragment));
    init.splice(0..0, fragment.init_containers.iter().cloned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INJECTED.to_owned(), "true".to_owned());
    Ok(pod)
}

/// What bears a name of the sidecar's and is something else. What is the sidecar's own may have come back with
/// more fields than we gave it, which the API server filled in: it is put in anew.
fn pretenders(spec: &k8s_openapi::api::core::v1::PodSpec, fragment: &Fragment) -> Vec<String> {
    let named = |it: &&Container| fragment.has_container(&it.name);
    let is_ours = |it: &Container| {
        fragment.init_containers.iter().any(|ours| ours.name == it.name && ours.image == it.image)
    };
    let init = spec.init_containers.iter().flatten().filter(named).filter(|it| !is_ours(it));
    let containers = init.chain(spec.containers.iter().filter(named));
    let containers = containers.map(|it| format!("container {}: the name is the sidecar's", it.name));
    let is_ours =
        |it: &Volume| fragment.volumes.iter().any(|ours| ours.name == it.name && source(ours) == source(it));
    let volumes = spec.volumes.iter().flatten();
    let volumes = volumes.filter(|it| fragment.has_volume(&it.name) && !is_ours(it));
    containers.chain(volumes.map(|it| format!("volume {}: the name is the sidecar's", it.name))).collect()
}

/// Of what kind a volume is.
fn source(volume: &Volume) -> Vec<String> {
    let fields = serde_json::to_value(volume).ok();
    let fields = fields.as_ref().and_then(serde_json::Value::as_object);
    fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect()
}

/// Gives a container of the agent what it needs, and takes what it must not have unless it asked for it, which
/// was refused before.
fn guard(container: &mut Container, fragment: &Fragment) {
    let context = container.security_context.get_or_insert_default();
    context.allow_privilege_escalation = Some(false);
    context.run_as_non_root = Some(true);
    let capabilities = context.capabilities.get_or_insert_with(Capabilities::default);
    capabilities.drop = Some(vec!["ALL".to_owned()]);
    context.seccomp_profile.get_or_insert_with(|| SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    });
    let env = container.env.get_or_insert_default();
    for given in &fragment.container.env {
        set(env, given);
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| !pod_validation::is_of_the_account(&mount.name));
    for given in &fragment.container.volume_mounts {
        if !mounts.contains(given) {
            mounts.push(given.clone());
        }
    }
}

/// Every variable of the name: of several the last counts.
fn set(env: &mut Vec<EnvVar>, given: &EnvVar) {
    let mut is_new = true;
    for variable in env.iter_mut().filter(|variable| variable.name == given.name) {
        *variable = given.clone();
        is_new = false;
    }
    if is_new {
        env.push(given.clone());
    }
}
