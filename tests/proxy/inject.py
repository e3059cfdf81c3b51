"""Makes a running process perform system calls, as an attacker in control of it would: argv is its pid and a folder of
its home. Prints the result of each call."""
import ctypes, errno, os, signal, sys

pid, inside = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
SEIZE, INTERRUPT, GETREGS, SETREGS, STEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
         "ds es fs gs").split()


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


def trace(request, data=None):
    assert libc.ptrace(request, pid, None, data) == 0, os.strerror(ctypes.get_errno())


trace(SEIZE)
trace(INTERRUPT)
os.waitpid(pid, 0)
before = Registers()
trace(GETREGS, ctypes.byref(before))
# It is blocked in a system call; the instruction precedes the program counter.
memory = open(f"/proc/{pid}/mem", "r+b", buffering=0)
memory.seek(before.rip - 2)
assert memory.read(2) == b"\x0f\x05", "it does not wait in a call"


def call(number, *arguments):
    now = Registers.from_buffer_copy(before)
    text_at = before.rsp - 4096
    given = []
    for argument in arguments:
        if isinstance(argument, bytes):
            memory.seek(text_at)
            memory.write(argument + b"\0")
            argument, text_at = text_at, text_at + len(argument) + 1
        given.append(argument & 0xFFFFFFFFFFFFFFFF)
    for register, argument in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), given):
        setattr(now, register, argument)
    now.rax, now.orig_rax, now.rip = number, 0xFFFFFFFFFFFFFFFF, before.rip - 2
    trace(SETREGS, ctypes.byref(now))
    trace(STEP)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP, status
    trace(GETREGS, ctypes.byref(now))
    result = ctypes.c_longlong(now.rax).value
    return errno.errorcode[-result] if result < 0 else "done"


HERE, READ, CREATE = -100, os.O_RDONLY, os.O_WRONLY | os.O_CREAT
ADDRESS = b"\x02\x00\x00\x00\x7f\x00\x00\x01" + b"\0" * 7
with open("/tmp/outside-of-its-home", "w"):
    pass
try:
    for name, *asked in [
        ("getpid", 39),
        ("execve", 59, b"/bin/true", 0, 0),
        ("fork", 57),
        ("kill", 62, os.getppid(), 0),
        ("ptrace", 101, 16, 1, 0, 0),
        ("bpf", 321, 0, 0, 0),
        ("mount", 165, b"a", b"/mnt", b"tmpfs", 0, 0),
        ("setuid", 105, 0),
        ("packet socket", 41, 17, 3, 0),
        ("executable memory", 9, 0, 4096, 7, 0x22, -1, 0),
        ("read its home", 257, HERE, inside.encode(), READ | os.O_DIRECTORY, 0),
        ("read outside", 257, HERE, b"/tmp/outside-of-its-home", READ, 0),
        ("write outside", 257, HERE, b"/tmp/made-by-a-proxy", CREATE, 0o600),
        ("another's memory", 257, HERE, f"/proc/{os.getpid()}/mem".encode(), READ, 0),
    ]:
        print(name, call(*asked))
finally:
    trace(SETREGS, ctypes.byref(before))
    trace(DETACH)
    os.unlink("/tmp/outside-of-its-home")
