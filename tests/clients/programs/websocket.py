"""Sends three messages to an echo server."""
import asyncio, os, sys

from websockets.asyncio.client import connect


async def main():
    url = sys.argv[1].replace("https", "wss") + "/"
    headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
    async with connect(url, additional_headers=headers) as socket:
        for message in ["one", "two", b"three"]:
            await socket.send(message)
            print(await socket.recv())


asyncio.run(main())
