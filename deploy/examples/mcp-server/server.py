"""An MCP server that calls an API and holds no credential.

Its key is a placeholder: below `agentsecrets run` the real one is put in on the way to the API, and taken out of
whatever comes back. Copy this file, and change what `get` asks for.
"""

import json
import os
import urllib.error
import urllib.request

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

API = os.environ.get("API_URL", "https://api.stripe.com")
KEY = os.environ.get("STRIPE_KEY", "AS_SECRET_STRIPE_KEY")
TIMEOUT = 30

if not KEY.startswith("AS_SECRET_"):
    raise SystemExit("STRIPE_KEY holds a real key: start this server below `agentsecrets run`, without it")

server = MCPServer("Stripe, without a key")


def get(path: str) -> dict:
    """What the API answers to a GET of `path`."""
    request = urllib.request.Request(API + path, headers={"Authorization": f"Bearer {KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        # A refusal of AgentSecrets' own is a 403 with X-AS-Refused, and says what to do.
        told = error.read(4096).decode(errors="replace")
        raise ToolError(f"HTTP {error.code}: {told}") from None
    except OSError as error:
        raise ToolError(f"the API cannot be reached: {error}") from None


@server.tool()
def balance() -> dict:
    """The balance of the account."""
    return get("/v1/balance")


@server.tool()
def customer(id: str) -> dict:
    """One customer, by its id, such as cus_123."""
    if not id.replace("_", "").isalnum():
        raise ToolError("that is no id of a customer")
    return get(f"/v1/customers/{id}")


if __name__ == "__main__":
    server.run("stdio")
