//! Images of containers: what a policy asks for, and what an engine says of one. Docker's short names are written
//! out, so that `python:3.12` and `docker.io/library/python:3.12` are one; a name without a version is none
//! here, since people and engines do not mean the same by it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::container::is_whole_id;

/// The registry of image names that contain none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest name, as registries have it.
const MAX_REFERENCE_LEN: usize = 255;

/// The image that a container was made from, as its engine says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest by which its engine keeps it, such as `sha256:9f86…`.
    pub id: String,
    /// The image that the container was created from, if it was a name.
    pub name: Option<Name>,
    /// The names and digests under which registries gave it.
    pub digests: Vec<Name>,
}

/// A name, written out, with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    /// Registry and path.
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Version {
    Tag(String),
    /// `sha256:…`, which a tag that stands beside it adds nothing to.
    Digest(String),
}

/// The image that a policy demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePattern {
    /// `sha256:…`: that an engine keeps it by this digest.
    Id(String),
    /// `name:tag` or `name@sha256:…`.
    Named(Name),
    /// `name:*`: any version.
    Any(String),
}

impl ImagePattern {
    /// Whether it is asked for `image`.
    pub fn is(&self, image: &Image) -> bool {
        match self {
            Self::Id(id) => *id == image.id,
            Self::Named(name) => image.name.as_ref() == Some(name) || image.digests.contains(name),
            Self::Any(repository) => image.name.as_ref().is_some_and(|name| name.repository == *repository),
        }
    }
}

impl FromStr for ImagePattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_digest(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        match text.strip_suffix(":*") {
            Some(repository) => to_canonical(repository).map(Self::Any).ok_or(NO_NAME),
            None => text.parse().map(Self::Named),
        }
    }
}

const NO_NAME: &str = "is no name of an image";
const NO_VERSION: &str =
    "names no version: write :latest if you mean that, :* for any, or better a digest, @sha256:…";

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_REFERENCE_LEN + 200 || is_digest(text) {
            return Err(NO_NAME);
        }
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // A colon before the last slash is that of a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
            return Err(NO_NAME);
        }
        let repository = to_canonical(name).ok_or(NO_NAME)?;
        match (digest, tag) {
            (Some(digest), _) => Ok(Self { repository, version: Version::Digest(digest.to_owned()) }),
            (None, Some(tag)) => Ok(Self { repository, version: Version::Tag(tag.to_owned()) }),
            (None, None) => Err(NO_VERSION),
        }
    }
}

impl Name {
    /// Parses the image name that an engine was given. Without a version it is `latest`; a digest alone is
    /// not a name.
    pub fn normalize_name(text: &str) -> Option<Self> {
        match text.parse() {
            Err(NO_VERSION) if !is_whole_id(text) => format!("{text}:latest").parse().ok(),
            parsed => parsed.ok(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Registry and path of `name`, in full.
fn to_canonical(name: &str) -> Option<String> {
    let is_registry = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (registry, path) = match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_REGISTRY, path),
        Some((registry, path)) if is_registry(registry) => (registry, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let of_path = |byte: u8| is_lower(byte) || matches!(byte, b'.' | b'-' | b'_');
    let is_path = path.split('/').all(|part| {
        part.bytes().all(of_path)
            && part.bytes().next().is_some_and(is_lower)
            && part.bytes().last().is_some_and(is_lower)
    });
    let valid =
        name.len() <= MAX_REFERENCE_LEN && registry.bytes().all(of_host) && is_path && !is_whole_id(path);
    valid.then(|| format!("{registry}/{}{path}", if official { "library/" } else { "" }))
}

/// Whether it is `sha256:` and 64 lower-case hex digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_whole_id)
}

fn is_tag(text: &str) -> bool {
    let of_tag = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(of_tag) && !text.starts_with(['.', '-'])
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const B: &str = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

    fn image(name: &str, digests: &[&str]) -> Image {
        let digests = digests.iter().map(|digest| digest.parse().unwrap()).collect();
        Image { id: A.to_owned(), name: Name::normalize_name(name), digests }
    }

    fn is(wanted: &str, image: &Image) -> bool {
        wanted.parse::<ImagePattern>().unwrap().is(image)
    }

    #[test]
    fn short_and_full_name_are_the_same_image() {
        for (wanted, name) in [
            ("python:3.12", "docker.io/library/python:3.12"),
            ("index.docker.io/library/python:3.12", "python:3.12"),
            ("acme/agent:1", "docker.io/acme/agent:1"),
            ("ghcr.io/acme/agent:1", "ghcr.io/acme/agent:1"),
            ("localhost/agent:1", "localhost/agent:1"),
            ("localhost:5000/a/b/agent:1", "localhost:5000/a/b/agent:1"),
            ("python:latest", "python"),
            ("python:*", "python"),
            ("ghcr.io/acme/agent:*", "ghcr.io/acme/agent:7"),
        ] {
            assert!(is(wanted, &image(name, &[])), "{wanted} is not {name}");
        }
        for (wanted, name) in [
            ("python:3.12", "python:3.13"),
            ("python:3.12", "python"),
            ("python:3.12", "acme/python:3.12"),
            ("python:3.12", "evil.example/library/python:3.12"),
            ("python:*", "evil.example/library/python:3.12"),
            ("ghcr.io/acme/agent:*", "ghcr.io/acme/agent/evil:1"),
            ("ghcr.io/acme/agent:*", "ghcr.io/acme/agent2:1"),
            ("acme/agent:1", "localhost/acme/agent:1"),
            ("python:*", A),
        ] {
            assert!(!is(wanted, &image(name, &[])), "{wanted} is {name}");
        }
    }

    #[test]
    fn digest_decides_over_tag() {
        let given = image("acme/agent:1", &[&format!("acme/agent@{B}")]);
        assert!(is(A, &given) && !is(B, &given));
        assert!(is(&format!("acme/agent@{B}"), &given) && is(&format!("acme/agent:2@{B}"), &given));
        assert!(!is(&format!("acme/agent@{A}"), &given) && !is(&format!("acme/other@{B}"), &given));
        assert!(is(&format!("acme/agent@{B}"), &image(&format!("acme/agent:1@{B}"), &[])));
        assert!(!is("acme/agent:1", &image(&format!("acme/agent:1@{B}"), &[])));
    }

    #[test]
    fn invalid_name_or_missing_version_is_refused() {
        for text in ["python", "ghcr.io/acme/agent", "localhost:5000/agent"] {
            assert_eq!(text.parse::<ImagePattern>(), Err(NO_VERSION), "{text}");
        }
        let upper = A.to_uppercase();
        for text in [
            "",
            ":*",
            "*:*",
            "a b:1",
            "Acme/agent:1",
            "acme/agent:",
            "acme/agent:.1",
            "acme//agent:1",
            "/a:1",
        ]
        .into_iter()
        .chain([
            "a@sha256:1",
            "a:1@",
            "-a:1",
            "a-:1",
            "https://a.example/b:1",
            "a:*:*",
            &upper,
            &A[7..],
        ]) {
            assert!(text.parse::<ImagePattern>().is_err(), "{text}");
        }
        assert_eq!(Name::normalize_name(A), None);
        assert_eq!(Name::normalize_name(&A[7..]), None);
    }

    proptest! {
        #[test]
        fn canonical_name_parses_to_itself(text in "[-a-zA-Z0-9.:/@_*\\[\\]]{0,80}") {
            if let Some(name) = Name::normalize_name(&text) {
                prop_assert_eq!(name.to_string().parse::<Name>(), Ok(name));
            }
            let _ = text.parse::<ImagePattern>();
        }
    }
}
