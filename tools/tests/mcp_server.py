"""An MCP server for the tests, with the official SDK: `mcp_server.py stdio` or `mcp_server.py http PORT`.

Port 0 takes a free one; either way it is printed as the first line. REQUIRE_TOKEN asks for `Authorization: Bearer` with
it, NO_GREETING refuses `initialize` like a server that knows only the protocol without it, and CANCELLED_LOG names a file that gets a line for each cancelled call.
"""

import asyncio
import base64
import json
import os
import socket
import sys

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("daybook-test", log_level="ERROR")
READ_ONLY = ToolAnnotations(read_only_hint=True)
IDEMPOTENT = ToolAnnotations(idempotent_hint=True)
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


class Sum(BaseModel):
    sum: int


@server.tool(annotations=READ_ONLY, structured_output=False)
def echo(text: str) -> str:
    """Gives back the text."""
    return text


@server.tool(annotations=IDEMPOTENT)
def add(a: int, b: int) -> Sum:
    """Adds two numbers."""
    return Sum(sum=a + b)


@server.tool(structured_output=False)
async def slow(context: Context, steps: int = 3, pause: float = 0.05) -> str:
    """Takes its time, and tells how far it is."""
    try:
        for step in range(steps):
            await context.report_progress(step + 1, steps, f"step {step + 1}")
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        if path := os.environ.get("CANCELLED_LOG"):
            with open(path, "a") as log:
                log.write("cancelled\n")
        raise
    return f"{steps} steps"


@server.tool()
def image() -> Image:
    """A picture of one pixel."""
    return Image(data=PIXEL, format="png")


@server.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ToolError(why)


@server.tool()
async def die(pause: float = 0.2) -> str:
    """Ends the server in the middle of the call."""
    await asyncio.sleep(pause)
    os._exit(3)


@server.tool(name="who.am.i", structured_output=False)
def who(context: Context) -> str:
    """The process, what it was told of the call, and its environment."""
    meta = context.request_context.meta or {}
    told = {key: value for key, value in dict(meta).items() if str(key).startswith("daybook/")}
    return f"{os.getpid()}|{sorted(told.items())}|{sorted(os.environ)}"


@server.tool(structured_output=False)
async def grow(context: Context) -> str:
    """Adds a tool, and says so."""

    def grown() -> str:
        """Came later."""
        return "grown"

    server.add_tool(grown, structured_output=False)
    await context.session.send_tool_list_changed()
    await context.notify_tools_changed()
    return "done"


def guarded(app):
    """Lets only those in who know the token."""
    token = os.environ.get("REQUIRE_TOKEN")

    async def guard(scope, receive, send):
        headers = dict(scope.get("headers") or [])
        if token and scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {token}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        if os.environ.get("NO_GREETING") and scope["type"] == "http" and scope["method"] == "POST":
            message = await receive()
            if b'"initialize"' in message["body"]:
                error = {"code": -32601, "message": "Method not found"}
                body = json.dumps({"jsonrpc": "2.0", "id": json.loads(message["body"])["id"], "error": error}).encode()
                kind = [(b"content-type", b"application/json")]
                await send({"type": "http.response.start", "status": 400, "headers": kind})
                await send({"type": "http.response.body", "body": body})
                return
            received = [message]

            async def again():
                return received.pop() if received else await receive()

            await app(scope, again, send)
            return
        await app(scope, receive, send)

    return guard


def serve_http(port: int) -> None:
    import uvicorn

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(guarded(server.streamable_http_app()), log_level="error")
    anyio.run(uvicorn.Server(config).serve, [listener])


if __name__ == "__main__":
    print("hello from standard error", file=sys.stderr, flush=True)
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        serve_http(int(sys.argv[2]))
