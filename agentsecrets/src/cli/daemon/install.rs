//! `agentsecrets daemon install`: creates the user, the folders, the systemd units and the system
//! configuration of a strict machine. `daemon uninstall` removes them; it keeps the stored secrets unless
//! `--purge` is given.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anstream::eprintln;
use nix::unistd::User;

use crate::operator::system_config::{ConfirmationMethod, DEFAULT_USER, SYSTEM_CONFIG, SystemConfig};
use crate::operator::user_home::USER_HOMES;
use crate::sys::files;
use crate::types::failure::{ErrorContext, Exit, Failure};

const UNIT_FOLDER: &str = "/etc/systemd/system";
/// The program path that the units name.
const PACKAGED_PROGRAM: &str = "/usr/bin/agentsecrets";

/// The systemd units, with their text.
const UNIT_FILES: [(&str, &str); 4] = [
    ("agentsecrets.socket", include_str!("../../../../deploy/systemd/agentsecrets.socket")),
    ("agentsecrets.service", include_str!("../../../../deploy/systemd/agentsecrets.service")),
    ("agentsecrets-monitor.socket", include_str!("../../../../deploy/systemd/agentsecrets-monitor.socket")),
    ("agentsecrets-monitor.service", include_str!("../../../../deploy/systemd/agentsecrets-monitor.service")),
];
/// The folder of polkit's action definitions.
const POLKIT_ACTION_FOLDER: &str = "/usr/share/polkit-1/actions";
const POLKIT_ACTION_FILE: &str = "dev.agentsecrets.policy";
const POLKIT_ACTION: &str = include_str!("../../../../deploy/polkit/dev.agentsecrets.policy");
const STRICT_CONFIG: &str = "# Stored secrets belong to the daemon's own user.\nstrict: true\n";
const SOCKETS: [&str; 2] = ["agentsecrets.socket", "agentsecrets-monitor.socket"];

/// The method by which people confirm their presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PresenceMethod {
    /// A passphrase, typed at the terminal.
    Passphrase,
    /// polkit.
    Polkit,
}

/// Makes the machine strict.
pub(super) fn install(presence: Option<PresenceMethod>) -> Result<(), Failure> {
    must_be_root("install")?;
    let program = trusted_own_program()?;
    if presence == Some(PresenceMethod::Polkit) && !Path::new(POLKIT_ACTION_FOLDER).is_dir() {
        let what = format!("there is no polkit here: {POLKIT_ACTION_FOLDER} does not exist");
        return Err(
            Failure::new(Exit::NotFound, what).hint("apt-get install polkitd, or leave out --presence")
        );
    }
    if User::from_name(DEFAULT_USER).ok().flatten().is_none() {
        let arguments = [
            "--system",
            "--user-group",
            "--home-dir",
            USER_HOMES,
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
        ];
        run("useradd", &[&arguments[..], &[DEFAULT_USER]].concat())?;
        eprintln!("created the user {DEFAULT_USER}, who owns the stored secrets");
    }
    for (name, text) in UNIT_FILES {
        let text = text.replace(PACKAGED_PROGRAM, &program.to_string_lossy());
        write(&Path::new(UNIT_FOLDER).join(name), &text)?;
    }
    configure(presence)?;
    if is_systemd_there() {
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &[&["enable", "--now"], &SOCKETS[..]].concat())?;
    } else {
        eprintln!("there is no systemd here: start `agentsecrets daemon` as root");
    }
    let proof = match SystemConfig::load()?.map(|system| system.confirmation) {
        Some(ConfirmationMethod::Polkit) => "polkit confirms the presence of people.",
        _ => "Each person needs a passphrase to confirm presence: sudo agentsecrets presence set",
    };
    eprintln!(
        "this machine is strict. {proof}\n\
         Secrets that were stored before are still readable by any program of their owner: store them again, and \
         remove ~/.local/share/agentsecrets"
    );
    Ok(())
}

/// Writes the system configuration if there is none or if `presence` is given.
fn configure(presence: Option<PresenceMethod>) -> Result<(), Failure> {
    let path = Path::new(SYSTEM_CONFIG);
    let known = SystemConfig::load()?;
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => STRICT_CONFIG.to_owned(),
        read => read.context(format!("{SYSTEM_CONFIG} cannot be read"))?,
    };
    if let Some(presence) = presence {
        let others = text.lines().filter(|line| !line.starts_with("presence:"));
        text = others.map(|line| format!("{line}\n")).collect();
        text.push_str(match presence {
            PresenceMethod::Passphrase => "presence: passphrase\n",
            PresenceMethod::Polkit => "presence: polkit\n",
        });
    }
    if presence == Some(PresenceMethod::Polkit) {
        let user = known.and_then(|system| User::from_uid(system.uid).ok().flatten());
        let owner = user.map_or(DEFAULT_USER.to_owned(), |user| user.name);
        let action =
            POLKIT_ACTION.replace(&format!("unix-user:{DEFAULT_USER}"), &format!("unix-user:{owner}"));
        write(&Path::new(POLKIT_ACTION_FOLDER).join(POLKIT_ACTION_FILE), &action)?;
    }
    if presence.is_some() || !path.exists() { write(path, &text) } else { Ok(()) }
}

/// Undoes the installation. The stored secrets are removed only with `purge`.
pub(super) fn uninstall(purge: bool) -> Result<(), Failure> {
    must_be_root("uninstall")?;
    if is_systemd_there() {
        // They may be removed already.
        let names = UNIT_FILES.map(|(name, _)| name);
        let _ = run("systemctl", &[&["disable", "--now"], &names[..]].concat());
    }
    let files = UNIT_FILES.iter().map(|(name, _)| Path::new(UNIT_FOLDER).join(name));
    for path in
        files.chain([PathBuf::from(SYSTEM_CONFIG), Path::new(POLKIT_ACTION_FOLDER).join(POLKIT_ACTION_FILE)])
    {
        ignore_missing(&path, fs::remove_file(&path))?;
    }
    if is_systemd_there() {
        run("systemctl", &["daemon-reload"])?;
    }
    if purge {
        ignore_missing(Path::new(USER_HOMES), fs::remove_dir_all(USER_HOMES))?;
        if User::from_name(DEFAULT_USER).ok().flatten().is_some()
            && let Err(failure) = run("userdel", &[DEFAULT_USER])
        {
            eprintln!("the user {DEFAULT_USER} is still there: {}", failure.message());
        }
        eprintln!("this machine is no longer strict, and the stored secrets are removed");
    } else {
        eprintln!(
            "this machine is no longer strict; the stored secrets are in {USER_HOMES} (--purge removes it)"
        );
    }
    Ok(())
}

/// The path of this program. It fails if another user than root could change the file, since the daemon runs
/// it.
fn trusted_own_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().and_then(fs::canonicalize).map_err(Failure::from_error)?;
    for part in program.ancestors() {
        let found = fs::metadata(part).map_err(Failure::from_error)?;
        // In a sticky folder nobody can replace root's files.
        let others = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
        if found.uid() != 0 || others {
            let what =
                format!("{} can be changed by other users than root, and the daemon with it", part.display());
            return Err(Failure::new(Exit::Failure, what).hint(format!(
                "sudo install -o root -m 755 {} {PACKAGED_PROGRAM} && sudo {PACKAGED_PROGRAM} daemon install",
                program.display()
            )));
        }
    }
    Ok(program)
}

fn must_be_root(verb: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failure, "this changes the machine and needs root")
        .hint(format!("sudo agentsecrets daemon {verb}")))
}

/// Writes a file that everybody may read and only root may write.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        files::replace(path, text.as_bytes())?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    written().context(format!("{} cannot be written", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn ignore_missing(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Failure, format!("{} cannot be removed: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn is_systemd_there() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let line = format!("{program} {}", arguments.join(" "));
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Exit::Failure, format!("`{line}` failed: {status}"))),
        Err(error) => Err(Failure::new(Exit::Failure, format!("`{line}` cannot be run: {error}"))),
    }
}
