//! The daemon: starting it, installing it, and a machine without it.

use std::fs;

use super::*;
use crate::support::home::Home;
use crate::support::process::wait_until;

#[test]
fn systemd_passes_the_socket() {
    let script = "umask 0; exec systemd-socket-activate --fdname=frontend -l /run/agentsecrets/frontend.sock /opt/agentsecrets daemon";
    let machine = Machine::start_with(&["sh", "-c", script], &[]);
    // systemd itself sets the mode from the unit.
    run(&mut machine.root_command(&["chmod", "666", "/run/agentsecrets/frontend.sock"])).ok();
    run(&mut machine.alice_command(&["status"])).ok();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    let home = machine.host_path(&format!("var/lib/agentsecrets/{ALICE}"));
    for entry in fs::read_dir(home).unwrap() {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0, "whatever the daemon's own mask was");
    }
}

#[test]
fn frontend_and_monitor_run_as_separate_units() {
    let script = "umask 0
        /opt/agentsecrets daemon --part monitor & monitor=$!
        while ! test -S /run/agentsecrets/monitor.sock; do :; done
        systemd-socket-activate --fdname=frontend -l /run/agentsecrets/frontend.sock setpriv --reuid 70000 --regid 70000 \
            --clear-groups --inh-caps=-all --bounding-set=-all /opt/agentsecrets daemon --part frontend & frontend=$!
        trap 'kill $monitor $frontend' TERM
        wait $frontend; wait";
    let machine = Machine::start_with(&["bash", "-c", script], &[]);
    run(&mut machine.root_command(&["chmod", "666", "/run/agentsecrets/frontend.sock"])).ok();
    run(&mut machine.alice_command(&["status"])).ok();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    assert_eq!(run(&mut machine.alice_command(&["run", "--", "id", "-u"])).ok().trim(), ALICE.to_string());
}

#[test]
fn strict_machine_without_daemon_refuses_with_advice() {
    let mut machine = Machine::new();
    // The machine's namespace lives on with this process.
    let mut holder = machine.root_command(&["sleep", "60"]);
    let mut holder = holder.spawn().unwrap();
    let namespace = format!("/proc/{}/ns/mnt", holder.id());
    let own = fs::read_link(format!("/proc/{}/ns/mnt", machine.daemon.id())).unwrap();
    wait_until("it is inside", || fs::read_link(&namespace).unwrap() == own);
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
    let outcome = run(list.args([PROGRAM, "secrets", "list"]).env("HOME", "/home/alice").current_dir("/"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(outcome.code == Some(6) && outcome.stderr.contains("systemctl start"), "{outcome:?}");
}

#[test]
fn unsound_strict_config_is_refused() {
    let machine = Machine::new();
    let config = machine.host_path("etc/agentsecrets/config.yaml");
    for text in
        ["strict: tru\n", "strict: true\nuser: nobody-knows\n", "strict: true\nstrict: false\n", "x\n"]
    {
        fs::write(&config, text).unwrap();
        let outcome = run(&mut machine.alice_command(&["secrets", "list"]));
        assert!(
            outcome.code == Some(1) && outcome.stderr.contains("/etc/agentsecrets/config.yaml"),
            "{outcome:?}"
        );
    }
}

#[test]
fn strict_home_without_daemon_refuses_sensitive_commands() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config.yaml"), "strict: true\n").unwrap();
    run(command("chown").args(["-R", "70001:70001"]).arg(&home)).ok();
    run(command("cp").arg(AGENTSECRETS).arg(folder.path().join("agentsecrets"))).ok();
    let run = |words: &[&str]| {
        let mut started = command("setpriv");
        started.args(["--reuid", "70001", "--regid", "70001", "--clear-groups"]);
        started.arg(folder.path().join("agentsecrets")).args(words);
        run(started.env("AGENTSECRETS_HOME", &home).current_dir("/"))
    };
    for words in [
        &["secrets", "list"][..],
        &["env", "--", "env"],
        &["call", "--url", "https://x.test"],
        &["audit", "list"],
    ] {
        let outcome = run(words);
        let is_advised =
            outcome.code == Some(4) && outcome.stderr.contains("sudo agentsecrets daemon install");
        assert!(is_advised, "{words:?}: {outcome:?}");
    }
    run(&["status"]).ok();
    let none = run(&["presence", "set"]);
    assert_eq!(none.code, Some(4), "{none:?}");
}

#[test]
fn status_without_strict_is_unguarded() {
    let home = Home::new();
    let status = run(&mut home.agentsecrets(["status", "--json"])).json();
    assert!(
        status["person_door"].as_str().unwrap().starts_with("unguarded: a program of the same user"),
        "{status}"
    );
    let doctor = run(&mut home.agentsecrets(["doctor"])).stdout;
    assert!(doctor.contains("unguarded") && doctor.contains("agentsecrets daemon install"), "{doctor}");
}

#[test]
fn daemon_install_and_uninstall_toggle_strict() {
    let script = "rm -r /etc/agentsecrets; /opt/agentsecrets daemon install && exec /opt/agentsecrets daemon";
    let machine = Machine::start_with(&["sh", "-c", script], &[]);
    let passwd = fs::read_to_string(machine.host_path("etc/passwd")).unwrap();
    assert!(passwd.lines().any(|line| line.starts_with("agentsecrets:")), "{passwd}");
    let unit = fs::read_to_string(machine.host_path("etc/systemd/system/agentsecrets.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/agentsecrets daemon --part frontend"), "{unit}");
    assert_refused(&run(&mut machine.alice_command(&["secrets", "list"])));
    machine.store_secret(ALICE, "API_KEY", SECRET);
    let mut uninstall = machine.alice_command(&["daemon", "uninstall"]);
    assert_eq!(run(&mut uninstall).code, Some(1), "she is not root");
    run(&mut machine.root_command(&[PROGRAM, "daemon", "uninstall"])).ok();
    assert!(!machine.host_path("etc/agentsecrets/config.yaml").exists());
    assert!(!machine.host_path("etc/systemd/system/agentsecrets.service").exists());
    let vault = machine.host_path(&format!("var/lib/agentsecrets/{ALICE}/vault"));
    assert!(vault.exists(), "what is stored stays");
    run(&mut machine.root_command(&[PROGRAM, "daemon", "uninstall", "--purge"])).ok();
    assert!(!machine.host_path("var/lib/agentsecrets").exists());
}

#[test]
fn systemd_units_are_valid_and_sandboxed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name();
        if [".service", ".socket"].iter().any(|end| name.to_str().unwrap().ends_with(end)) {
            // Only the program's path differs here.
            let text =
                fs::read_to_string(entry.path()).unwrap().replace("/usr/bin/agentsecrets", "/bin/true");
            fs::write(place.path().join(name), text).unwrap();
        }
    }
    let unit = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let units = [
        "agentsecrets.service",
        "agentsecrets-monitor.service",
        "agentsecrets.socket",
        "agentsecrets-monitor.socket",
    ];
    let verified = run(command("systemd-analyze").args(["verify", "--man=no"]).args(units.map(unit)));
    assert_eq!((verified.code, &*verified.stderr), (Some(0), ""), "{verified:?}");
    // In tenths: 20 would be 2.0.
    let security = ["security", "--offline=yes", "--threshold=19"];
    let listens = run(command("systemd-analyze").args(security).arg(unit("agentsecrets.service")));
    assert_eq!(listens.code, Some(0), "{}", listens.stdout);
}
