//! Masks paths in the agent's sandbox: our own files, the kernel's control file systems, and sockets of
//! programs that act for somebody else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use procfs::net::UnixState;

use super::spec::View;
use crate::launch::mounts;

/// File systems through which the kernel is controlled.
const CONTROLS: &[&str] =
    &["bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs", "pstore", "securityfs", "tracefs"];

/// Folders and sockets of programs that act for others, and devices that put packets on a wire.
const DOORS: &[&str] = &[
    "/dev/net",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/vsock",
    "/run/buildkit",
    "/run/containerd",
    "/run/cri-dockerd.sock",
    "/run/crio",
    "/run/dbus",
    "/run/docker",
    "/run/docker.sock",
    "/run/k3s",
    "/run/libvirt",
    "/run/lxd.socket",
    "/run/nscd",
    "/run/podman",
    "/run/screen",
    "/run/snapd-snap.socket",
    "/run/snapd.socket",
    "/run/tmux",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/tmp/.ICE-unix",
    "/tmp/.X11-unix",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd",
];

/// Masks all of them. Sockets of these programs at other paths are masked one by one.
pub(super) fn hide(view: &View<'_>) -> io::Result<()> {
    let resolver = resolver_file();
    mounts::mask_folder_with(Path::new("/run/systemd"), &resolver)?;
    let mut paths: Vec<PathBuf> = DOORS.iter().map(PathBuf::from).collect();
    paths.extend(view.ours.iter().cloned());
    paths.extend(view.terminals.iter().cloned());
    paths.push(PathBuf::from("/dev/console"));
    paths.push(PathBuf::from(format!("/tmp/tmux-{}", view.user.uid)));
    paths.extend(agents_of_keys(&view.user.home));
    paths.extend(keychains(&view.user.home));
    paths.extend(mounts::mount_table()?.into_iter().filter(is_control).map(|mount| mount.path));
    paths.extend(listening_sockets()?);
    // Parents first; what lies below a covered folder is gone, and no longer found.
    for path in paths.into_iter().collect::<BTreeSet<_>>() {
        mounts::mask_path(&path)?;
    }
    Ok(())
}

fn is_control(mount: &mounts::MountPoint) -> bool {
    CONTROLS.contains(&mount.kind.as_str())
}

/// Sockets with a path on which somebody listens, as far as this network namespace knows.
fn listening_sockets() -> io::Result<Vec<PathBuf>> {
    let sockets = procfs::net::unix().map_err(io::Error::other)?;
    let listening = sockets.into_iter().filter(|socket| socket.state == UnixState::UNCONNECTED);
    let paths = listening.filter_map(|socket| socket.path).filter(|path| path.is_absolute());
    // Its owner may have put something else in its place, which is not to be covered in the owner's name.
    Ok(paths.filter(|path| fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())).collect())
}

/// Sockets of the SSH and GnuPG agents.
fn agents_of_keys(home: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).into_iter().collect();
    for socket in ["S.gpg-agent", "S.gpg-agent.ssh", "S.gpg-agent.extra", "S.gpg-agent.browser", "S.keyboxd"]
    {
        paths.push(home.join(".gnupg").join(socket));
    }
    paths
}

/// Keychain files: encrypted, but by a password that can be guessed offline.
fn keychains(home: &Path) -> Vec<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folders = data.into_iter().chain([home.join(".local/share")]);
    folders.flat_map(|folder| [folder.join("keyrings"), folder.join("kwalletd")]).collect()
}

/// The resolver's configuration, where it lies in the covered folder of systemd: without it some clients
/// ask nobody.
fn resolver_file() -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(path) = Path::new("/etc/resolv.conf").canonicalize() else { return Vec::new() };
    let Ok(relative) = path.strip_prefix("/run/systemd") else { return Vec::new() };
    fs::read(&path).map(|bytes| vec![(relative.to_path_buf(), bytes)]).unwrap_or_default()
}
