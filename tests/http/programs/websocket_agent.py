"""An unmodified WebSocket client: sends its arguments as messages and prints each reply on a line."""
import asyncio, json, os, sys
import websockets


async def main():
    headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
    try:
        async with websockets.connect(sys.argv[1], extra_headers=headers, max_size=None) as ws:
            for message in sys.argv[2:]:
                expected = 2 if message == "auth" else 1
                await ws.send(bytes(int(message[4:])) if message.startswith("send") else message)
                for _ in range(expected):
                    answer = await ws.recv()
                    if isinstance(answer, bytes):
                        answer = {"length": len(answer), "text": answer[:200].decode("latin-1")}
                    print(json.dumps(answer), flush=True)
            await (await ws.ping())
    except websockets.ConnectionClosed as closed:
        print(json.dumps({"code": closed.rcvd and closed.rcvd.code, "reason": closed.rcvd and closed.rcvd.reason}))
    except websockets.InvalidStatusCode as refused:
        print(json.dumps({"status": refused.status_code}))


asyncio.run(main())
