//! The part of Compose and Docker that these tests need: one network for a service and its agents
//! (`network_mode: service:`), and each container as `deploy/compose.yaml` specifies it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use super::bundle::{Bundle, capabilities};
use super::compose::{Compose, SecretFile, Service};
use super::deploy_file;
use super::testbed::{self, Container, IDLE_COMMAND, SECRET, Testbed};

/// The uid in the image's configuration.
const SERVICE_UID: u32 = 65532;

/// A copy of the compose folder, and the testbed for its containers.
pub(crate) struct Engine {
    pub(crate) site: Testbed,
    pub(crate) compose: Compose,
}

impl Deref for Engine {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.site
    }
}

impl Engine {
    /// The state after a user has copied the folder and chosen an image.
    pub(crate) fn new() -> Self {
        let site = Testbed::new(SERVICE_UID);
        let slice = format!("agentsecretstest{}.slice", site.netns.id());
        let variables =
            [("AGENTSECRETS_SLICE", slice.as_str()), ("AGENT_IMAGE", "agent"), ("AGENT_USER", "1000:1000")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let compose = Compose::read(&BTreeMap::from(variables));
        let engine = Self { site, compose };
        engine.write("secrets/STRIPE_KEY", SECRET);
        engine.write(
            "agentsecrets/config.yaml",
            &fs::read_to_string(deploy_file("agentsecrets/config.yaml")).unwrap(),
        );
        for folder in ["workspace", "volumes/public", "volumes/state"] {
            fs::create_dir_all(engine.path(folder)).unwrap();
        }
        // A new volume takes owner and mode from the image's folder.
        let state = engine.path("volumes/state");
        chown(&state, Some(SERVICE_UID), Some(SERVICE_UID)).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        chown(engine.path("workspace"), Some(1000), Some(1000)).unwrap();
        engine.rule("secrets: [STRIPE_KEY]");
        engine
    }

    /// Writes a policy whose only rule allows the server, with `more` keys.
    pub(crate) fn rule(&self, more: &str) {
        self.policy(&format!("  - name: coder\n    allow:\n{}", self.allow(more)));
    }

    /// Writes a policy with these agents.
    pub(crate) fn policy(&self, agents: &str) {
        self.write("agentsecrets/policy.yaml", &format!("version: 1\nagents:\n{agents}"));
    }

    /// A rule that allows the server.
    pub(crate) fn allow(&self, more: &str) -> String {
        let port = self.api.port();
        format!("      - host: api.test\n        ports: [{port}]\n        private: true\n        {more}\n")
    }

    /// The containers' parent cgroup.
    pub(crate) fn slice(&self) -> PathBuf {
        testbed::cgroup(&self.parent_cgroup())
    }

    /// The pin folders of the slice.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        testbed::pins(&self.parent_cgroup())
    }

    fn parent_cgroup(&self) -> String {
        format!("/{}", self.compose.services["agentsecrets"].cgroup_parent)
    }

    /// Starts the service and waits until it is healthy.
    pub(crate) fn start_service(&self) -> Container<'_> {
        let service = self.start_service_unready(&self.compose.services["agentsecrets"]);
        service.wait_until_healthy();
        service
    }

    /// Starts the service as specified by `service` without waiting.
    pub(crate) fn start_service_unready(&self, service: &Service) -> Container<'_> {
        let words = ["/agentsecrets".to_owned()].into_iter().chain(service.command.iter().cloned());
        self.start_container(service, words.collect(), None)
    }

    /// Starts the agent, which waits for a line and ends. Tests run their requests in the same container.
    pub(crate) fn start_agent(&self) -> Container<'_> {
        self.start_agent_as(&self.compose.services["agent"], None)
    }

    /// Starts an agent as specified by `service`, optionally in another container's pid namespace.
    pub(crate) fn start_agent_as(&self, service: &Service, pids: Option<&Container<'_>>) -> Container<'_> {
        let words = IDLE_COMMAND.map(str::to_owned).to_vec();
        let mut agent = self.start_container(service, words, pids);
        assert_eq!(agent.read_line(), "started");
        agent
    }

    /// Starts a container of `service` with another command and waits for its first line.
    pub(crate) fn start_with(&self, service: &Service, words: &[&str]) -> Container<'_> {
        let mut started =
            self.start_container(service, words.iter().map(|&word| word.to_owned()).collect(), None);
        assert_eq!(started.read_line(), "started");
        started
    }

    /// Mounts one more secret file in the service, as a line of the compose file would.
    pub(crate) fn add_secret(&mut self, name: &str) {
        let file = format!("./secrets/{name}");
        self.compose.secrets.insert(name.to_owned(), SecretFile { file });
        self.compose.services.get_mut("agentsecrets").unwrap().secrets.push(name.to_owned());
    }

    fn start_container(
        &self,
        service: &Service,
        command: Vec<String>,
        pids: Option<&Container<'_>>,
    ) -> Container<'_> {
        // This network namespace stands in for that of the container which holds it.
        assert_eq!(service.network_mode.as_deref(), Some("service:network"));
        let id = testbed::new_id();
        let is_ours = service.image != "agent";
        let (uid, gid) = service.user.split_once(':').unwrap();
        let mut environment = self.environment(is_ours);
        environment.extend(service.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let pids = pids.map(|other| ("pid", PathBuf::from(format!("/proc/{}/ns/pid", other.pid()))));
        let check = &self.compose.services["agentsecrets"].healthcheck.as_ref().unwrap().test;
        assert_eq!(check[0], "CMD");
        self.site.start(Bundle {
            is_ours,
            user: (uid.parse().unwrap(), gid.parse().unwrap()),
            capabilities: capabilities(&service.cap_drop, &service.cap_add),
            no_new_privileges: service.security_opt.iter().any(|option| option == "no-new-privileges:true"),
            read_only: service.read_only,
            working_dir: service.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            command,
            environment,
            mounts: self.mounts(service),
            cgroup: format!("/{}/docker-{id}.scope", service.cgroup_parent),
            shared: [("network", self.network())].into_iter().chain(pids).collect(),
            check: check[1..].to_vec(),
            id,
        })
    }

    fn mounts(&self, service: &Service) -> Vec<(PathBuf, String, bool)> {
        let mut mounts = Vec::new();
        for volume in &service.volumes {
            let mut parts = volume.split(':');
            let (source, at) = (parts.next().unwrap(), parts.next().unwrap());
            let read_only = parts.next().inspect(|how| assert_eq!(*how, "ro")).is_some();
            let source = match source.strip_prefix("./") {
                Some(inside) => self.path(inside),
                None if source.starts_with('/') => PathBuf::from(source),
                None => {
                    assert!(self.compose.volumes.contains_key(source));
                    self.path("volumes").join(source)
                }
            };
            // An engine creates missing paths on the host.
            fs::create_dir_all(&source).unwrap();
            mounts.push((source, at.to_owned(), read_only));
        }
        for secret in &service.secrets {
            let source = self.path(self.compose.secrets[secret].file.strip_prefix("./").unwrap());
            mounts.push((source, format!("/run/secrets/{secret}"), true));
        }
        mounts
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        testbed::remove_cgroup(&self.parent_cgroup());
    }
}
