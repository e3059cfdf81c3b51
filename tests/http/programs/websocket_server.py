"""A WebSocket server that does what it is told, and repeats its client's credential when asked."""
import asyncio, hashlib, ssl, sys
import websockets


async def serve(ws):
    secret = ws.request_headers.get("Authorization", "")
    async for message in ws:
        if message == "auth":
            await ws.send("you are " + secret + ".")
            await ws.send(b"\x00\xff" + secret.encode() + b"\xff")
        elif message == "parts":
            await ws.send([c for c in "parts of " + secret + "!"])
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
