//! What is ours: the vault and its key, the keychain, the authority's key, our memory. The agent is the very user
//! whose they are, so that no file's mode stands in its way; each attack succeeds for another program of that user
//! that is in no sandbox, or once the measure that stops it is undone. The person's door is in `door`, approvals
//! are in `approvals::own`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::harden::ourselves::give;
use crate::person::AgentsCopy;
use crate::spine::{Agent, SECRET, World};
use crate::support::keychain::{Keychain, as_user};
use crate::support::memory::in_files;
use crate::support::process::{command, finish, finish_with};
use crate::support::python::{PYTHON, program};

/// `daemon`: an account that every system has, and a bus lets in.
const OWNER: u32 = 1;

/// A world whose home is that user's.
fn world() -> World {
    let world = World::new();
    hand_over(&world);
    world
}

fn hand_over(world: &World) {
    give(&world.home.path(), OWNER);
    std::os::unix::fs::chown(world.home.key(), Some(OWNER), Some(OWNER)).unwrap();
}

/// An agent that is the owner.
fn agent(world: &World, words: &[&str]) -> Command {
    let mut started = world.home.agentsecrets(["run", "--user", "daemon", "--"]);
    started.args(words);
    started
}

/// A program of the owner's that is no agent.
fn outside(words: &[&str]) -> Command {
    let mut started = as_user(OWNER, words[0]);
    started.args(&words[1..]).current_dir("/tmp");
    started
}

/// What is read of each file that is named, by which way; and what a copy of them all gives away.
const FILES: &str = r"
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
fn reading_the_vault_and_its_key() {
    let (world, copy) = (world(), AgentsCopy::new());
    let (home, key) = (world.home.path(), world.home.key());
    let words = [PYTHON, "-c", FILES, home.to_str().unwrap(), key.to_str().unwrap(), copy.path()];
    let seen = finish(&mut agent(&world, &words));
    assert_eq!((&*seen.stdout, seen.code), ("", Some(0)), "{seen:?}");
    let seen = finish(&mut outside(&words)).ok();
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
fn asking_the_keychain() {
    let (world, keychain) = (World::new(), Keychain::unlocked_of(OWNER));
    fs::remove_file(world.home.path().join("vault")).unwrap();
    world.home.configure("stores: [keychain]\n");
    hand_over(&world);
    let copy = AgentsCopy::new();
    let mut set = keychain.at(as_user(OWNER, copy.path()));
    set.args(["secrets", "set", "API_KEY"]).env("AGENTSECRETS_HOME", world.home.path()).current_dir("/tmp");
    finish_with(&mut set, SECRET.as_bytes()).ok();
    let attack = program("stores/programs/keychain.py");
    let words = [PYTHON, "-c", &attack, "default:development:API_KEY"];
    let address = format!("DBUS_SESSION_BUS_ADDRESS=unix:path={}/bus", keychain.folder().display());
    let words = [&["env", &address], &words[..]].concat();
    // It serves: the secret is spent, and the attack is tried while the keychain is open.
    let ask = format!(
        "curl -sS -o /dev/null -w '%{{http_code}} ' -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; exec \"$@\"",
        world.url("/")
    );
    let seen = finish(&mut keychain.at(agent(&world, &[&["sh", "-c", &ask, "sh"], &words[..]].concat())));
    assert!(seen.stdout == "200 " && seen.code != Some(0), "{seen:?}");
    // Nor are its files there, encrypted as they are.
    let file = keychain.file();
    assert!(file.exists());
    let seen = finish(&mut keychain.at(agent(&world, &["cat", file.to_str().unwrap()])));
    assert_eq!(seen.stdout, "");
    let seen = finish(&mut outside(&words));
    assert_eq!(seen.stdout, SECRET, "the attack does not bite: {seen:?}");
}

/// What is found of each needle in the memory of the process whose id it is told, by which way. A way that the
/// kernel does not let it go is not named.
const MEMORY: &str = r"
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

/// How a private key of the authority's kind begins.
const KEY: &[u8] = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d";

/// What `MEMORY`, started as `attack`, says of the process `pid`.
fn found_in(pid: u32, mut attack: Command) -> String {
    let mut attack = attack.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(attack.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let told = format!("{pid} {} {}\n", hex(SECRET.as_bytes()), hex(KEY));
    attack.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
    let mut all = String::new();
    said.read_to_string(&mut all).unwrap();
    attack.wait().unwrap();
    let all = all.replace(&hex(SECRET.as_bytes()), "SECRET").replace(&hex(KEY), "KEY");
    all.strip_suffix("end\n").unwrap_or_else(|| panic!("{all}")).to_owned()
}

/// Secrets and the authority's key, in the interceptor's memory. Two walls stand before an agent: its namespace of
/// processes, and that our processes are not dumpable; before another program of the same user the second alone.
#[test]
fn reading_our_memory() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap();
    let (source, library) = (folder.path().join("ours.c"), folder.path().join("ours.so"));
    fs::write(&source, include_str!("ours.c")).unwrap();
    finish(command("gcc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl")).ok();
    for is_undone in [false, true] {
        let mut world = world();
        if is_undone {
            world.home.variable("LD_PRELOAD", library.to_str().unwrap());
        }
        let ask = format!(
            "curl -sS -o /dev/null -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; echo ready; read line",
            world.url("/")
        );
        let serving = Agent::started(agent(&world, &["sh", "-c", &ask]));
        world.api.only();
        let interceptor = serving.interceptor();
        let of = crate::harden::status(interceptor, "Uid");
        assert!(of.starts_with(&format!("{OWNER}\t")), "{of}");
        let inside = found_in(interceptor, agent(&world, &[PYTHON, "-c", MEMORY]));
        assert_eq!(inside, "", "an agent, undone: {is_undone}");
        let seen = found_in(interceptor, outside(&[PYTHON, "-c", MEMORY]));
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

/// The authority's key is in no file of ours, whoever might read it. What is written is its certificate.
#[test]
fn looking_for_the_authoritys_key_in_files() {
    let world = world();
    let _serving = Agent::waiting(&world.home);
    let needles = [b"PRIVATE KEY".to_vec(), KEY.to_vec()];
    let look = || {
        let places = [world.home.path(), "/run/agentsecrets".into()];
        places.iter().flat_map(|place| in_files(place, &needles)).collect::<Vec<_>>()
    };
    assert_eq!(look(), Vec::<std::path::PathBuf>::new());
    let planted = world.home.path().join("ca.key");
    fs::write(&planted, [b"0", KEY].concat()).unwrap();
    assert_eq!(look(), [planted], "the search does not bite");
}
