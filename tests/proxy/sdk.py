"""Drives the published SDK: argv is the server's URL, a port for the proxy, and the secret."""
import asyncio, sys
import agentsecrets
from agentsecrets import AgentSecrets, AsyncAgentSecrets
from agentsecrets.errors import CLIError, DomainNotAllowed, SecretNotFound, UpstreamError

url, port, secret = sys.argv[1], int(sys.argv[2]), sys.argv[3]
MARKER = "[REDACTED_BY_AGENTSECRETS]"

def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")

with AgentSecrets(port=port, auto_start=False) as client:
    response = client.call(url + "/echo-raw", bearer="API_KEY")
    assert (response.status_code, response.redacted, response.text) == (200, True, f"Bearer {MARKER}"), response
    assert response.headers["x-as-redacted"] == "true", response.headers
    response = client.call(url + "/echo", method="POST", body={"a": 1}, body_field={"b.key": "API_KEY"}, query={"k": "API_KEY"})
    echo = response.json()
    assert echo["method"] == "POST" and secret not in response.text and MARKER in response.text, echo
    client.call(url + "/echo", header={"X-Api-Key": "API_KEY"})
    client.call(url + "/echo", method="POST", form_field={"key": "API_KEY"})

    assert raises(DomainNotAllowed, lambda: client.call("https://elsewhere.test/", bearer="API_KEY")).domain == "elsewhere.test"
    assert raises(SecretNotFound, lambda: client.call(url + "/", bearer="NOT_THERE")).key == "NOT_THERE"
    assert raises(UpstreamError, lambda: client.call(url + "/status?code=404", bearer="API_KEY")).status_code == 404
    assert raises(UpstreamError, lambda: client.call("https://api.test:1/", bearer="API_KEY")).status_code in (403, 502)
    raises(UpstreamError, lambda: client.call(url + "/", bearer="API_KEY", agent_token="ast_unknown"))

    result = client.spawn(["sh", "-c", 'test "$API_KEY" = "$1" && echo same; exit 3', "sh", secret])
    assert (result.exit_code, result.stdout) == (3, "same\n"), result
    assert client.status()["raw"]

async def several():
    async with AsyncAgentSecrets(port=port, auto_start=False) as client:
        responses = await asyncio.gather(*(client.call(url + "/echo-raw", bearer="API_KEY") for _ in range(3)))
        assert all(response.text == f"Bearer {MARKER}" for response in responses), responses
        result = await client.spawn(["true"])
        assert result.exit_code == 0, result
asyncio.run(several())

# The proxy, started by the SDK, and found there.
from agentsecrets.auth import resolve
context = resolve(port)
assert (context.port, context.project) == (port, "default"), context
client = AgentSecrets(port=port)
assert client.proxy.status(port=port).running
from agentsecrets.interceptor import install_interceptor
install_interceptor()
import requests, httpx
for library in (requests, httpx):
    answer = library.get(url + "/echo-raw", headers={"Authorization": "Bearer AS_SECRET_API_KEY"})
    assert (answer.status_code, answer.text) == (200, f"Bearer {MARKER}"), (library, answer.text)
    answer = library.get(url + "/echo", headers={"X-Api-Key": "AS_SECRET_API_KEY"})
    assert answer.json()["headers"]["x-api-key"] == [MARKER], answer.text
events = client.proxy.logs(last=5, secret="API_KEY")
assert len(events) == 5 and all(event.identity_level == "kernel" for event in events), events
client.proxy.stop()
assert not client.proxy.status(port=port).running
