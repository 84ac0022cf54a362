#!/usr/bin/env python3
"""An MCP server for tests that lists and answers what no server should. Standard library only."""
import json
import sys

LARGE = {"type": "object", "properties": {"text": {"type": "string", "description": "x" * 30_000}}}

ODD = [
    ("twice", "first", {"type": "object"}),
    ("twice", "second", {"type": "object"}),
    ("n" * 200, "a long name", {"type": "object"}),
    ("text", "no object", {"type": "string"}),
    ("huge", "y" * 100_000, {"type": "object", "description": "z" * 100_000}),
    ("large_result", "a large result", {"type": "object"}),
]


def page(number):
    """There is always another one."""
    tools = ODD if number == 0 else [(f"tool_{number}_{index}", "one of many", LARGE) for index in range(20)]
    return {
        "tools": [{"name": name, "description": about, "inputSchema": schema} for name, about, schema in tools],
        "nextCursor": str(number + 1),
    }


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        continue
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        reply["result"] = {
            "protocolVersion": params.get("protocolVersion", "2025-03-26"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "hostile", "version": "1"},
        }
    elif method == "tools/list":
        reply["result"] = page(int(params.get("cursor") or 0))
    elif method == "tools/call":
        reply["result"] = {"content": [{"type": "text", "text": "r" * 3_000_000}]}
    else:
        reply["error"] = {"code": -32601, "message": f"no method {method}"}
    print("no JSON at all")
    print(json.dumps(reply), flush=True)
