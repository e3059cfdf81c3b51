//! The daemon's life: how it is started, and what a machine without it says.

use std::fs;

use super::*;
use crate::support::home::Home;
use crate::support::process::until;

#[test]
fn systemd_hands_it_the_door_open() {
    let script = "umask 0; exec systemd-socket-activate --fdname=door -l /run/agentsecrets/door.sock /opt/agentsecrets daemon";
    let machine = Machine::with(&["sh", "-c", script], &[]);
    // systemd itself gives it the mode that the unit says.
    finish(&mut machine.root(&["chmod", "666", "/run/agentsecrets/door.sock"])).ok();
    finish(&mut machine.alice(&["status"])).ok();
    machine.store(ALICE, "API_KEY", SECRET);
    let home = machine.inside(&format!("var/lib/agentsecrets/{ALICE}"));
    for entry in fs::read_dir(home).unwrap() {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0, "whatever the daemon's own mask was");
    }
}

#[test]
fn its_two_halves_can_be_units_of_their_own() {
    let script = "umask 0
        /opt/agentsecrets daemon --part starter & starter=$!
        while ! test -S /run/agentsecrets/starter.sock; do :; done
        systemd-socket-activate --fdname=door -l /run/agentsecrets/door.sock setpriv --reuid 70000 --regid 70000 \
            --clear-groups --inh-caps=-all --bounding-set=-all /opt/agentsecrets daemon --part porter & porter=$!
        trap 'kill $starter $porter' TERM
        wait $porter; wait";
    let machine = Machine::with(&["bash", "-c", script], &[]);
    finish(&mut machine.root(&["chmod", "666", "/run/agentsecrets/door.sock"])).ok();
    finish(&mut machine.alice(&["status"])).ok();
    machine.store(ALICE, "API_KEY", SECRET);
    assert_eq!(finish(&mut machine.alice(&["run", "--", "id", "-u"])).ok().trim(), ALICE.to_string());
}

#[test]
fn without_the_daemon_a_strict_machine_shows_nothing_and_says_what_to_do() {
    let mut machine = Machine::new();
    // Its namespace lives on with this one.
    let mut holder = machine.root(&["sleep", "60"]);
    let mut holder = holder.spawn().unwrap();
    let namespace = format!("/proc/{}/ns/mnt", holder.id());
    let own = fs::read_link(format!("/proc/{}/ns/mnt", machine.daemon.id())).unwrap();
    until("it is inside", || fs::read_link(&namespace).unwrap() == own);
    let daemon = nix::unistd::Pid::from_raw(machine.daemon.id() as i32);
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM).unwrap();
    machine.daemon.wait().unwrap();
    let mut list = command("nsenter");
    list.args([
        &format!("--mount={namespace}"),
        "setpriv",
        "--reuid",
        "70001",
        "--regid",
        "70001",
        "--clear-groups",
    ]);
    let outcome = finish(list.args([PROGRAM, "secrets", "list"]).env("HOME", "/home/alice").current_dir("/"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(outcome.code == Some(6) && outcome.stderr.contains("systemctl start"), "{outcome:?}");
}

#[test]
fn what_makes_the_machine_strict_must_be_sound_or_nothing_is_done() {
    let machine = Machine::new();
    let config = machine.inside("etc/agentsecrets/config.yaml");
    for text in
        ["strict: tru\n", "strict: true\nuser: nobody-knows\n", "strict: true\nstrict: false\n", "x\n"]
    {
        fs::write(&config, text).unwrap();
        let outcome = finish(&mut machine.alice(&["secrets", "list"]));
        assert!(
            outcome.code == Some(1) && outcome.stderr.contains("/etc/agentsecrets/config.yaml"),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_strict_home_without_a_daemon_refuses_what_shows_values_or_gives_rights() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config.yaml"), "strict: true\n").unwrap();
    finish(command("chown").args(["-R", "70001:70001"]).arg(&home)).ok();
    finish(command("cp").arg(AGENTSECRETS).arg(folder.path().join("agentsecrets"))).ok();
    let run = |words: &[&str]| {
        let mut started = command("setpriv");
        started.args(["--reuid", "70001", "--regid", "70001", "--clear-groups"]);
        started.arg(folder.path().join("agentsecrets")).args(words);
        finish(started.env("AGENTSECRETS_HOME", &home).current_dir("/"))
    };
    for words in [
        &["secrets", "list"][..],
        &["env", "--", "env"],
        &["call", "--url", "https://x.test"],
        &["audit", "list"],
    ] {
        let outcome = run(words);
        let told = outcome.code == Some(4) && outcome.stderr.contains("sudo agentsecrets daemon install");
        assert!(told, "{words:?}: {outcome:?}");
    }
    run(&["status"]).ok();
    let none = run(&["presence", "set"]);
    assert_eq!(none.code, Some(4), "{none:?}");
}

#[test]
fn without_strict_status_says_unguarded_and_why() {
    let home = Home::new();
    let status = finish(&mut home.agentsecrets(["status", "--json"])).json();
    assert!(
        status["person_door"].as_str().unwrap().starts_with("unguarded: a program of the same user"),
        "{status}"
    );
    let doctor = finish(&mut home.agentsecrets(["doctor"])).stdout;
    assert!(doctor.contains("unguarded") && doctor.contains("agentsecrets daemon install"), "{doctor}");
}

#[test]
fn install_makes_a_machine_strict_and_uninstall_undoes_it() {
    let script = "rm -r /etc/agentsecrets; /opt/agentsecrets daemon install && exec /opt/agentsecrets daemon";
    let machine = Machine::with(&["sh", "-c", script], &[]);
    let passwd = fs::read_to_string(machine.inside("etc/passwd")).unwrap();
    assert!(passwd.lines().any(|line| line.starts_with("agentsecrets:")), "{passwd}");
    let unit = fs::read_to_string(machine.inside("etc/systemd/system/agentsecrets.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/agentsecrets daemon --part porter"), "{unit}");
    assert_refused(&finish(&mut machine.alice(&["secrets", "list"])));
    machine.store(ALICE, "API_KEY", SECRET);
    let mut uninstall = machine.alice(&["daemon", "uninstall"]);
    assert_eq!(finish(&mut uninstall).code, Some(1), "she is not root");
    finish(&mut machine.root(&[PROGRAM, "daemon", "uninstall"])).ok();
    assert!(!machine.inside("etc/agentsecrets/config.yaml").exists());
    assert!(!machine.inside("etc/systemd/system/agentsecrets.service").exists());
    let kept = machine.inside(&format!("var/lib/agentsecrets/{ALICE}/vault"));
    assert!(kept.exists(), "what is stored stays");
    finish(&mut machine.root(&[PROGRAM, "daemon", "uninstall", "--purge"])).ok();
    assert!(!machine.inside("var/lib/agentsecrets").exists());
}

#[test]
fn the_units_are_sound_and_the_half_that_listens_is_shut_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name();
        if [".service", ".socket"].iter().any(|end| name.to_str().unwrap().ends_with(end)) {
            // Only the program's place is another one here.
            let text =
                fs::read_to_string(entry.path()).unwrap().replace("/usr/bin/agentsecrets", "/bin/true");
            fs::write(place.path().join(name), text).unwrap();
        }
    }
    let unit = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let units = [
        "agentsecrets.service",
        "agentsecrets-starter.service",
        "agentsecrets.socket",
        "agentsecrets-starter.socket",
    ];
    let verified = finish(command("systemd-analyze").args(["verify", "--man=no"]).args(units.map(unit)));
    assert_eq!((verified.code, &*verified.stderr), (Some(0), ""), "{verified:?}");
    // In tenths: 20 would be 2.0.
    let security = ["security", "--offline=yes", "--threshold=19"];
    let listens = finish(command("systemd-analyze").args(security).arg(unit("agentsecrets.service")));
    assert_eq!(listens.code, Some(0), "{}", listens.stdout);
}
