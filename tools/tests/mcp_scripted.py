"""A server without the SDK that does what it should not: `mcp_scripted.py HOW [FILE]`."""

import json
import os
import signal
import subprocess
import sys
import time

HOW = sys.argv[1]
FILE = sys.argv[2] if len(sys.argv) > 2 else None
GROWN = ["call"]


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(request, result):
    say({"jsonrpc": "2.0", "id": request["id"], "result": result})


def note(text):
    with open(FILE, "a") as file:
        file.write(f"{text}\n")


def tool(name, **more):
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def page(cursor):
    if HOW == "many":
        start = int(cursor or 0)
        more = {"nextCursor": str(start + 1000)} if start < 9000 else {}
        return {"tools": [tool(f"tool.{number:05}") for number in range(start, start + 1000)], **more}
    if HOW == "endless":
        return {"tools": [], "nextCursor": "again"}
    if HOW == "no list":
        return {"tools": "none"}
    if HOW == "growing":
        return {"tools": [tool(name) for name in GROWN]}
    return {"tools": [tool("call")]}


def call(request):
    name = HOW
    if name == "long answer":
        text = "x" * (40 * 1024 * 1024)
        answer(request, {"content": [{"type": "text", "text": text}]})
    elif name == "long line":
        sys.stdout.write("x" * (40 * 1024 * 1024) + "\n")
        sys.stdout.flush()
    elif name == "no answer" and request["id"] is not None:
        say({"jsonrpc": "2.0", "id": request["id"]})
    elif name == "half answer":
        sys.stdout.write('{"jsonrpc": "2.0", "id": %d, "result": {"content"' % request["id"])
        sys.stdout.flush()
        os._exit(1)
    elif name == "orphan":
        # It keeps the pipes open when its parent is gone.
        child = subprocess.Popen(["sleep", "1000"])
        note(child.pid)
        daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        note(daemon.pid)
        os._exit(1)
    elif name == "chatty":
        for number in range(20_000):
            sys.stdout.write(f"debug {number}\n")
            sys.stderr.write(f"debug {number} {os.environ.get('KEY')}\n")
            say({"jsonrpc": "2.0", "method": "notifications/nothing", "params": {"number": number}})
        answer(request, {"content": [{"type": "text", "text": "done"}]})
    elif name == "growing":
        GROWN.append(f"grown_{len(GROWN)}")
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(request, {"content": [{"type": "text", "text": "grew"}]})
    elif name == "repeats its key":
        answer(request, {"content": [{"type": "text", "text": f"wrong key {os.environ['KEY']}"}], "isError": True})
    else:
        answer(request, {"content": [{"type": "text", "text": "fine"}]})


def main():
    if FILE:
        note(os.getpid())
    if HOW == "crash":
        sys.exit(f"cannot start: no {os.environ.get('KEY')} here")
    if HOW == "garbage":
        while True:
            sys.stdout.write("\x00\xffgarbage {\n")
    if HOW == "endless line":
        while True:
            sys.stdout.write("x" * 65536)
    if HOW in ("stubborn", "unreading"):
        note(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        method = request.get("method")
        if HOW == "silent":
            continue
        if method == "initialize":
            if HOW == "nonsense":
                answer(request, 5)
                continue
            info = {"name": "scripted", "version": "1"}
            version = request["params"]["protocolVersion"]
            answer(request, {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}, "serverInfo": info})
        elif method == "tools/list":
            answer(request, page((request.get("params") or {}).get("cursor")))
            if HOW in ("deaf", "unreading"):
                time.sleep(1000)
        elif method == "tools/call":
            call(request)
    while HOW == "stubborn":
        time.sleep(1)


main()
