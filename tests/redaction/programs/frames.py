"""Requests /KIND/N for every N at once, three times; prints for each N the chunk sizes of each response and their earliest
times."""
import json, os, socket, ssl, sys, time
from concurrent.futures import ThreadPoolExecutor

port, kind, rights = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")


def chunks(file, start):
    sizes, times = [], []
    while True:
        size = int(file.readline(), 16)
        if size == 0:
            return sizes, [round((t - start) * 1000, 2) for t in times]
        file.read(size + 2)
        sizes.append(size)
        times.append(time.monotonic())


def ask(right):
    raw = socket.create_connection(("api.test", port))
    with ssl.create_default_context().wrap_socket(raw, server_hostname="api.test") as tls:
        key = os.environ["API_KEY"]
        tls.sendall(
            f"GET /{kind}/{right} HTTP/1.1\r\nHost: api.test:{port}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        file = tls.makefile("rb", buffering=0)
        start = None
        while (line := file.readline().strip()):
            start = start or time.monotonic()
        return chunks(file, start)


with ThreadPoolExecutor(len(rights)) as pool:
    rounds = [list(pool.map(ask, rights)) for _ in range(3)]
seen = []
for answers in zip(*rounds):
    sizes = [sizes for sizes, _ in answers]
    seen.append((sizes, [min(times) for times in zip(*(times for _, times in answers))]))
print(json.dumps(seen))
