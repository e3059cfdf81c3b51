"""Starts a command line at a new terminal, with an inner program that needs a terminal, and types."""
import os, pty, re, select, sys, termios, struct, fcntl, time

INSIDE = r"""
import os, sys, termios, signal, fcntl, struct
assert sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()
rows, columns = struct.unpack('hhhh', fcntl.ioctl(0, termios.TIOCGWINSZ, b'\0' * 8))[:2]
print('size', rows, columns, flush=True)
sys.stdout.write('name? '); sys.stdout.flush()
name = sys.stdin.readline().strip()
print('hello', name, 'key', os.environ['API_KEY'], flush=True)
def caught(*_):
    os.write(1, b'interrupted\n')
    os._exit(42)
signal.signal(signal.SIGINT, caught)
print('waiting', flush=True)
signal.pause()
"""

command = sys.argv[1:]
pid, master = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('hhhh', 33, 97, 0, 0))
    os.execv(command[0], command + ["--", sys.executable, "-c", INSIDE])

seen = b""
def until(text):
    global seen
    deadline = time.monotonic() + 30
    while text not in seen:
        ready, _, _ = select.select([master], [], [], deadline - time.monotonic())
        assert ready, (text, seen)
        try:
            piece = os.read(master, 4096)
        except OSError:
            piece = b""
        assert piece, (text, seen)
        seen += piece

until(b"size 33 97")
until(b"name? ")
os.write(master, b"bob\n")
until(b"hello bob key ")
until(b"waiting")
masked = b"[REDACTED_BY_AGENTSECRETS]" in seen
assert masked == ("--mask" in command), seen
assert (b"sk_live" in seen) != masked, seen
os.write(master, b"\x03")
until(b"interrupted")
_, status = os.waitpid(pid, 0)
assert os.WEXITSTATUS(status) == 42, status
