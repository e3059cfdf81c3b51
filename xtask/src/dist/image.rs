//! The container image as an OCI archive, with the `manifest.json` that `docker load` of older engines reads. Its one
//! layer has the program, the CA certificates, and empty folders as mount points.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::archive::{Tree, gzip};
use super::release::Release;
use crate::digest::sha256;
use crate::workspace::root;

/// The user of the service.
const SERVICE_UID: u64 = 65532;
/// The path of Debian's CA bundle.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// The archive.
pub(super) fn archive(release: &Release) -> Result<Vec<u8>> {
    let layer = layer(release)?.tar(release.epoch)?;
    let packed = gzip(&layer)?;
    let config = config(release, &sha256(&layer))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({ "architecture": release.arch.name(), "os": "linux" });
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": release.version,
        "io.containerd.image.name": format!("docker.io/library/agentsecrets:{}", release.version),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let listed = json!([{
        "Config": path(&config),
        "RepoTags": [format!("agentsecrets:{}", release.version)],
        "Layers": [path(&packed)],
    }]);
    let mut tree = Tree::default();
    tree.file("manifest.json", serde_json::to_vec(&listed)?, 0o644);
    tree.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    tree.file("index.json", serde_json::to_vec(&index)?, 0o644);
    for blob in [packed, config, manifest] {
        tree.file(&path(&blob), blob, 0o644);
    }
    tree.tar(release.epoch)
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
}

/// The configuration of the image: `deploy/image.json` with labels and layer.
fn config(release: &Release, layer: &str) -> Result<Vec<u8>> {
    let settings = fs::read(root().join("deploy/image.json")).context("cannot read deploy/image.json")?;
    let mut run: Value = serde_json::from_slice(&settings)?;
    run["Labels"] = json!({
        "org.opencontainers.image.title": "agentsecrets",
        "org.opencontainers.image.description": "Credentials for AI agents that never hold them",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.licenses": "MIT",
    });
    let created = release.time()?;
    Ok(serde_json::to_vec(&json!({
        "created": created,
        "architecture": release.arch.name(),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    }))?)
}

fn layer(release: &Release) -> Result<Tree> {
    let roots = fs::read(format!("/{ROOTS}"))
        .context("the system has no CA certificates: apt-get install ca-certificates")?;
    let mut tree = Tree::default();
    tree.file("agentsecrets", release.program.clone(), 0o755);
    tree.file(ROOTS, roots, 0o644);
    tree.file(
        "etc/passwd",
        format!("root:x:0:0::/:\nagentsecrets:x:{SERVICE_UID}:{SERVICE_UID}::/var/lib/agentsecrets:\n"),
        0o644,
    );
    tree.file("etc/group", format!("root:x:0:\nagentsecrets:x:{SERVICE_UID}:\n"), 0o644);
    tree.file("usr/share/doc/agentsecrets/THIRD-PARTY.md", release.notices.text(), 0o644);
    for folder in ["config/agentsecrets", "run/agentsecrets/public", "run/secrets", "host/bpf", "host/cgroup"]
    {
        tree.folder(folder, 0o755, 0);
    }
    for folder in ["dev", "proc", "sys"] {
        tree.folder(folder, 0o755, 0);
    }
    tree.folder("tmp", 0o1777, 0);
    // A new volume gets the owner and mode of this folder.
    tree.folder("var/lib/agentsecrets", 0o700, SERVICE_UID);
    Ok(tree)
}
