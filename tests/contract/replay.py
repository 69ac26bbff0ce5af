#!/usr/bin/env python3
"""Replays the recorded exchanges against a server and holds its answers against the recorded ones.

  replay.py http://127.0.0.1:7777 [--groups agent_runs,hitl] [--auth-base http://127.0.0.1:7778]
            [--deviations FILE] [--later FILE] [--out DIR] [--verbose] [--model http://127.0.0.1:9111]

The sequences/ make the same calls in the same order as when examples/ were recorded (reference_os.py's components, fake_openai.py's
model). Every exchange is compared by status, media type, the names and types of JSON members (more members are fine,
an empty list where one had content is not), and for streams by the order of frame names, repeats folded.
--auth-base names a second server with authorization on (HS256, the secret of reference_os.py) and user isolation; without it the
groups auth, user_isolation and service_accounts are left out. FILE lists exchanges answered differently on purpose, one
'group/name: reason' a line; they are still run and must then differ. The FILE of --later lists likewise, 'group/name: feature',
what features to come answer: counted apart, and a failure once it answers as recorded, so that the list shrinks with
every feature. --model names fake_openai.py, which then holds its slow answers while calls are made in the middle of them;
without it they hang on time. unstable.txt lists those that prove nothing. The recorded server itself passes the others. Needs httpx, websockets and pyjwt from PyPI.
"""
import argparse, ast, itertools, json, pathlib, re, sys, tempfile, threading, time, types, traceback
import os
import httpx

HERE = pathlib.Path(__file__).parent
AUTH_GROUPS = {"auth", "user_isolation", "service_accounts"}
LEFT_OUT = {"agui", "a2a", "filesystem", "crash", "slack", "mcp"}  # other specifications, or not in scope
# members whose inner names are data (ids, keys chosen by callers) or the provider's own
OPAQUE = re.compile(r"(session_state|metadata|model_provider_data|details|additional_metrics|provider_data|dependencies|user_input|tool_args|content|payload|output|input|structuredContent|config|parameters|properties|attributes|additional_data|ctx)$")

ap = argparse.ArgumentParser()
ap.add_argument("base")
ap.add_argument("--auth-base", default="")
ap.add_argument("--groups", default="")
ap.add_argument("--deviations", default="")
ap.add_argument("--later", default="")
ap.add_argument("--out", default="")
ap.add_argument("--model", default="")
ap.add_argument("--verbose", action="store_true")
args = ap.parse_args()
OUT = pathlib.Path(args.out or tempfile.mkdtemp(prefix="replay-"))
only = set(filter(None, args.groups.split(",")))
KEEP = ("content-type", "www-authenticate", "location", "retry-after", "access-control")


def parse_sse(text):
    events = []
    for block in text.split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            if line.startswith("event:"): name = line[6:].strip()
            elif line.startswith("data:"): data.append(line[5:].lstrip())
            elif line.startswith(":"): name = "<comment>"
        if not block.strip(): continue
        body = "\n".join(data)
        try: body = json.loads(body)
        except ValueError: pass
        events.append((name, body))
    return events


def hold(words):
    """From now on the model's slow answers stop after so many words, until go()."""
    if args.model: httpx.get(f"{args.model}/hold/{words}", timeout=60, trust_env=False)


def go(*_):
    """Lets them go on; fit for a stop_after that stops nothing."""
    if args.model: httpx.get(f"{args.model}/go", timeout=60, trust_env=False)


def patiently(get):
    """The first answer that is not about to change: from no view behind the log, about no run under way."""
    for _ in range(600):
        response = get()
        under_way = response.headers.get("content-type", "").startswith("application/json") and isinstance(response.json(), dict) and response.json().get("status") in ("PENDING", "RUNNING")
        if not under_way and "x-daybook-lag" not in response.headers: break
        time.sleep(0.3)


def recorder(base):
    """The module `cap` that the sequences import, bound to one server."""
    client = httpx.Client(base_url=base, timeout=180, trust_env=False)

    def until_over(path, params):
        """Waits for a run to end."""
        patiently(lambda: client.get(path, params=params))

    def until_said(path, form, count):
        """Waits until so many more pieces of a run's text can be seen."""
        with client.stream("POST", path, data=form) as response:
            text = ""
            for chunk in response.iter_text():
                text += chunk
                if text.count("event: RunContent") >= count: break

    def cap(group, name, method, path, params=None, form=None, js=None, files=None, headers=None, raw=None, stop_after=None, quiet=False, timeout=60, note=None, client=client):
        kw = {k: v for k, v in dict(params=params, data=form, json=js, files=files, headers=headers, content=raw).items() if v is not None}
        if not kw.get("params"): kw.pop("params", None)
        text, status, head, early = "", -1, {}, False
        try:
            for _ in range(600):
                response = client.send(client.build_request(method, path, **kw), stream=True)
                # A view that is behind says so, and is worth asking again.
                if method != "GET" or "x-daybook-lag" not in response.headers: break
                response.close()
                time.sleep(0.3)
            try:
                for chunk in response.iter_text():
                    text += chunk
                    if stop_after and stop_after(text):
                        early = True
                        break
            finally:
                response.close()
            status = response.status_code
            head = {k: v for k, v in response.headers.items() if k.startswith(KEEP)}
        except httpx.HTTPError as error:
            head = {"exception": repr(error)}
        record, events, body = {"status": status, "headers": head}, None, None
        if "text/event-stream" in head.get("content-type", ""):
            events = parse_sse(text)
            record.update(sse_raw=text, sse_events=[e[0] for e in events], sse_client_closed_early=early)
            body = text
        else:
            try: body = json.loads(text); record["body"] = body
            except ValueError: body = text; record["body_text"] = text
        folder = OUT / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False))
        return status, body, events

    module = types.ModuleType("cap")
    module.__dict__.update(cap=cap, hold=hold, go=go, until_over=until_over, until_said=until_said, C=client, BASE=base, OUT=str(OUT), KEEP=KEEP, parse_sse=parse_sse, json=json, os=os, re=re, threading=threading, time=time, httpx=httpx, itertools=itertools)
    return module


def play(path, base, argument=None):
    """Runs a sequence statement by statement, so that one unanswered call does not end it."""
    module = recorder(base)
    sys.modules["cap"] = module
    space = {"__name__": "sequence", "print": lambda *a, **k: None, "BASE": base}
    argv, sys.argv = sys.argv, [str(path)] + ([argument] if argument else [])
    for node in ast.parse(path.read_text()).body:
        try:
            exec(compile(ast.Module([node], []), str(path), "exec"), space)
        except Exception as error:
            if args.verbose: print(f"     {path.name}:{node.lineno}: {type(error).__name__}: {error}")
    sys.argv = argv


def kind(value):
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else type(value).__name__


def shape(value, at="", found=None):
    found = {} if found is None else found
    found.setdefault(at, set()).add(kind(value))
    if isinstance(value, dict) and not (at and OPAQUE.search(at)):
        for key, inner in value.items():
            shape(inner, f"{at}.{key}" if at else key, found)
    elif isinstance(value, list) and not (at and OPAQUE.search(at)):
        for inner in value:
            shape(inner, at + "[]", found)
    return found


def lacking(recorded, mine):
    want, have, out = shape(recorded), shape(mine), []
    for at, kinds in want.items():
        kinds = kinds - {"NoneType"}
        if not kinds: continue
        parent = at.rsplit(".", 1)[0] if "." in at else ""
        parent = parent.removesuffix("[]") if at.endswith("[]") and "." not in at else parent
        if at not in have:
            if not parent or parent in have or parent.removesuffix("[]") in have: out.append(f"-{at}")
        elif not kinds & have[at] and have[at] != {"NoneType"}:
            out.append(f"{at}:{'|'.join(sorted(have[at]))} not {'|'.join(sorted(kinds))}")
        elif have[at] == {"NoneType"}:
            out.append(f"{at}:null")
    return out


def folded(names):
    return [k for k, _ in itertools.groupby(n for n in names if n != "<comment>")]


def differences(recorded, mine):
    out = []
    if "log" in recorded or "status" not in recorded:  # a WebSocket conversation
        names = lambda log: folded(e["recv"].get("event") for e in log if isinstance(e.get("recv"), dict))
        if "log" in recorded and names(recorded["log"]) != names(mine.get("log", [])):
            out.append(f"conversation {names(mine.get('log', []))} not {names(recorded['log'])}")
        return out
    if recorded["status"] != mine["status"]:
        return [f"status {mine['status']} not {recorded['status']}"]
    media = lambda r: r["headers"].get("content-type", "").split(";")[0]
    if media(recorded) != media(mine):
        out.append(f"media type {media(mine)} not {media(recorded)}")
    if "sse_events" in recorded:
        if recorded.get("sse_client_closed_early"):
            return out
        a, b = folded(recorded["sse_events"]), folded(mine.get("sse_events", []))
        if a != b: out.append(f"frames {' '.join(map(str, b))} not {' '.join(map(str, a))}")
        ours = {}
        for name, body in parse_sse(mine.get("sse_raw", "")): ours.setdefault(name, []).append(body)
        theirs = {}
        for name, body in parse_sse(recorded["sse_raw"]): theirs.setdefault(name, []).append(body)
        for name in theirs:
            if name in ours:
                less = lacking(theirs[name], ours[name])
                if less: out.append(f"{name}: {', '.join(less[:6])}")
    elif "body" in recorded:
        less = lacking(recorded["body"], mine.get("body"))
        if less: out.append(", ".join(less[:8]))
    return out


for number, path in enumerate(sorted((HERE / "sequences").glob("*.py")), 1):
    if path.name.startswith("7_"):
        if args.auth_base:
            for argument in ("auth", "user_isolation"): play(path, args.auth_base, argument)
    else:
        play(path, args.base)

unstable = {l.strip() for l in (HERE / "unstable.txt").read_text().splitlines() if l.strip() and not l.startswith("#")}


def named(file):
    """The 'group/name: reason' lines of a list."""
    lines = pathlib.Path(file).read_text().splitlines() if file else []
    pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, _, reason in pairs}


deviations, later = named(args.deviations), named(args.later)
known = {f"{path.parent.name}/{path.stem}" for path in (HERE / "examples").glob("*/*.json")}

totals, failed, waiting = {}, 0, []
for key in sorted({*deviations, *later} - known) + sorted({*deviations} & {*later}) + sorted(k for k, why in {**deviations, **later}.items() if not why):
    failed += 1
    print("FAIL", key, "listed wrongly: no such exchange, in both lists, or without a reason")
for path in sorted((HERE / "examples").glob("*/*.json")):
    group, name = path.parent.name, path.stem
    if f"{group}/{name}" in unstable or group in LEFT_OUT or (only and group not in only) or (group in AUTH_GROUPS and not args.auth_base) or (name == "auth" and not args.auth_base): continue
    recorded = json.loads(path.read_text())
    mine = OUT / group / path.name
    found = differences(recorded, json.loads(mine.read_text())) if mine.exists() else ["never got that far"]
    key = f"{group}/{name}"
    if key in deviations:
        found = [] if found else ["listed as a deviation, but answers as recorded"]
    elif key in later:
        if found:
            waiting.append(key)
            continue
        found = [f"listed for later ({later[key]}), but answers as recorded: take it off the list"]
    ok, bad = totals.get(group, (0, 0))
    totals[group] = (ok + (not found), bad + bool(found))
    failed += bool(found)
    if found: print("FAIL", key, "; ".join(found)[:400])
for group, (ok, bad) in sorted(totals.items()): print(f"  {group}: {ok} of {ok + bad}")
if waiting: print(f"  later: {len(waiting)} of {len(later)} listed")
print(f"{sum(o for o, _ in totals.values())} passed, {failed} failed")
sys.exit(1 if failed else 0)
