//! The system's package manager proves that a file is the one of its package. dpkg keeps an MD5 of
//! each file and rpm, by default, a SHA-256, in a database that root alone writes. That proves that root
//! installed a package with this file, not who made the package; and since two files with one MD5 can be
//! made by whoever makes both, the file must be one that root alone can have put there.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use md5::{Digest, Md5};

use crate::identity::executable::sha256;
use crate::sys::is_roots_alone;

/// Folders that lead below `/usr` on systems where dpkg's database still lists what is there without it.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The digest of RPM's that we compute, by its number in OpenPGP.
const SHA256: &str = "8";

/// A package that vouches for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageProof {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The evidence, such as `dpkg, MD5`.
    pub how: &'static str,
}

/// Why no package vouches for a file.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The system has neither dpkg nor rpm.
    #[error("this system has neither dpkg nor rpm")]
    NoManager,
    /// No package brought it.
    #[error("no package owns {}", .0.display())]
    Unowned(PathBuf),
    /// It is not what the package brought.
    #[error("{package} {version} brought another file than the one that lies there now")]
    Differs {
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// Somebody but root could have put it there.
    #[error("{} is not root's alone to write, so that a package's word for what lies there is not enough", .0.display())]
    Writable(PathBuf),
    /// The package manager's database cannot be read.
    #[error("the database of packages cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The package that owns the file at `path` and vouches for what it holds.
pub fn vouch(path: &Path) -> Result<PackageProof, PackageError> {
    roots_alone(path)?;
    Dpkg::at(Path::new("/var/lib/dpkg")).vouch(path).or_else(|dpkg| match (rpm(path), dpkg) {
        (Err(PackageError::NoManager), dpkg) => Err(dpkg),
        (rpm, _) => rpm,
    })
}

/// The name of the package that owns the file at `path`, if one does.
pub fn owner(path: &Path) -> Option<String> {
    Dpkg::at(Path::new("/var/lib/dpkg")).owner(path).ok().map(|owned| owned.package)
}

/// Whether root alone can have put a file there: it and every folder above are root's, and nobody else may
/// write to them.
fn roots_alone(path: &Path) -> Result<(), PackageError> {
    for part in path.ancestors() {
        let metadata = fs::symlink_metadata(part)?;
        if !is_roots_alone(&metadata) || metadata.file_type().is_symlink() {
            return Err(PackageError::Writable(part.to_path_buf()));
        }
    }
    Ok(())
}

/// dpkg's database.
struct Dpkg {
    folder: PathBuf,
}

/// A file in dpkg's database.
struct Owned {
    /// The package, with its architecture where the database names it.
    package: String,
    md5: String,
}

impl Dpkg {
    fn at(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    fn vouch(&self, path: &Path) -> Result<PackageProof, PackageError> {
        let Owned { package, md5 } = self.owner(path)?;
        let version = self.version(&package)?.ok_or_else(|| PackageError::Unowned(path.to_path_buf()))?;
        if hash(path)? != md5 {
            return Err(PackageError::Differs { package, version });
        }
        Ok(PackageProof { package, version, how: "dpkg, MD5" })
    }

    /// The package whose list of digests names `path`. One whose file was diverted is not found: what lies
    /// there is not its own.
    fn owner(&self, path: &Path) -> Result<Owned, PackageError> {
        let unowned = || PackageError::Unowned(path.to_path_buf());
        let lists = match fs::read_dir(self.folder.join("info")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PackageError::NoManager),
            lists => lists?,
        };
        let names = names(path);
        let diversions = fs::read(self.folder.join("diversions")).unwrap_or_default();
        if diversions.split(|byte| *byte == b'\n').any(|line| line == path.as_os_str().as_encoded_bytes()) {
            return Err(unowned());
        }
        for list in lists {
            let list = list?.path();
            let Some(package) = list.to_str().and_then(|list| list.strip_suffix(".md5sums")) else {
                continue;
            };
            let package = package.rsplit('/').next().unwrap_or(package);
            for line in BufReader::new(File::open(&list)?).split(b'\n') {
                let line = line?;
                let Some((md5, name)) = line.split_at_checked(32) else { continue };
                let name = name.strip_prefix(b"  ").unwrap_or_default();
                if names.iter().any(|known| known == name) {
                    let md5 = String::from_utf8_lossy(md5).into_owned();
                    return Ok(Owned { package: package.to_owned(), md5 });
                }
            }
        }
        Err(unowned())
    }

    /// The version of `package` (`name` or `name:architecture`), if it is installed.
    fn version(&self, package: &str) -> io::Result<Option<String>> {
        let (name, architecture) =
            package.split_once(':').map_or((package, None), |(name, rest)| (name, Some(rest)));
        let status = fs::read_to_string(self.folder.join("status"))?;
        let found = status.split("\n\n").find_map(|stanza| {
            let field = |key: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))
            };
            let is_it = field("Package") == Some(name)
                && architecture.is_none_or(|architecture| field("Architecture") == Some(architecture))
                && field("Status").is_some_and(|status| status.ends_with(" ok installed"));
            field("Version").filter(|_| is_it).map(str::to_owned)
        });
        Ok(found)
    }
}

/// The names under which dpkg may list `path`: without the first slash, and as before `/bin` was merged into
/// `/usr/bin`.
fn names(path: &Path) -> Vec<Vec<u8>> {
    let Ok(name) = path.strip_prefix("/") else { return Vec::new() };
    let before = name.strip_prefix("usr").ok().filter(|rest| {
        let first = rest.iter().next();
        first.is_some_and(|first| MERGED.iter().any(|merged| first == *merged))
    });
    [Some(name), before]
        .into_iter()
        .flatten()
        .map(|name| name.as_os_str().as_encoded_bytes().to_vec())
        .collect()
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Md5::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Asks rpm about the file at `path`.
fn rpm(path: &Path) -> Result<PackageProof, PackageError> {
    let program = Path::new("/usr/bin/rpm");
    if !program.exists() {
        return Err(PackageError::NoManager);
    }
    let asked = Command::new(program)
        .env_clear()
        .env("HOME", "/nonexistent")
        .args([
            "-q",
            "--qf",
            "%{NAME} %{VERSION}-%{RELEASE} %{FILEDIGESTALGO}\\n[%{FILEDIGESTS} %{FILENAMES}\\n]",
            "-f",
        ])
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    if !asked.status.success() {
        return Err(PackageError::Unowned(path.to_path_buf()));
    }
    let output = String::from_utf8_lossy(&asked.stdout).into_owned();
    parse_output(&output, path, || Ok(sha256(File::open(path)?)?))
}

/// Parses rpm's answer: a line with name, version and kind of digest, then one line of digest and path per
/// file.
fn parse_output(
    output: &str,
    path: &Path,
    sha256: impl FnOnce() -> Result<String, PackageError>,
) -> Result<PackageProof, PackageError> {
    let unowned = || PackageError::Unowned(path.to_path_buf());
    let mut lines = output.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [package, version, kind] = head.as_slice() else { return Err(unowned()) };
    let (package, version) = ((*package).to_owned(), (*version).to_owned());
    let digest = lines.find_map(|line| {
        let (digest, name) = line.split_once(' ')?;
        names(path)
            .iter()
            .any(|known| name.strip_prefix('/').map(str::as_bytes) == Some(known))
            .then_some(digest)
    });
    let digest = digest.ok_or_else(unowned)?;
    if *kind != SHA256 || sha256()? != digest {
        return Err(PackageError::Differs { package, version });
    }
    Ok(PackageProof { package, version, how: "rpm, SHA-256" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with one package that brought `/usr/bin/tool`, under its old name.
    fn database(folder: &Path, digest: &str) -> Dpkg {
        fs::create_dir_all(folder.join("info")).unwrap();
        fs::write(folder.join("info/other.md5sums"), "short\n").unwrap();
        fs::write(folder.join("info/tool:amd64.md5sums"), format!("{digest}  bin/tool\n")).unwrap();
        let stanza = |name, state| {
            format!("Package: {name}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: 1.2-3\n")
        };
        let status = format!("{}\n{}", stanza("other", "installed"), stanza("tool", "installed"));
        fs::write(folder.join("status"), status).unwrap();
        Dpkg::at(folder)
    }

    #[test]
    fn dpkg_finds_owner_by_merged_and_original_path() {
        let folder = tempfile::tempdir().unwrap();
        let dpkg = database(folder.path(), &"ab".repeat(16));
        for path in ["/usr/bin/tool", "/bin/tool"] {
            let owned = dpkg.owner(Path::new(path)).unwrap();
            assert_eq!((&*owned.package, &*owned.md5), ("tool:amd64", &*"ab".repeat(16)));
            assert_eq!(dpkg.version(&owned.package).unwrap().as_deref(), Some("1.2-3"));
        }
        for path in ["/opt/bin/tool", "/usr/share/bin/tool", "/usr/bin/tool2"] {
            assert!(matches!(dpkg.owner(Path::new(path)), Err(PackageError::Unowned(_))), "{path}");
        }
        fs::write(folder.path().join("diversions"), "/usr/bin/tool\n/usr/bin/tool.real\nother\n").unwrap();
        assert!(matches!(dpkg.owner(Path::new("/usr/bin/tool")), Err(PackageError::Unowned(_))));
        let nowhere = Dpkg::at(Path::new("/no-such"));
        assert!(matches!(nowhere.owner(Path::new("/usr/bin/tool")), Err(PackageError::NoManager)));
    }

    #[test]
    fn system_database_vouches_for_packaged_files_only() {
        if !Path::new("/var/lib/dpkg/status").exists() {
            return;
        }
        let path = Path::new("/usr/bin/sort").canonicalize().unwrap();
        let voucher = vouch(&path).unwrap();
        assert_eq!((&*voucher.package, voucher.how), ("coreutils", "dpkg, MD5"));
        assert_eq!(owner(&path).as_deref(), Some("coreutils"));
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("sort");
        fs::copy(&path, &copy).unwrap();
        assert!(matches!(vouch(&copy), Err(PackageError::Writable(_))));
    }

    #[test]
    fn changed_file_is_not_vouched_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = Path::new("/usr/bin/env").canonicalize().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let dpkg = database(folder.path(), "");
        let list = folder.path().join("info/tool:amd64.md5sums");
        fs::write(&list, format!("{}  usr/bin/{name}\n", hash(&path).unwrap())).unwrap();
        assert_eq!(dpkg.vouch(&path).unwrap().version, "1.2-3");
        fs::write(&list, format!("{}  usr/bin/{name}\n", "0".repeat(32))).unwrap();
        assert!(matches!(dpkg.vouch(&path), Err(PackageError::Differs { .. })));
    }

    #[test]
    fn rpm_answer_counts_for_the_file_with_a_strong_digest_only() {
        let path = Path::new("/usr/bin/tool");
        let answer = |kind: &str| format!("tool 1.2-3 {kind}\nffff /usr/bin/other\nabcd /bin/tool\n");
        let parse_output = |output: &str, now: &str| parse_output(output, path, || Ok(now.to_owned()));
        let voucher = parse_output(&answer("8"), "abcd").unwrap();
        assert_eq!((&*voucher.package, &*voucher.version, voucher.how), ("tool", "1.2-3", "rpm, SHA-256"));
        assert!(matches!(parse_output(&answer("8"), "ffff"), Err(PackageError::Differs { .. })));
        assert!(matches!(parse_output(&answer("1"), "abcd"), Err(PackageError::Differs { .. })));
        assert!(matches!(
            parse_output("tool 1.2-3 8\nffff /usr/bin/other\n", "ffff"),
            Err(PackageError::Unowned(_))
        ));
        assert!(matches!(parse_output("", "ffff"), Err(PackageError::Unowned(_))));
    }
}
