//! The output of `cargo xtask dist`: the image as tools and a runtime see it, and the package on a clean
//! system.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::testbed::SECRET;
use super::{Engine, deploy_file, workspace_file};
use crate::support::process::{command, run};

/// The only artifact of this kind for this machine.
pub(super) fn artifact(kind: &str) -> PathBuf {
    artifact_in("target/dist", kind)
}

fn artifact_in(folder: &str, kind: &str) -> PathBuf {
    let all = fs::read_dir(workspace_file(folder)).expect("not made: cargo xtask dist");
    let mut all =
        all.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().ends_with(kind));
    let found = all.next().unwrap_or_else(|| panic!("no {kind}: cargo xtask dist"));
    assert_eq!(all.next(), None, "several {kind}");
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Unpacks the image's layers as an engine does.
pub(super) fn unpack_image(image: &Path, into: &Path) -> PathBuf {
    let (archive, root) = (into.join("archive"), into.join("root"));
    for folder in [&archive, &root] {
        fs::create_dir(folder).unwrap();
    }
    run(command("tar").arg("-xf").arg(image).arg("-C").arg(&archive)).ok();
    let blob = |described: &Value| {
        let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = archive.join("blobs/sha256").join(digest);
        assert_eq!(fs::metadata(&path).unwrap().len(), described["size"].as_u64().unwrap());
        path
    };
    let manifest = json(&blob(&json(&archive.join("index.json"))["manifests"][0]));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    run(command("tar").arg("-xzpf").arg(blob(&manifest["layers"][0])).arg("-C").arg(&root)).ok();
    root
}

#[test]
#[ignore = "needs what `cargo xtask dist` makes, a release build: with --full"]
fn image_is_valid_oci_archive() {
    let archive = format!("oci-archive:{}", artifact(".oci.tar").display());
    let shown = run(command("skopeo").args(["inspect", &archive])).json();
    assert_eq!(shown["Os"], "linux");
    assert_eq!(shown["Labels"]["org.opencontainers.image.licenses"], "MIT");
    let config = run(command("skopeo").args(["inspect", "--config", &archive])).json();
    let described = json(&deploy_file("image.json"));
    for key in ["User", "Env", "Entrypoint", "WorkingDir"] {
        assert_eq!(config["config"][key], described[key], "{key}");
    }
    run(command("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(workspace_file("target/dist"))).ok();
    let bill = json(&artifact(".cdx.json"));
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert!(bill["components"].as_array().unwrap().len() > 100);
    let size = fs::metadata(artifact(".oci.tar")).unwrap().len();
    assert!(size < 32 << 20, "the image has {size} bytes");
    let program = fs::read(
        unpack_image(&artifact(".oci.tar"), tempfile::tempdir().unwrap().path()).join("agentsecrets"),
    )
    .unwrap();
    for path in [workspace_file("").display().to_string(), "/.cargo/registry".to_owned()] {
        assert!(!program.windows(path.len()).any(|part| part == path.as_bytes()), "{path} is in the program");
    }
}

#[test]
#[ignore = "needs what `cargo xtask dist --arch arm64` makes, a release build: with --full"]
#[cfg(target_arch = "x86_64")]
fn arm64_image_runs_emulated() {
    let image = artifact_in("target/dist-arm64", ".oci.tar");
    let archive = format!("oci-archive:{}", image.display());
    let choice = ["--override-arch", "arm64", "inspect", &archive];
    assert_eq!(run(command("skopeo").args(choice)).json()["Architecture"], "arm64");
    let folder = tempfile::tempdir().unwrap();
    let program = unpack_image(&image, folder.path()).join("agentsecrets");
    let emulated = |words: &[&str]| {
        let mut qemu = command("qemu-aarch64-static");
        run(qemu.arg(&program).args(words).env("AGENTSECRETS_HOME", folder.path().join("home")))
    };
    assert!(emulated(&["--version"]).ok().starts_with("agentsecrets "));
    let set = emulated(&["policy", "check", deploy_file("agentsecrets/policy.yaml").to_str().unwrap()]);
    set.ok();
}

#[test]
#[ignore = "needs what `cargo xtask dist` makes, a release build: with --full"]
fn image_alone_serves_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::new();
    engine.site.image = Some(unpack_image(&artifact(".oci.tar"), folder.path()));
    let (service, agent) = (engine.start_service(), engine.start_agent());
    let answer = agent.curl(&[], &engine.url("/echo")).ok();
    assert_eq!(engine.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]"), "{answer}");
    assert_eq!(service.audit().pop().unwrap()["process"]["container"], agent.id.as_str());
    assert!(service.exec(["/agentsecrets", "--version"]).ok().starts_with("agentsecrets "));
    assert_eq!(service.stop(), Some(0));
}

#[test]
#[ignore = "installs a Debian system, and needs what `cargo xtask dist` makes: with --full"]
fn deb_package_installs_runs_and_purges() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let system = folder.path().join("system");
    // The package source of this machine.
    let targets = ["indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"];
    let targets = run(command("apt-get").args(targets)).ok();
    let (site, release) = targets.lines().next().unwrap().split_once(' ').unwrap();
    let mut debootstrap = command("timeout");
    debootstrap.args(["10m", "/usr/sbin/debootstrap", "--variant=minbase", release]).arg(&system).arg(site);
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let done = debootstrap.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert!(done.success(), "{}", fs::read_to_string(folder.path().join("log")).unwrap());
    fs::copy(artifact(".deb"), system.join("agentsecrets.deb")).unwrap();
    let inside = |words: &[&str]| run(command("chroot").arg(&system).args(words).env("HOME", "/root"));
    let files = || {
        inside(&[
            "find",
            "/usr",
            "/etc",
            "/var",
            "/run",
            "/root",
            "-cnewer",
            "/agentsecrets.deb",
            "-type",
            "f",
        ])
        .ok()
    };
    inside(&["dpkg", "--install", "/agentsecrets.deb"]).ok();
    assert!(inside(&["agentsecrets", "--version"]).ok().starts_with("agentsecrets "));
    let status = inside(&["agentsecrets", "status", "--json"]).json();
    assert_eq!(status["project"], "default", "{status}");
    // Control: the search finds a present value.
    assert!(files().contains("/usr/bin/agentsecrets"), "{}", files());
    inside(&["dpkg", "--purge", "agentsecrets"]).ok();
    assert_ne!(inside(&["dpkg", "--status", "agentsecrets"]).code, Some(0));
    assert!(!files().contains("agentsecrets"), "{}", files());
}
