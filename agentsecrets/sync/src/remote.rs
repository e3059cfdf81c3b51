//! The object store of a workspace: S3 and what speaks it, GCS, Azure Blob Storage, or a folder. Every object is
//! created under the condition that it does not exist; none is changed.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig,
};

use crate::commit::MAX_COMMIT;
use crate::error::Error;
use crate::id::Id;

/// Time limit of one request.
const TIMEOUT: &str = "60 seconds";
/// Time limit for making a connection.
const CONNECT_TIMEOUT: &str = "10 seconds";
/// Time limit of a request with its retries.
const RETRY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
const MAX_RETRIES: usize = 4;

/// Where workspaces are stored.
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// Opens `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, or an absolute path of a folder,
    /// which is created if `create` says so. Credentials come from the environment, as the service's own tools
    /// read them.
    ///
    /// # Errors
    /// If the address is invalid.
    pub fn open(url: &str, create: bool) -> Result<Self, Error> {
        let (store, prefix): (Arc<dyn ObjectStore>, &str) = match url.split_once("://") {
            None => (folder(FilePath::new(url), create)?, ""),
            Some(("file", path)) => (folder(FilePath::new(path), create)?, ""),
            Some((scheme, rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() || bucket.contains('@') {
                    return Err(invalid(url));
                }
                (service(scheme, bucket, url)?, prefix)
            }
        };
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|_| invalid(url))?;
        Ok(Self { store, prefix, url: url.to_owned() })
    }

    /// A remote over a store, for tests of hostile ones.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, prefix: Path::default(), url: "memory".to_owned() }
    }

    /// The address that it was opened with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The commit `seq`, if the store has it.
    pub(crate) async fn commit(&self, workspace: Id, seq: u64) -> Result<Option<Vec<u8>>, Error> {
        self.get(&commit_name(workspace, seq), GetOptions::default()).await
    }

    /// The first `len` bytes of commit `seq`.
    pub(crate) async fn head(&self, workspace: Id, seq: u64, len: usize) -> Result<Option<Vec<u8>>, Error> {
        let range = Some(GetRange::Bounded(0..len as u64));
        self.get(&commit_name(workspace, seq), GetOptions { range, ..GetOptions::default() }).await
    }

    /// Creates commit `seq`; false if there is one already.
    pub(crate) async fn create_commit(&self, workspace: Id, seq: u64, bytes: &[u8]) -> Result<bool, Error> {
        self.create(&commit_name(workspace, seq), bytes).await
    }

    /// The object `name`, if the store has it.
    pub(crate) async fn object(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.get(name, GetOptions::default()).await
    }

    /// Creates the object `name`; false if there is one already.
    pub(crate) async fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(bytes.to_vec());
        match self.store.put_opts(&self.path(name), payload, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn get(&self, name: &str, options: GetOptions) -> Result<Option<Vec<u8>>, Error> {
        let found = match self.store.get_opts(&self.path(name), options).await {
            Ok(found) => found,
            Err(error @ object_store::Error::NotFound { .. }) if !is_missing_bucket(&error) => {
                return Ok(None);
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let mut bytes = Vec::new();
        let mut stream = found.into_stream();
        while let Some(part) = stream.next().await {
            bytes.extend_from_slice(&part.map_err(|error| self.failed(&error))?);
            if bytes.len() > MAX_COMMIT {
                return Err(Error::Storage {
                    what: format!("{name} in {} is larger than any object of a workspace", self.url),
                    fix: "do not trust this storage",
                });
            }
        }
        Ok(Some(bytes))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The failure in our words, with its fix.
    fn failed(&self, error: &object_store::Error) -> Error {
        let detail = chain(error);
        let said = |word: &str| detail.contains(word);
        let (what, fix) = if is_missing_bucket(error) {
            ("there is no such bucket", "correct the address, or create the bucket")
        } else if said("RequestTimeTooSkewed") || said("RequestExpired") {
            ("the clock of this machine is wrong", "set the clock: timedatectl set-ntp true")
        } else if matches!(error, object_store::Error::Unauthenticated { .. })
            || said("InvalidAccessKeyId")
            || said("SignatureDoesNotMatch")
        {
            (
                "the credentials are not accepted",
                "set the credentials of the storage service in the environment",
            )
        } else if matches!(error, object_store::Error::PermissionDenied { .. })
            || said("Permission denied")
            || said("AccessDenied")
        {
            ("permission is denied", "give these credentials leave to read and create objects there")
        } else if said("No space left") || said("StorageFull") {
            ("the disk is full", "free space, and run the command again")
        } else if matches!(error, object_store::Error::NotFound { .. }) {
            ("the folder does not exist", "correct the address, or mount the folder")
        } else {
            ("it does not answer", "look at the network, and run the command again: nothing is lost")
        };
        Error::Storage { what: format!("the storage {} failed: {what} ({})", self.url, short(&detail)), fix }
    }
}

/// The name of a commit.
fn commit_name(workspace: Id, seq: u64) -> String {
    format!("{workspace}/log/{seq:010}")
}

fn folder(path: &FilePath, create: bool) -> Result<Arc<dyn ObjectStore>, Error> {
    if !path.is_absolute() {
        return Err(invalid(&path.display().to_string()));
    }
    let failed = |error: &dyn fmt::Display| Error::Storage {
        what: format!("the folder {} cannot be opened: {error}", path.display()),
        fix: "correct the path, or mount the folder",
    };
    if create {
        std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    }
    let path: PathBuf = path.canonicalize().map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed(&error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

fn service(scheme: &str, bucket: &str, url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let retry =
        RetryConfig { max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let bad = |error: object_store::Error| Error::Storage {
        what: format!("the storage {url} cannot be opened: {}", short(&chain(&error))),
        fix: "set the credentials and the region of the storage service in the environment",
    };
    let limits = [(ClientConfigKey::Timeout, TIMEOUT), (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT)];
    match scheme {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            Ok(Arc::new(builder.build().map_err(bad)?))
        }
        "gs" => {
            let mut builder =
                GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            Ok(Arc::new(builder.build().map_err(bad)?))
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry);
            for (key, value) in limits {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            Ok(Arc::new(builder.build().map_err(bad)?))
        }
        _ => Err(invalid(url)),
    }
}

fn invalid(url: &str) -> Error {
    Error::Refused(format!(
        "'{}' is no storage: give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or an absolute path, \
         without credentials",
        url.escape_debug()
    ))
}

fn is_missing_bucket(error: &object_store::Error) -> bool {
    let detail = chain(error);
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|word| detail.contains(word))
}

/// An error and its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The beginning of a service's own words, without control characters.
fn short(detail: &str) -> String {
    detail.chars().filter(|character| !character.is_control()).take(200).collect()
}
