//! Injects the sidecar into a pod.

use k8s_openapi::api::core::v1::{Capabilities, Container, EnvVar, Pod, SeccompProfile, Volume};

use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::SidecarTemplate;

/// Annotation of a pod that has the sidecar. It proves nothing: the kernel and the kubelet decide who may use
/// a secret.
pub const INJECTED_ANNOTATION: &str = "agentsecrets.dev/injected";

/// Injects the sidecar: its containers before all others, the variables and mounts that make agents trust its
/// certificates, and the settings that confine the agent. The service account's volume, which the API server
/// adds before it calls the webhook, is removed. Injection is idempotent.
///
/// # Errors ¶| The reasons that this pod cannot be guarded.
pub fn inject(mut pod: Pod, template: &SidecarTemplate) -> Result<Pod, Vec<String>> {
    let mut reasons = pod_validation::validate_pod(&pod, template);
    let Some(spec) = &mut pod.spec else { return Err(reasons) };
    reasons.extend(name_conflicts(spec, template));
    if !reasons.is_empty() {
        return Err(reasons);
    }
    spec.automount_service_account_token = Some(false);
    let init = spec.init_containers.get_or_insert_default();
    init.retain(|container| !template.has_container(&container.name));
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| {
        !template.has_volume(&volume.name) && !pod_validation::is_service_account_volume(&volume.name)
    });
    volumes.extend(template.volumes.iter().cloned());
    init.iter_mut().chain(&mut spec.containers).for_each(|container| harden_container(container, template));
    init.splice(0..0, template.init_containers.iter().cloned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INJECTED_ANNOTATION.to_owned(), "true".to_owned());
    Ok(pod)
}

/// Names of the sidecar that the pod uses for something else. The sidecar's own containers and volumes are
/// injected again, because the API server may have added default fields to them.
fn name_conflicts(spec: &k8s_openapi::api::core::v1::PodSpec, template: &SidecarTemplate) -> Vec<String> {
    let named = |it: &&Container| template.has_container(&it.name);
    let is_own = |it: &Container| {
        template.init_containers.iter().any(|own| own.name == it.name && own.image == it.image)
    };
    let init = spec.init_containers.iter().flatten().filter(named).filter(|it| !is_own(it));
    let containers = init.chain(spec.containers.iter().filter(named));
    let containers = containers.map(|it| format!("container {}: the name is the sidecar's", it.name));
    let is_own = |it: &Volume| {
        template.volumes.iter().any(|own| own.name == it.name && volume_fields(own) == volume_fields(it))
    };
    let volumes = spec.volumes.iter().flatten();
    let volumes = volumes.filter(|it| template.has_volume(&it.name) && !is_own(it));
    containers.chain(volumes.map(|it| format!("volume {}: the name is the sidecar's", it.name))).collect()
}

fn volume_fields(volume: &Volume) -> Vec<String> {
    let fields = serde_json::to_value(volume).ok();
    let fields = fields.as_ref().and_then(serde_json::Value::as_object);
    fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect()
}

/// Adds to an agent's container what it needs, and sets the restrictions that it left open. Explicitly
/// contrary settings were rejected before.
fn harden_container(container: &mut Container, template: &SidecarTemplate) {
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
    for addition in &template.container.env {
        set_variable(env, addition);
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| !pod_validation::is_service_account_volume(&mount.name));
    for addition in &template.container.volume_mounts {
        if !mounts.contains(addition) {
            mounts.push(addition.clone());
        }
    }
}

/// Replaces every variable of that name: of several the last one counts.
fn set_variable(env: &mut Vec<EnvVar>, addition: &EnvVar) {
    let mut is_new = true;
    for variable in env.iter_mut().filter(|variable| variable.name == addition.name) {
        *variable = addition.clone();
        is_new = false;
    }
    if is_new {
        env.push(addition.clone());
    }
}
