"""An agent that performs one action per input line and prints one JSON line for each.

`get N SIZE`      N requests at once, each on its own connection, for SIZE bytes; prints how many were answered
`keep N`          opens N connections, sends one request on each, and keeps them
`half N WORDS`    opens N connections, sends WORDS in hex on each, and keeps them; prints how many are still open
`drop`            closes the kept connections
`upload SIZE`     sends SIZE bytes
`slow SIZE`       requests SIZE bytes and reads only the head
`times N`         N requests, one after the other, on one connection; the sorted seconds of each
`saturate N`      N connections that repeat requests until `rest`
"""
import asyncio, json, resource, ssl, sys, time

host, port = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
context = ssl.create_default_context()
kept, busy = [], []


async def connect():
    return await asyncio.open_connection(host, port, ssl=context, server_hostname=host, limit=65536)


def head(method, path, more=""):
    auth = "authorization: Bearer AS_SECRET_API_KEY\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{auth}{more}\r\n".encode()


async def answer(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    total = 0
    if "content-length" in fields:
        left = int(fields["content-length"])
        while left:
            block = await reader.read(min(left, 65536))
            if not block:
                raise EOFError
            left, total = left - len(block), total + len(block)
    else:
        while size := int(await reader.readline(), 16):
            left = size
            while left:
                block = await reader.read(min(left, 65536))
                if not block:
                    raise EOFError
                left -= len(block)
            total += size
            await reader.readline()
        while (await reader.readline()).strip():
            pass
    return int(lines[0].split()[1]), total


async def one(size):
    reader, writer = await connect()
    writer.write(head("GET", f"/stream?n={size}", "connection: close\r\n"))
    status, total = await answer(reader)
    writer.transport.abort()
    return (status == 200 and total == size) or f"{status}, {total} bytes"


async def get(n, size):
    done = await asyncio.gather(*(one(int(size)) for _ in range(int(n))), return_exceptions=True)
    errors = sorted({repr(error) for error in done if error is not True})
    return {"answered": done.count(True), "errors": errors[:5]}


async def keep(n):
    async def open_one():
        reader, writer = await connect()
        writer.write(head("GET", "/stream?n=10"))
        status, _ = await answer(reader)
        kept.append((reader, writer))
        return status
    done = await asyncio.gather(*(open_one() for _ in range(int(n))), return_exceptions=True)
    return {"answered": done.count(200)}


async def half(n, words=""):
    async def open_one():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(bytes.fromhex(words))
        kept.append((reader, writer))
    gate = asyncio.Semaphore(500)
    async def gated():
        async with gate:
            await open_one()
    done = await asyncio.gather(*(gated() for _ in range(int(n))), return_exceptions=True)
    return {"opened": done.count(None), "errors": sorted({repr(error) for error in done if error})[:5]}


async def standing():
    return {"standing": sum(not reader.at_eof() and reader.exception() is None for reader, _ in kept)}


async def drop():
    for _, writer in kept:
        writer.transport.abort()
    kept.clear()
    return {}


async def upload(size):
    size = int(size)
    reader, writer = await connect()
    writer.write(head("POST", "/upload", f"content-length: {size}\r\nconnection: close\r\n"))
    block = bytes(65536)
    for at in range(0, size, len(block)):
        writer.write(block[: size - at])
        await writer.drain()
    status, _ = await answer(reader)
    writer.transport.abort()
    return {"status": status}


async def slow(size):
    reader, writer = await connect()
    writer.write(head("GET", f"/stream?n={size}"))
    await reader.readuntil(b"\r\n\r\n")
    kept.append((reader, writer))
    return {}


async def times(n):
    reader, writer = await connect()
    took = []
    for _ in range(int(n)):
        start = time.perf_counter()
        writer.write(head("GET", "/stream?n=1000"))
        await answer(reader)
        took.append(time.perf_counter() - start)
    writer.transport.abort()
    return {"seconds": sorted(took)}


async def saturate(n):
    async def ask():
        reader, writer = await connect()
        while True:
            writer.write(head("GET", "/stream?n=100000"))
            await answer(reader)
    busy.extend(asyncio.create_task(ask()) for _ in range(int(n)))
    await asyncio.sleep(0.3)
    return {}


async def rest():
    for task in busy:
        task.cancel()
    busy.clear()
    return {}


async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, *words = line.split()
        print(json.dumps(await globals()[verb](*words)), flush=True)


asyncio.run(main())
