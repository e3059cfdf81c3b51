"""Each client sends one request over its newest protocol and prints the status."""
import asyncio, os, sys, urllib.request

import aiohttp, httpx, requests

url = sys.argv[1] + "/echo"
headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}

with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
    print("urllib", answer.status)

answer = requests.get(url, headers=headers)
print("requests", answer.status_code)

with httpx.Client(http2=True) as client:
    answer = client.get(url, headers=headers)
    print("httpx", answer.status_code, answer.http_version)


async def with_aiohttp():
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers=headers) as answer:
            print("aiohttp", answer.status)


asyncio.run(with_aiohttp())
