"""Echoes messages. Prints its port, then each caller's credential."""
import asyncio, ssl, sys

from websockets.asyncio.server import serve


async def repeat(socket):
    print(socket.request.headers["Authorization"], flush=True)
    async for message in socket:
        await socket.send(message)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    async with serve(repeat, "127.0.0.1", 0, ssl=context) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
