//! `agentsecrets daemon install`: the user, the folders, the units and root's word that this machine is
//! strict. `daemon uninstall` takes them away again; what is stored goes only when that is asked for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anstream::eprintln;
use nix::unistd::User;

use super::{Asked, Exit, Failure};
use crate::privsep::HOMES;
use crate::privsep::system_config::{FILE, Means, System, USER};
use crate::sys::files;

/// Where units of the machine's own are.
const UNITS: &str = "/etc/systemd/system";
/// Where packages put the program, which the units name.
const USUAL: &str = "/usr/bin/agentsecrets";

/// The units.
const FILES: [(&str, &str); 4] = [
    ("agentsecrets.socket", include_str!("../../../../deploy/systemd/agentsecrets.socket")),
    ("agentsecrets.service", include_str!("../../../../deploy/systemd/agentsecrets.service")),
    ("agentsecrets-starter.socket", include_str!("../../../../deploy/systemd/agentsecrets-starter.socket")),
    ("agentsecrets-starter.service", include_str!("../../../../deploy/systemd/agentsecrets-starter.service")),
];
/// Where polkit looks for what it may be asked.
const ACTIONS: &str = "/usr/share/polkit-1/actions";
const ACTION_FILE: &str = "dev.agentsecrets.policy";
const ACTION: &str = include_str!("../../../../deploy/polkit/dev.agentsecrets.policy");
/// Root's word.
const STRICT: &str = "# Root's word: what is stored belongs to the daemon's own user.\nstrict: true\n";
const SOCKETS: [&str; 2] = ["agentsecrets.socket", "agentsecrets-starter.socket"];

/// Makes the machine strict.
pub(super) fn install(presence: Option<Asked>) -> Result<(), Failure> {
    must_be_root("install")?;
    let program = program()?;
    if presence == Some(Asked::Polkit) && !Path::new(ACTIONS).is_dir() {
        let what = format!("there is no polkit here: {ACTIONS} does not exist");
        return Err(
            Failure::new(Exit::NotFound, what).hint("apt-get install polkitd, or leave out --presence")
        );
    }
    if User::from_name(USER).ok().flatten().is_none() {
        let arguments = [
            "--system",
            "--user-group",
            "--home-dir",
            HOMES,
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
        ];
        run("useradd", &[&arguments[..], &[USER]].concat())?;
        eprintln!("made the user {USER}, who owns what is stored");
    }
    for (name, text) in FILES {
        let text = text.replace(USUAL, &program.to_string_lossy());
        write(&Path::new(UNITS).join(name), &text)?;
    }
    configure(presence)?;
    if is_systemd_there() {
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &[&["enable", "--now"], &SOCKETS[..]].concat())?;
    } else {
        eprintln!("there is no systemd here: start `agentsecrets daemon` as root");
    }
    let proof = match System::find()?.map(|system| system.presence) {
        Some(Means::Polkit) => "polkit asks people to prove presence.",
        _ => "Each person needs a passphrase to prove presence: sudo agentsecrets presence set",
    };
    eprintln!(
        "this machine is strict. {proof}\n\
         What was stored before lies where it was, in reach of any program of its owner: store it anew, and \
         remove ~/.local/share/agentsecrets"
    );
    Ok(())
}

/// Writes root's word, where there is none, or it is to say something else about presence.
fn configure(presence: Option<Asked>) -> Result<(), Failure> {
    let path = Path::new(FILE);
    let known = System::find()?;
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => STRICT.to_owned(),
        read => {
            read.map_err(|error| Failure::new(Exit::Failure, format!("{FILE} cannot be read: {error}")))?
        }
    };
    if let Some(presence) = presence {
        let others = text.lines().filter(|line| !line.starts_with("presence:"));
        text = others.map(|line| format!("{line}\n")).collect();
        text.push_str(match presence {
            Asked::Passphrase => "presence: passphrase\n",
            Asked::Polkit => "presence: polkit\n",
        });
    }
    if presence == Some(Asked::Polkit) {
        let user = known.and_then(|system| User::from_uid(system.uid).ok().flatten());
        let owner = user.map_or(USER.to_owned(), |user| user.name);
        let action = ACTION.replace(&format!("unix-user:{USER}"), &format!("unix-user:{owner}"));
        write(&Path::new(ACTIONS).join(ACTION_FILE), &action)?;
    }
    if presence.is_some() || !path.exists() { write(path, &text) } else { Ok(()) }
}

/// Makes the machine as it was, but for what is stored, which goes with `purge`.
pub(super) fn uninstall(purge: bool) -> Result<(), Failure> {
    must_be_root("uninstall")?;
    if is_systemd_there() {
        // They may be gone already.
        let names = FILES.map(|(name, _)| name);
        let _ = run("systemctl", &[&["disable", "--now"], &names[..]].concat());
    }
    let files = FILES.iter().map(|(name, _)| Path::new(UNITS).join(name));
    for path in files.chain([PathBuf::from(FILE), Path::new(ACTIONS).join(ACTION_FILE)]) {
        gone(&path, fs::remove_file(&path))?;
    }
    if is_systemd_there() {
        run("systemctl", &["daemon-reload"])?;
    }
    if purge {
        gone(Path::new(HOMES), fs::remove_dir_all(HOMES))?;
        if User::from_name(USER).ok().flatten().is_some()
            && let Err(failure) = run("userdel", &[USER])
        {
            eprintln!("the user {USER} is still there: {}", failure.what());
        }
        eprintln!("this machine is not strict any more, and nothing is stored");
    } else {
        eprintln!("this machine is not strict any more; what was stored is in {HOMES} (--purge removes it)");
    }
    Ok(())
}

/// Our own program, where nobody but root can change it: the daemon will be it.
fn program() -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, error);
    let program = std::env::current_exe().and_then(fs::canonicalize).map_err(failed)?;
    for part in program.ancestors() {
        let found = fs::metadata(part).map_err(failed)?;
        // In a folder that keeps everybody to their own files, root's stay root's.
        let others = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
        if found.uid() != 0 || others {
            let what =
                format!("{} could be changed by others than root, and the daemon with it", part.display());
            return Err(Failure::new(Exit::Failure, what).hint(format!(
                "sudo install -o root -m 755 {} {USUAL} && sudo {USUAL} daemon install",
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
    Err(Failure::new(Exit::Failure, "this changes the machine, which takes root")
        .hint(format!("sudo agentsecrets daemon {verb}")))
}

/// Writes a file that everybody may read and root alone may write.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        files::replace(path, text.as_bytes())?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    written().map_err(|error| {
        Failure::new(Exit::Failure, format!("{} cannot be written: {error}", path.display()))
    })?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
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
