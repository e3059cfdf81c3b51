//! The part of a kubelet and containerd that these tests need: a pod's cgroup under either driver, its
//! sandbox with shared namespaces, its volumes, and its containers in order.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::super::{Driver, SERVICE_UID};
use super::spec::{Container as Wanted, PodSpec, Volume};
use crate::containers::bundle::{Bundle, capabilities};
use crate::containers::testbed::{self, Container, IDLE_COMMAND, SECRET, Testbed};

/// The uid of the agent's image, unless the pod sets one.
const IMAGE_UID: u32 = 1000;

/// Guards the shared parent cgroups while they are created or removed.
static CGROUP_LOCK: Mutex<()> = Mutex::new(());

/// A pod that was scheduled to this node.
pub(super) struct Pod {
    pub(super) site: Testbed,
    pub(super) spec: PodSpec,
    pub(super) uid: String,
    driver: Driver,
    pub(super) cgroup: String,
}

impl Deref for Pod {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.site
    }
}

/// A pod with a running sandbox.
pub(super) struct Sandbox<'a> {
    pod: &'a Pod,
    namespaces: Vec<(&'static str, PathBuf)>,
    _pause: Container<'a>,
}

impl Pod {
    /// `make` gets values with a policy for the new pod's server; it returns the pod and the data of the
    /// namespace's ConfigMaps.
    pub(super) fn new(driver: Driver, make: impl FnOnce(&Value) -> (Value, Objects)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let site = Testbed::new(SERVICE_UID);
        let allow = json!({ "host": "api.test", "ports": [site.api.port()], "private": true, "secrets": ["STRIPE_KEY"] });
        let (spec, objects) = make(&json!({
            "agent": { "image": "agent", "command": IDLE_COMMAND },
            "secrets": { "existingSecret": "agent-secrets", "names": ["STRIPE_KEY"] },
            "policy": { "policy": { "version": 1, "agents": [{ "name": "coder", "allow": [allow] }] } },
        }));
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert!(!spec.automount_service_account_token);
        let number = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let uid = format!("{:08x}-{:04x}-4abc-8def-0123456789ab", number.0, number.1);
        // Some requests and no limits: burstable.
        let cgroup = format!("/{}", driver.pod("burstable", &uid));
        let above = CGROUP_LOCK.lock();
        fs::create_dir_all(testbed::cgroup(&cgroup)).unwrap();
        drop(above);
        let pod = Self { site, spec, uid, driver, cgroup };
        for volume in &pod.spec.volumes {
            pod.create_volume(volume, &objects);
        }
        pod
    }

    /// The pin folders of this pod.
    pub(super) fn pins(&self) -> Vec<PathBuf> {
        testbed::pins(&self.cgroup)
    }

    /// Starts the sandbox: an idle process with the shared namespaces.
    pub(super) fn start_sandbox(&self) -> Sandbox<'_> {
        let id = testbed::new_id();
        let mut pause = self.site.start(Bundle {
            is_ours: false,
            user: (65535, 65535),
            capabilities: capabilities(&["ALL".to_owned()], &[]),
            no_new_privileges: true,
            read_only: true,
            working_dir: "/".to_owned(),
            command: IDLE_COMMAND.map(str::to_owned).to_vec(),
            environment: self.environment(false),
            mounts: Vec::new(),
            cgroup: self.cgroup_of(&id),
            shared: vec![("network", self.network())],
            check: Vec::new(),
            id,
        });
        assert_eq!(pause.read_line(), "started");
        let namespace = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", pause.pid()));
        let namespaces = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
            .map(|(of, kind)| (of, namespace(kind)))
            .to_vec();
        Sandbox { pod: self, namespaces, _pause: pause }
    }

    /// The sidecar, the pod's first container.
    pub(super) fn sidecar(&self) -> &Wanted {
        let first = &self.spec.init_containers[0];
        assert_eq!((first.name.as_str(), first.restart_policy.as_deref()), ("agentsecrets", Some("Always")));
        first
    }

    /// Writes a volume as a kubelet does: it replaces all files at once.
    pub(super) fn write_files(&self, volume: &str, files: &BTreeMap<String, String>, mode: u32) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = self.path("pod-volumes").join(volume);
        let name = format!("..2026_11_25_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let data = folder.join(&name);
        fs::create_dir_all(&data).unwrap();
        for (key, text) in files {
            fs::write(data.join(key), text).unwrap();
            fs::set_permissions(data.join(key), fs::Permissions::from_mode(mode)).unwrap();
        }
        let before = fs::read_link(folder.join("..data"));
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        for key in files.keys().filter(|key| folder.join(key).symlink_metadata().is_err()) {
            symlink(Path::new("..data").join(key), folder.join(key)).unwrap();
        }
        if let Ok(before) = before {
            fs::remove_dir_all(folder.join(before)).unwrap();
        }
    }

    fn cgroup_of(&self, id: &str) -> String {
        format!("{}/{}", self.cgroup, self.driver.container(id))
    }

    /// Creates the source of a volume.
    fn create_volume(&self, volume: &Volume, objects: &Objects) {
        let place = self.volume_path(volume);
        if let Some(csi) = &volume.csi {
            // The CSI driver mounts the folder with the node agent's socket; it rejects writable volumes.
            assert_eq!((&*csi.driver, csi.read_only), ("csi.spiffe.io", true));
            return fs::create_dir_all(&place).unwrap();
        }
        match (&volume.host_path, &volume.config_map, &volume.empty_dir, &volume.secret) {
            (Some(host), None, None, None) => match &*host.kind {
                "Directory" => assert!(place.is_dir()),
                "DirectoryOrCreate" => fs::create_dir_all(&place).unwrap(),
                other => panic!("{other}"),
            },
            (None, Some(map), None, None) => self.write_files(&volume.name, &objects[&map.name], 0o644),
            (None, None, Some(_), None) => {
                fs::create_dir_all(&place).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
            }
            (None, None, None, Some(secret)) => {
                assert_eq!(secret.secret_name, "agent-secrets");
                let files = BTreeMap::from([("STRIPE_KEY".to_owned(), SECRET.to_owned())]);
                self.write_files(&volume.name, &files, secret.default_mode);
            }
            other => panic!("{other:?}"),
        }
    }

    fn volume_path(&self, volume: &Volume) -> PathBuf {
        let host = volume.host_path.as_ref().map(|host| PathBuf::from(&host.path));
        host.unwrap_or_else(|| self.path("pod-volumes").join(&volume.name))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _above = CGROUP_LOCK.lock();
        testbed::remove_cgroup(&self.cgroup);
        for above in Path::new(&self.cgroup).ancestors().skip(1).filter(|above| above.parent().is_some()) {
            let _ = fs::remove_dir(testbed::cgroup(above.to_str().unwrap()));
        }
    }
}

/// The data of a namespace's ConfigMaps.
pub(super) type Objects = BTreeMap<String, BTreeMap<String, String>>;

impl<'a> Sandbox<'a> {
    /// Starts the pod as a kubelet does and returns its containers. It waits for the probe of each
    /// long-running one and for the end of the others.
    pub(super) fn start(&self) -> Vec<Container<'a>> {
        let mut running = Vec::new();
        for container_spec in &self.pod.spec.init_containers {
            let mut container = self.container(container_spec);
            if container_spec.restart_policy.is_some() {
                container.wait_until_healthy();
                running.push(container);
            } else {
                assert_eq!(container.wait_for_exit(), Some(0), "{}", container.errors());
            }
        }
        running.extend(self.pod.spec.containers.iter().map(|container_spec| self.agent(container_spec)));
        running
    }

    /// Starts the sidecar and waits until its probe passes.
    pub(super) fn sidecar(&self) -> Container<'a> {
        let sidecar = self.container(self.pod.sidecar());
        sidecar.wait_until_healthy();
        sidecar
    }

    /// Starts a container and waits for its first line.
    pub(super) fn agent(&self, spec: &Wanted) -> Container<'a> {
        let mut agent = self.container(spec);
        assert_eq!(agent.read_line(), "started");
        agent
    }

    /// Starts a container without waiting.
    pub(super) fn container(&self, container_spec: &Wanted) -> Container<'a> {
        let (pod, context) = (self.pod, &container_spec.security_context);
        let id = testbed::new_id();
        let is_ours = container_spec.image != "agent";
        let image: Value =
            serde_json::from_str(&fs::read_to_string(crate::containers::deploy_file("image.json")).unwrap())
                .unwrap();
        let entrypoint =
            image["Entrypoint"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
        let command = if container_spec.command.is_empty() {
            entrypoint.collect()
        } else {
            container_spec.command.clone()
        };
        let user = context.run_as_user.or(pod.spec.security_context.run_as_user).unwrap_or(IMAGE_UID);
        assert!(user != 0 || !context.run_as_non_root, "a kubelet does not start it");
        assert_eq!(context.seccomp_profile.kind, "RuntimeDefault");
        let probe = container_spec.startup_probe.as_ref();
        let mut environment = pod.environment(is_ours);
        environment.extend(
            container_spec.env.iter().map(|variable| format!("{}={}", variable.name, variable.value)),
        );
        let mounts = container_spec.volume_mounts.iter().map(|mount| {
            let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            (pod.volume_path(volume), mount.mount_path.clone(), mount.read_only)
        });
        pod.site.start(Bundle {
            is_ours,
            user: (user, context.run_as_group.unwrap_or(user)),
            capabilities: capabilities(&context.capabilities.drop, &context.capabilities.add),
            no_new_privileges: !context.allow_privilege_escalation,
            read_only: context.read_only_root_filesystem,
            working_dir: container_spec.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            command: command.into_iter().chain(container_spec.args.iter().cloned()).collect(),
            environment,
            mounts: mounts.collect(),
            cgroup: pod.cgroup_of(&id),
            shared: self.namespaces.clone(),
            check: probe.map(|probe| probe.exec.command.clone()).unwrap_or_default(),
            id,
        })
    }
}
