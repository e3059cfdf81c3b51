//! A pod with the sidecar in it.

use k8s_openapi::api::core::v1::{Capabilities, Container, EnvVar, Pod, SeccompProfile};

use super::dangers;
use super::fragment::Fragment;

/// What marks a pod that has the sidecar. It proves nothing: who may spend what is decided by what the kernel
/// and the kubelet say.
pub const INJECTED: &str = "agentsecrets.dev/injected";

/// Puts the sidecar into `pod`: its containers before every other, what the agent's containers need to trust
/// its certificates, and the settings that keep the agent inside. A pod that has it stays as it is.
///
/// # Errors
/// Why this pod cannot be guarded.
pub fn inject(mut pod: Pod, fragment: &Fragment) -> Result<Pod, Vec<String>> {
    let mut reasons = dangers::of_pod(&pod, fragment);
    let Some(spec) = &mut pod.spec else { return Err(reasons) };
    reasons.extend(pretenders(spec, fragment));
    if !reasons.is_empty() {
        return Err(reasons);
    }
    spec.automount_service_account_token = Some(false);
    let init = spec.init_containers.get_or_insert_default();
    init.retain(|container| !fragment.has_container(&container.name));
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !fragment.has_volume(&volume.name));
    volumes.extend(fragment.volumes.iter().cloned());
    init.iter_mut().chain(&mut spec.containers).for_each(|container| guard(container, fragment));
    init.splice(0..0, fragment.init_containers.iter().cloned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INJECTED.to_owned(), "true".to_owned());
    Ok(pod)
}

/// What bears a name of the sidecar's and is something else.
fn pretenders(spec: &k8s_openapi::api::core::v1::PodSpec, fragment: &Fragment) -> Vec<String> {
    let ours = &fragment.init_containers;
    let init = spec.init_containers.iter().flatten().filter(|it| !ours.contains(it));
    let containers = init.chain(&spec.containers).filter(|it| fragment.has_container(&it.name));
    let containers = containers.map(|it| format!("container {}: the name is the sidecar's", it.name));
    let volumes = spec.volumes.iter().flatten();
    let volumes = volumes.filter(|it| fragment.has_volume(&it.name) && !fragment.volumes.contains(it));
    containers.chain(volumes.map(|it| format!("volume {}: the name is the sidecar's", it.name))).collect()
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
    for given in &fragment.container.volume_mounts {
        if !mounts.contains(given) {
            mounts.push(given.clone());
        }
    }
}

fn set(env: &mut Vec<EnvVar>, given: &EnvVar) {
    match env.iter_mut().find(|variable| variable.name == given.name) {
        Some(variable) => *variable = given.clone(),
        None => env.push(given.clone()),
    }
}
