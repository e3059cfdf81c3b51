//! The `match` of an agent entry: the facts that a caller must have.

use globset::GlobMatcher;

use super::exe_pattern;
use super::glob::is_canonical_path;
use super::pod::PodMatcher;
use super::spiffe::{self, SpiffeMatcher};
use crate::identity::Caller;
use crate::identity::image::ImagePattern;

/// The facts that a caller must have. Absent facts are not checked.
#[derive(Debug, Default)]
pub(super) struct CallerMatcher {
    pub exe: Option<GlobMatcher>,
    pub sha256: Option<String>,
    pub uid: Option<u32>,
    pub cgroup: Option<GlobMatcher>,
    /// The beginning of the container id.
    pub container: Option<String>,
    pub image: Option<ImagePattern>,
    pub session: bool,
    pub token: bool,
    pub trusted: bool,
    pub pod: Option<PodMatcher>,
    pub spiffe: Option<SpiffeMatcher>,
}

impl CallerMatcher {
    /// The name of the first fact that does not hold, or `None` if all hold.
    pub(super) fn first_mismatch(&self, caller: &Caller) -> Option<&'static str> {
        let process = &caller.process;
        let exe = |glob: &GlobMatcher| exe_pattern::matches(glob, &process.exe.to_string_lossy());
        let cgroup =
            |glob: &GlobMatcher| is_canonical_path(&process.cgroup) && glob.is_match(&process.cgroup);
        let container =
            |id: &String| process.container().is_some_and(|container| container.id.starts_with(id.as_str()));
        let image = |wanted: &ImagePattern| process.image.as_ref().is_some_and(|image| wanted.is(image));
        if self.uid.is_some_and(|uid| uid != process.uid) {
            Some("uid")
        } else if !self.exe.as_ref().is_none_or(exe) {
            Some("exe")
        } else if !self.cgroup.as_ref().is_none_or(cgroup) {
            Some("cgroup")
        } else if !self.container.as_ref().is_none_or(container) {
            Some("container")
        } else if !self.image.as_ref().is_none_or(image) {
            Some("image")
        } else if !self.pod.as_ref().is_none_or(|facts| facts.matches(caller)) {
            Some("pod")
        } else if self.sha256.as_ref().is_some_and(|hash| *hash != process.sha256) {
            Some("sha256")
        } else if self.session && caller.session.is_empty() {
            Some("session")
        } else if self.token && caller.attributes.token.is_none() {
            // A token of another agent would have selected that agent.
            Some("token")
        } else if self.trusted && !caller.attributes.trusted {
            Some("trusted")
        } else if !self.spiffe.as_ref().is_none_or(|identity| identity.matches(caller)) {
            // Checked last: it may be undetermined, and other facts may exclude the entry already.
            Some(spiffe::FACT)
        } else {
            None
        }
    }
}
