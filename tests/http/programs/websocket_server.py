"""A WebSocket server that follows commands, and echoes its client's credential on request."""
import asyncio, base64, hashlib, ssl, sys
import websockets


async def serve(ws):
    secret = ws.request_headers.get("Authorization", "")
    async for message in ws:
        if message == "auth":
            await ws.send("you are " + secret + ".")
            await ws.send(b"\x00\xff" + secret.encode() + b"\xff")
        elif message == "parts":
            await ws.send([c for c in "parts of " + secret + "!"])
        elif message == "piece":
            await ws.send("it begins " + secret.removeprefix("Bearer ")[:25])
        elif message == "forms":
            key = secret.removeprefix("Bearer ").encode()
            wide = key.decode().encode("utf-16-le")
            lines = base64.encodebytes(b"some words before it, to fill a line: " + key + b" and some behind").decode()
            forms = [key.decode(), key.hex(":"), key.hex().upper(), base64.b64encode(wide).decode(), lines]
            forms += ["".join("\\u%04x" % c for c in key), ", ".join(map(str, key))]
            await ws.send(" | ".join(forms))
        elif message == "extensions":
            await ws.send(repr(ws.extensions))
        elif message == "close":
            await ws.close(4001, "bye " + secret)
        elif isinstance(message, str) and message.startswith("big"):
            await ws.send(b"\x07" * int(message[3:]))
        elif isinstance(message, str) and message.startswith("sha:"):
            await ws.send(hashlib.sha256(message[4:].encode()).hexdigest())
        elif isinstance(message, str):
            await ws.send("echo " + message)
        else:
            await ws.send(str(len(message)))


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    async with websockets.serve(serve, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
