"""The published plugin, driving our program: prints the result of each call, or the error that it raises."""

import json
import sys

from agentsecrets_plugin.client import AgentSecretsClient
from agentsecrets_plugin.errors import AgentSecretsError
from agentsecrets_plugin.transports import LocalHelperTransport

plan = json.loads(sys.argv[1])
client = AgentSecretsClient(transport=LocalHelperTransport(plan["binary"], env=plan["env"]))
told = []
for call in plan["calls"]:
    try:
        told.append(client.call(call).to_dict())
    except AgentSecretsError as error:
        told.append({"raised": type(error).__name__, "message": str(error)})
print(json.dumps(told))
