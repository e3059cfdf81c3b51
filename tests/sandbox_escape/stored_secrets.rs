//! Our own data: the vault and its key, the keychain, the CA key, our memory. The agent runs as the owning
//! user, so file modes do not stop it; each attack succeeds for a program of that user outside the sandbox,
//! or once its measure is undone. The admin socket is tested in `privsep`, approvals in
//! `approvals::self_approval`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::hardening::privileges::chown_all;
use crate::operator_commands::AgentExecutable;
use crate::support::keychain::{Keychain, as_user};
use crate::support::process::{command, run, run_with_input};
use crate::support::python::{PYTHON, program};
use crate::support::value_search::in_files;

/// `daemon`: an account that every system has and that a bus accepts.
const OWNER_UID: u32 = 1;

/// A fixture whose home belongs to that user.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    chown_home(&fixture);
    fixture
}

fn chown_home(fixture: &Fixture) {
    chown_all(&fixture.home.path(), OWNER_UID);
    std::os::unix::fs::chown(fixture.home.key(), Some(OWNER_UID), Some(OWNER_UID)).unwrap();
}

/// An agent that runs as the owner.
fn agent_command(fixture: &Fixture, words: &[&str]) -> Command {
    let mut started = fixture.home.agentsecrets(["run", "--user", "daemon", "--"]);
    started.args(words);
    started
}

/// A program of the owner's outside the sandbox.
fn outside_command(words: &[&str]) -> Command {
    let mut started = as_user(OWNER_UID, words[0]);
    started.args(&words[1..]).current_dir("/tmp");
    started
}

/// Tries to read each named file in several ways, and to use a copy of all of them.
const READ_FILES: &str = r"
import os, shutil, stat, subprocess, sys, tempfile
home, key, program = sys.argv[1:4]
own = tempfile.mkdtemp()
def way(name, attempt):
    try:
        if attempt(): print(name)
    except (OSError, shutil.Error): pass
def read(path):
    with open(path, 'rb') as file: return file.read()
def by(make, path, name):
    make(path, own + '/' + name)
    return read(own + '/' + name)
for name, path in (('vault', home + '/vault'), ('key', key), ('policy', home + '/policy.yaml')):
    way(name, lambda: read(path))
    way(name + ' by root of another', lambda: read('/proc/1/root' + path))
    way(name + ' by a link', lambda: by(os.symlink, path, name + '.soft'))
    way(name + ' by a hard link', lambda: by(os.link, path, name + '.hard'))
    way(name + ' moved away', lambda: by(os.rename, path, name + '.moved') and not os.rename(own + '/' + name + '.moved', path))
    way(name + ' written', lambda: stat.S_ISREG(os.fstat(os.open(path, os.O_WRONLY)).st_mode))
def all():
    shutil.copytree(home, own + '/home')
    shutil.copy(key, own + '/key')
    environment = dict(os.environ, AGENTSECRETS_HOME=own + '/home', AGENTSECRETS_VAULT_KEY_FILE=own + '/key')
    words = [program, 'env', '--only', 'API_KEY', '--', 'sh', '-c', 'printf %s $API_KEY > ' + own + '/value']
    subprocess.run(words, env=environment, stdout=-3, stderr=-3)
    return print(read(own + '/value').decode())
way('all', all)
shutil.rmtree(own)
";

#[test]
fn reading_vault_and_key_is_blocked() {
    let (fixture, copy) = (fixture(), AgentExecutable::new());
    let (home, key) = (fixture.home.path(), fixture.home.key());
    let words = [PYTHON, "-c", READ_FILES, home.to_str().unwrap(), key.to_str().unwrap(), copy.path()];
    let seen = run(&mut agent_command(&fixture, &words));
    assert_eq!((&*seen.stdout, seen.code), ("", Some(0)), "{seen:?}");
    let seen = run(&mut outside_command(&words)).ok();
    assert!(seen.lines().any(|line| line == SECRET), "the attack does not bite: {seen}");
    for name in ["vault", "key"] {
        for way in ["", " by a link", " by a hard link", " written"] {
            assert!(
                seen.lines().any(|line| line == format!("{name}{way}")),
                "{name}{way} does not bite: {seen}"
            );
        }
    }
}

#[test]
fn keychain_access_is_blocked() {
    let (fixture, keychain) = (Fixture::new(), Keychain::unlocked_for(OWNER_UID));
    fs::remove_file(fixture.home.path().join("vault")).unwrap();
    fixture.home.write_config("stores: [keychain]\n");
    chown_home(&fixture);
    let copy = AgentExecutable::new();
    let mut set = keychain.with_session(as_user(OWNER_UID, copy.path()));
    set.args(["secrets", "set", "API_KEY"]).env("AGENTSECRETS_HOME", fixture.home.path()).current_dir("/tmp");
    run_with_input(&mut set, SECRET.as_bytes()).ok();
    let attack = program("stores/programs/keychain.py");
    let words = [PYTHON, "-c", &attack, "default:development:API_KEY"];
    let address = format!("DBUS_SESSION_BUS_ADDRESS=unix:path={}/bus", keychain.folder().display());
    let words = [&["env", &address], &words[..]].concat();
    // The keychain is open: the secret is used while the attack runs.
    let ask = format!(
        "curl -sS -o /dev/null -w '%{{http_code}} ' -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; exec \"$@\"",
        fixture.url("/")
    );
    let seen = run(&mut keychain
        .with_session(agent_command(&fixture, &[&["sh", "-c", &ask, "sh"], &words[..]].concat())));
    assert!(seen.stdout == "200 " && seen.code != Some(0), "{seen:?}");
    // Its encrypted files are not visible either.
    let file = keychain.file();
    assert!(file.exists());
    let seen = run(&mut keychain.with_session(agent_command(&fixture, &["cat", file.to_str().unwrap()])));
    assert_eq!(seen.stdout, "");
    let seen = run(&mut outside_command(&words));
    assert_eq!(seen.stdout, SECRET, "the attack does not bite: {seen:?}");
}

/// Searches the memory of a process for each needle, in several ways. A way that the kernel denies is not
/// listed.
const READ_MEMORY: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
print('ready', flush=True)
pid, *needles = sys.stdin.readline().split()
pid, needles = int(pid), {bytes.fromhex(needle) for needle in needles}
def ranges():
    with open('/proc/%d/maps' % pid) as maps:
        for line in maps:
            place, rights, *rest = line.split()
            if rights[0] == 'r' and '[v' not in line:
                start, end = (int(at, 16) for at in place.split('-'))
                yield start, end - start
class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def vm(start, length):
    buffer = ctypes.create_string_buffer(length)
    here, there = Vector(ctypes.addressof(buffer), length), Vector(start, length)
    got = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return buffer.raw[:max(got, 0)]
def mem(start, length):
    try: return os.pread(file, length, start)
    except OSError: return b''
def peek(start, length):
    ctypes.set_errno(0)
    words = []
    for at in range(start, start + length, 8):
        words.append(libc.ptrace(2, pid, ctypes.c_void_p(at), None))
        if ctypes.get_errno(): break
    return struct.pack('%dq' % len(words), *words)
def search(read, most=None):
    found = set()
    for start, length in ranges():
        for at in range(start, start + length, 1 << 20):
            block = read(at, min((1 << 20) + 512, start + length - at))
            found |= {needle for needle in needles - found if needle in block}
    return found
def way(name, attempt):
    try: found = attempt()
    except OSError: return
    if found is not None: print(name, *sorted(needle.hex() for needle in found), flush=True)
file = None
def by_mem():
    global file
    file = os.open('/proc/%d/mem' % pid, os.O_RDONLY)
    return search(mem)
way('mem', by_mem)
way('vm', lambda: search(vm))
for way_to in ('environ', 'fd', 'root', 'cwd'):
    way(way_to, lambda: (os.listdir if way_to != 'environ' else lambda path: open(path, 'rb').read())('/proc/%d/%s' % (pid, way_to)) and set())
def call(number, *words):
    result = libc.syscall(number, *words)
    if result < 0: raise OSError(ctypes.get_errno(), '')
    return result
way('getfd', lambda: call(438, os.pidfd_open(pid), 1, 0) and set())
def trace():
    if libc.ptrace(16, pid, None, None): raise OSError
    os.waitpid(pid, 0x40000000)
    # One word of each range is proof enough: it is slow.
    words = [peek(start, 8) for start, length in ranges()]
    libc.ptrace(17, pid, None, None)
    return set() if any(words) else None
way('ptrace', trace)
print('end', flush=True)
";

/// The first bytes of a private key of the CA's kind.
const PRIVATE_KEY_PREFIX: &[u8] = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d";

/// The result of `READ_MEMORY`, run by `attack` on the process `pid`.
fn found_in(pid: u32, mut attack: Command) -> String {
    let mut attack = attack.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(attack.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let arguments = format!("{pid} {} {}\n", hex(SECRET.as_bytes()), hex(PRIVATE_KEY_PREFIX));
    attack.stdin.take().unwrap().write_all(arguments.as_bytes()).unwrap();
    let mut all = String::new();
    output.read_to_string(&mut all).unwrap();
    attack.wait().unwrap();
    let all = all.replace(&hex(SECRET.as_bytes()), "SECRET").replace(&hex(PRIVATE_KEY_PREFIX), "KEY");
    all.strip_suffix("end\n").unwrap_or_else(|| panic!("{all}")).to_owned()
}

/// Secrets and the CA key in the interceptor's memory. Two walls protect them from an agent: its pid
/// namespace, and the non-dumpable flag; other programs of the same user meet only the second.
#[test]
fn reading_interceptor_memory_is_blocked() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap();
    let (source, library) = (folder.path().join("ours.c"), folder.path().join("ours.so"));
    fs::write(&source, include_str!("ours.c")).unwrap();
    run(command("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl")).ok();
    for is_undone in [false, true] {
        let mut fixture = fixture();
        if is_undone {
            fixture.home.set_variable("LD_PRELOAD", library.to_str().unwrap());
        }
        let ask = format!(
            "curl -sS -o /dev/null -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; echo ready; read line",
            fixture.url("/")
        );
        let serving = WaitingAgent::start_command(agent_command(&fixture, &["sh", "-c", &ask]));
        fixture.api.only_request();
        let interceptor = serving.interceptor();
        let of = crate::hardening::proc_status(interceptor, "Uid");
        assert!(of.starts_with(&format!("{OWNER_UID}\t")), "{of}");
        let inside = found_in(interceptor, agent_command(&fixture, &[PYTHON, "-c", READ_MEMORY]));
        assert_eq!(inside, "", "an agent, undone: {is_undone}");
        let seen = found_in(interceptor, outside_command(&[PYTHON, "-c", READ_MEMORY]));
        match is_undone {
            false => assert_eq!(seen, "", "another program of the same user"),
            true => {
                for way in ["mem", "vm"] {
                    let line = seen.lines().find(|line| line.starts_with(way)).unwrap_or_default();
                    let finds = line.contains("SECRET") && line.contains("KEY");
                    assert!(finds, "{way} does not bite: {seen}");
                }
                for way in ["environ", "fd", "getfd", "ptrace"] {
                    assert!(seen.lines().any(|line| line == way), "{way} does not bite: {seen}");
                }
            }
        }
    }
}

/// The CA key is in none of our files; only its certificate is written.
#[test]
fn ca_key_is_in_no_file() {
    let fixture = fixture();
    let _serving = WaitingAgent::start(&fixture.home);
    let needles = [b"PRIVATE KEY".to_vec(), PRIVATE_KEY_PREFIX.to_vec()];
    let look = || {
        let places = [fixture.home.path(), "/run/agentsecrets".into()];
        places.iter().flat_map(|place| in_files(place, &needles)).collect::<Vec<_>>()
    };
    assert_eq!(look(), Vec::<std::path::PathBuf>::new());
    let planted = fixture.home.path().join("ca.key");
    fs::write(&planted, [b"0", PRIVATE_KEY_PREFIX].concat()).unwrap();
    assert_eq!(look(), [planted], "the search does not bite");
}
