"""An MCP client: starts a server, lists its tools, calls them, and prints the results."""

import asyncio
import json
import sys

from mcp import Client, MCPError, StdioServerParameters, stdio_client


async def main():
    plan = json.loads(sys.argv[1])
    server = StdioServerParameters(command=plan["command"], args=plan["args"], env=plan["env"])
    with open(plan["errors"], "w") as errors:
        async with Client(stdio_client(server, errlog=errors), mode=plan["mode"]) as client:
            tools = await client.list_tools()
            told = {
                "server": client.server_info.name,
                "version": client.protocol_version,
                "instructions": client.instructions,
                "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools.tools],
                "results": [],
            }
            for tool, arguments in plan["calls"]:
                try:
                    result = await client.call_tool(tool, arguments)
                    texts = [block.text for block in result.content]
                    told["results"].append({"is_error": result.is_error, "texts": texts})
                except MCPError as error:
                    told["results"].append({"code": error.error.code, "message": error.error.message})
    print(json.dumps(told))


asyncio.run(main())
