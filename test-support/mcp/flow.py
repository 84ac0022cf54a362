#!/usr/bin/env python3
"""An MCP server for tests: a small workflow (upload, status, update), an echo, and tools that misbehave.

Standard library only. Without arguments it speaks on its standard streams; `--http PORT-FILE` makes it speak streamable
HTTP on a free port of loopback, or of the address given third, and write the port into the file.
"""
import json
import os
import sys
import time

STATE = {}

TOOLS = {
    "echo": ("Say it again.", {"text": {"type": "string"}}),
    "upload": ("Upload a document.", {"name": {"type": "string"}, "content": {"type": "string"}}),
    "status": ("The state of a document.", {"name": {"type": "string"}}),
    "update": ("Change a document's state.", {"name": {"type": "string"}, "state": {"type": "string"}}),
    "die": ("End this process.", {}),
    "hang": ("Never answer.", {}),
    "variable": ("An environment variable of this process.", {"name": {"type": "string"}}),
}


def call(name, arguments):
    if name == "echo":
        return "echo:" + arguments["text"]
    if name == "upload":
        STATE[arguments["name"]] = "uploaded"
        return f"{arguments['name']} has {len(arguments['content'])} characters"
    if name == "status":
        return STATE[arguments["name"]]
    if name == "update":
        STATE[arguments["name"]] = arguments["state"]
        return "done"
    if name == "die":
        os._exit(3)
    if name == "hang":
        time.sleep(3600)
    if name == "variable":
        return os.environ.get(arguments["name"], "not set")
    raise KeyError(name)


def answer(message):
    """The result of one message; None for a notification."""
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        return None
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        reply["result"] = {
            "protocolVersion": params.get("protocolVersion", "2025-03-26"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "flow", "version": "1"},
        }
    elif method == "tools/list":
        reply["result"] = {
            "tools": [
                {"name": name, "description": about, "inputSchema": {"type": "object", "properties": properties}}
                for name, (about, properties) in TOOLS.items()
            ]
        }
    elif method == "tools/call":
        try:
            text, failed = call(params["name"], params.get("arguments") or {}), False
        except KeyError as error:
            text, failed = f"there is no {error}", True
        reply["result"] = {"content": [{"type": "text", "text": text}], "isError": failed}
    elif method == "ping":
        reply["result"] = {}
    else:
        reply["error"] = {"code": -32601, "message": f"no method {method}"}
    return reply


def stdio():
    for line in sys.stdin:
        reply = answer(json.loads(line))
        if reply is not None:
            print(json.dumps(reply), flush=True)


def http(port_file, address):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            reply = answer(json.loads(body))
            self.send_response(202 if reply is None else 200)
            text = b"" if reply is None else json.dumps(reply).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            self.send_response(405)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    with open(port_file + ".new", "w") as file:
        file.write(str(server.server_port))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()


if len(sys.argv) > 2 and sys.argv[1] == "--http":
    http(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1")
else:
    stdio()
