"""Drives the management clients of the published SDK: argv is the server's URL and a port for the proxy."""
import datetime, os, re, sys
import agentsecrets
from agentsecrets import AgentSecrets, agent, credential, settings
from agentsecrets.errors import (AgentSecretsError, AgentSecretsNotRunning, CLIError, CLINotFound, DomainNotAllowed,
                                 ProxyConnectionError)

url, port = sys.argv[1], int(sys.argv[2])
MARKER = "[REDACTED_BY_AGENTSECRETS]"


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


client = AgentSecrets(port=port, auto_start=False)

# Secrets: names are printed, values never.
assert [secret.key for secret in client.secrets.list()] == ["API_KEY"]
client.secrets.set("SECOND", "a-value-with-no-meaning")
assert [secret.key for secret in client.secrets.list()] == ["API_KEY", "SECOND"]
assert client.spawn(["sh", "-c", "echo ${#SECOND}"]).stdout == "23\n"
client.secrets.delete("SECOND")
assert [secret.key for secret in client.secrets.list()] == ["API_KEY"]
assert raises(CLIError, lambda: client.secrets.delete("SECOND")).exit_code == 3
for shared in (client.secrets.diff, client.secrets.pull, lambda: client.secrets.push(force=True)):
    error = raises(CLIError, shared)
    assert error.exit_code == 1 and "this version cannot share one" in error.stderr, error

# Projects.
client.projects.create("shop")
listed = {project.name: project.description for project in client.projects.list()}
assert listed == {"default": "", "shop": ""}, listed
assert client.secrets.list() == []
client.projects.use("default")
with AgentSecrets(port=port, project="default").use_project("shop"):
    assert client.secrets.list() == []
assert [secret.key for secret in client.secrets.list()] == ["API_KEY"]
client.projects.delete("shop")
assert [project.name for project in client.projects.list()] == ["default"]
assert raises(CLIError, lambda: client.projects.use("shop")).exit_code == 3

# Environments.
settings.environment = "staging"
assert client.secrets.list() == []
settings.environment = "development"
assert [secret.key for secret in client.secrets.list()] == ["API_KEY"]
raises(ValueError, lambda: setattr(settings, "environment", "not a name"))

# Workspaces: names on this machine.
kinds = lambda: [(workspace.name, workspace.type) for workspace in client.workspaces.list()]
assert kinds() == [("personal", "local")]
client.workspaces.create("acme")
assert kinds() == [("personal", "local"), ("acme", "local")]
with AgentSecrets(port=port, workspace="acme").use_workspace("personal"):
    pass
client.workspaces.switch("personal")
assert raises(CLIError, lambda: client.workspaces.switch("nowhere")).exit_code == 3
[member] = client.workspaces.members()
assert (member.role, member.status) == ("owner", "active") and "@" in member.email, member
for shared in (lambda: client.workspaces.invite("a@b.test", role="admin"), lambda: client.workspaces.remove("a@b.test"),
               lambda: client.workspaces.promote("a@b.test"), lambda: client.workspaces.demote("a@b.test")):
    error = raises(CLIError, shared)
    assert error.exit_code == 1 and "this version cannot share one" in error.stderr, error

# The allowlist.
domains = lambda: [entry.domain for entry in client.allowlist.list()]
assert domains() == ["api.test"]
assert raises(DomainNotAllowed, lambda: client.call("https://elsewhere.test/", bearer="API_KEY")).domain == "elsewhere.test"
client.allowlist.add("elsewhere.test", "*.example.com")
assert domains() == ["api.test", "elsewhere.test", "*.example.com"]
entry = client.allowlist.list()[1]
assert re.fullmatch(r"policy\.yaml:\d+", entry.added_by) and entry.created_at == "—", entry
raises(AgentSecretsError, lambda: client.call("https://elsewhere.test/", bearer="API_KEY"))
client.allowlist.add()
client.allowlist.add("elsewhere.test")
assert domains() == ["api.test", "elsewhere.test", "*.example.com"]
client.allowlist.remove("elsewhere.test")
client.allowlist.remove("*.example.com")
assert domains() == ["api.test"]
error = raises(CLIError, lambda: client.allowlist.remove("api.test"))
assert error.exit_code == 1 and "policy.yaml:" in error.stderr, error
assert raises(CLIError, lambda: client.allowlist.remove("nowhere.test")).exit_code == 3
assert raises(CLIError, lambda: client.allowlist.add("https://elsewhere.test/")).exit_code == 2
log = client.allowlist.log()
assert "blocked" in log and "elsewhere.test" in log, log

# The proxy: down, up, queried, and down again.
assert not client.proxy.status(port=port).running
assert raises(AgentSecretsNotRunning, client._ensure_auth).port == port
raises(ProxyConnectionError, lambda: agentsecrets.proxy.health_check(port))
assert raises(CLIError, client.proxy.stop).exit_code == 6
client.proxy.start(port=port)
status = client.proxy.status(port=port)
assert (status.running, status.port, status.project) == (True, port, "default"), status
assert raises(CLIError, lambda: client.proxy.start(port=port)).exit_code == 1
assert client._ensure_auth().port == port
agentsecrets.init(port=port)
import httpx, requests
import asyncio
secret = {"Authorization": f"Bearer {credential.API_KEY}"}
assert requests.get(url + "/echo-raw", headers=secret).text == f"Bearer {MARKER}"
assert httpx.post(url + "/echo-raw", headers=secret).text == f"Bearer {MARKER}"


async def asked():
    async with httpx.AsyncClient() as http:
        return (await http.get(url + "/echo-raw", headers=secret)).text


assert asyncio.run(asked()) == f"Bearer {MARKER}"
plain = requests.get("https://elsewhere.test/", headers=secret)
assert (plain.status_code, plain.json()["error"], plain.json()["domain"]) == (403, "domain_not_in_allowlist", "elsewhere.test")
missing = httpx.get(url + "/", headers={"X-Api-Key": credential["NOT_THERE"]})
assert missing.status_code == 403, missing.text
down = requests.get("https://api.test:1/", headers=secret)
assert down.status_code in (403, 502), down.text
event = client.proxy.logs(last=1, secret="API_KEY")[0]
assert isinstance(event.timestamp, datetime.datetime) and event.domain and event.status in ("OK", "BLOCKED", "ERROR"), event
kept = client.proxy.logs()
assert any(event.redacted and event.auth_styles == ["bearer"] and event.status_code == 200 for event in kept), kept
assert all("API_KEY" in event.secret_keys for event in client.proxy.logs(secret="API_KEY"))
client.proxy.stop()
assert not client.proxy.status(port=port).running
raises(requests.ConnectionError, lambda: requests.get(url + "/echo-raw", headers=secret))

assert "development" in client.status()["raw"]
client.close()
raises(RuntimeError, lambda: client.call(url))
os.environ["PATH"] = "/nowhere"
raises(CLINotFound, lambda: AgentSecrets(auto_start=False).secrets.list())
