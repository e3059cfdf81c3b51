"""Starts a command at a new terminal and answers each prompt, given as PROMPT=ANSWER."""
import os, pty, select, sys, time

answers = [answer.split("=", 1) for answer in sys.argv[1 : sys.argv.index("--")]]
command = sys.argv[sys.argv.index("--") + 1 :]
pid, master = pty.fork()
if pid == 0:
    os.execv(command[0], command)
seen, everything = b"", b""
deadline = time.monotonic() + 40


def read():
    ready, _, _ = select.select([master], [], [], max(0, deadline - time.monotonic()))
    assert ready, everything
    try:
        return os.read(master, 4096)
    except OSError:
        return b""


for prompt, answer in answers:
    while prompt.encode() not in seen:
        piece = read()
        assert piece, (prompt, everything)
        seen, everything = seen + piece, everything + piece
    seen = b""
    os.write(master, answer.encode() + b"\n")
while piece := read():
    everything += piece
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(everything)
sys.exit(os.WEXITSTATUS(status))
