from cap import *
g="team_runs"
def T(name, tid="my-team", **k): return cap(g,name,"POST",f"/teams/{tid}/runs",**k)
s,b,_=T("create_nonstream",form={"message":"Hello","stream":"false","session_id":"t1","user_id":"alice"}); rid=b["run_id"]
T("create_stream",form={"message":"Hello","session_id":"t1","user_id":"alice"})
T("delegate_nonstream",form={"message":"delegate writer task say something","stream":"false","session_id":"t2"})
T("delegate_stream",form={"message":"delegate writer task say something","stream":"true","session_id":"t2"})
T("delegate_tool_stream",form={"message":"delegate researcher task call get_weather","stream":"true","session_id":"t2"})
T("delegate_unknown_member",form={"message":"delegate nobody task x","stream":"true","session_id":"t2"})
T("model_error_stream",form={"message":"boom500","stream":"true"}); T("model_error_nonstream",form={"message":"boom500","stream":"false"})
T("err_unknown_team",tid="zzz",form={"message":"x"}); T("err_no_message",form={"stream":"false"})
T("file_text",form={"message":"Hello","stream":"false"},files=[("files",("a.txt",b"hello text","text/plain"))]); T("err_unsupported_file",form={"message":"Hello","stream":"false"},files=[("files",("a.exe",b"MZ","application/x-msdownload"))])
cap(g,"get_run","GET",f"/teams/my-team/runs/{rid}",params={"session_id":"t1"}); cap(g,"get_run_404","GET","/teams/my-team/runs/nope",params={"session_id":"t1"}); cap(g,"list_runs","GET","/teams/my-team/runs",params={"session_id":"t2"})
s,b,_=T("bg_nonstream",form={"message":"Hello","stream":"false","background":"true","session_id":"t3"}); until_over(f"/teams/my-team/runs/{b['run_id']}",{"session_id":"t3"}); cap(g,"bg_nonstream_after","GET",f"/teams/my-team/runs/{b['run_id']}",params={"session_id":"t3"})
s,b,e=T("bg_stream",form={"message":"delegate writer task say something","stream":"true","background":"true","session_id":"t4"}); rid=next(d["run_id"] for n,d in e if isinstance(d,dict) and n=="TeamRunStarted")
cap(g,"resume_completed","POST",f"/teams/my-team/runs/{rid}/resume",form={"session_id":"t4","last_event_index":"2"})
cap(g,"cancel_unknown","POST","/teams/my-team/runs/nope/cancel"); cap(g,"continue_unknown","POST","/teams/my-team/runs/nope/continue",form={"session_id":"t4","stream":"false"})
cap(g,"continue_completed","POST",f"/teams/my-team/runs/{rid}/continue",form={"session_id":"t4","stream":"false","input":"more"})
cap(g,"checkpoints","GET",f"/teams/my-team/runs/{rid}/checkpoints",params={"session_id":"t4"}); cap(g,"fork","POST","/teams/my-team/sessions/t4/fork")
# team HITL: leader tool, member tool
s,b,e=T("hitl_leader_pause",tid="hitl-team",form={"message":'call delete_file {"path":"/a"}',"stream":"true","session_id":"th1"})
p=[d for n,d in e if n=="TeamRunPaused"]
if p:
    p=p[0]; req=p.get("requirements"); 
    if req:
        for r in req: r["confirmation"]=True; r["tool_execution"]["confirmed"]=True
    cap(g,"hitl_leader_continue_requirements","POST",f"/teams/hitl-team/runs/{p['run_id']}/continue",form={"session_id":"th1","stream":"true","requirements":json.dumps(req)})
s,b,e=T("hitl_leader_pause2",tid="hitl-team",form={"message":'call delete_file {"path":"/a"}',"stream":"true","session_id":"th1b"})
p=[d for n,d in e if n=="TeamRunPaused"]
if p: cap(g,"hitl_leader_continue_tools","POST",f"/teams/hitl-team/runs/{p[0]['run_id']}/continue",form={"session_id":"th1b","stream":"false","tools":json.dumps([dict(t,confirmed=True) for t in (p[0].get('tools') or [])])})
s,b,e=T("hitl_member_pause",tid="hitl-team",form={"message":'delegate confirm-member task call delete_file {"path":"/b"}',"stream":"true","session_id":"th2"})
p=[d for n,d in e if n=="TeamRunPaused"]
if p:
    p=p[0]; req=p.get("requirements")
    for r in req or []: r["confirmation"]=True; r["tool_execution"]["confirmed"]=True
    cap(g,"hitl_member_continue","POST",f"/teams/hitl-team/runs/{p['run_id']}/continue",form={"session_id":"th2","stream":"true","requirements":json.dumps(req)})
s,b,e=T("hitl_member_pause_nonstream",tid="hitl-team",form={"message":'delegate confirm-member task call delete_file {"path":"/b"}',"stream":"false","session_id":"th3"})
req=b.get("requirements") or []
for r in req: r["confirmation"]=False; r["confirmation_note"]="no"; r["tool_execution"]["confirmed"]=False
cap(g,"hitl_member_reject_nonstream","POST",f"/teams/hitl-team/runs/{b['run_id']}/continue",form={"session_id":"th3","stream":"false","requirements":json.dumps(req)})
cap(g,"continue_bad_requirements","POST",f"/teams/hitl-team/runs/{b['run_id']}/continue",form={"session_id":"th3","stream":"false","requirements":"{nope"})
# workflows
g="workflow_runs"
def W(name, wid="my-workflow", **k): return cap(g,name,"POST",f"/workflows/{wid}/runs",**k)
s,b,_=W("create_nonstream",form={"message":"Hello","stream":"false","session_id":"w1","user_id":"alice"}); rid=b["run_id"]
W("create_stream",form={"message":"Hello","stream":"true","session_id":"w1","user_id":"alice"})
W("create_stream_default",form={"message":"Hello"})
W("full_nonstream",wid="full-workflow",form={"message":"Hello","stream":"false","session_id":"w2"})
W("full_stream",wid="full-workflow",form={"message":"Hello","stream":"true","session_id":"w2"})
W("full_stream_skip",wid="full-workflow",form={"message":"skip","stream":"true","session_id":"w2"})
W("fail_stream",wid="fail-workflow",form={"message":"x","stream":"true"}); W("fail_nonstream",wid="fail-workflow",form={"message":"x","stream":"false"})
W("err_unknown",wid="zzz",form={"message":"x"}); W("err_no_message",form={"stream":"false"}); W("err_json_body",js={"message":"x"}); W("multipart",files=[("message",(None,b"Hello")),("stream",(None,b"false"))])
cap(g,"get_run","GET",f"/workflows/my-workflow/runs/{rid}",params={"session_id":"w1"}); cap(g,"get_run_404","GET","/workflows/my-workflow/runs/nope",params={"session_id":"w1"}); cap(g,"list_runs","GET","/workflows/my-workflow/runs",params={"session_id":"w1"})
cap(g,"continue_completed","POST",f"/workflows/my-workflow/runs/{rid}/continue",form={"session_id":"w1","stream":"false"}); cap(g,"continue_unknown","POST","/workflows/my-workflow/runs/nope/continue",form={"session_id":"w1","stream":"false"})
cap(g,"cancel_unknown","POST","/workflows/my-workflow/runs/nope/cancel")
s,b,_=W("bg_nonstream",form={"message":"Hello","stream":"false","background":"true","session_id":"w3"}); until_over(f"/workflows/my-workflow/runs/{b['run_id']}",{"session_id":"w3"}); cap(g,"bg_nonstream_after","GET",f"/workflows/my-workflow/runs/{b['run_id']}",params={"session_id":"w3"})
s,b,e=W("bg_stream",form={"message":"Hello","stream":"true","background":"true","session_id":"w4"}); rid=next(d["run_id"] for n,d in e if isinstance(d,dict) and n=="WorkflowStarted")
cap(g,"resume_completed","POST",f"/workflows/my-workflow/runs/{rid}/resume",form={"session_id":"w4","last_event_index":"2"})
# hitl workflow
s,b,e=W("hitl_pause_confirm",wid="hitl-workflow",form={"message":"Hello","stream":"true","session_id":"wh1"})
run=cap(g,"hitl_paused_get","GET",f"/workflows/hitl-workflow/runs/{e[0][1]['run_id']}",params={"session_id":"wh1"})[1]
req=run.get("step_requirements") or []
for r in req: r["confirmed"]=True
s,b,e2=cap(g,"hitl_continue_confirm","POST",f"/workflows/hitl-workflow/runs/{run['run_id']}/continue",form={"session_id":"wh1","stream":"true","step_requirements":json.dumps(req)})
run=cap(g,"hitl_paused_get2","GET",f"/workflows/hitl-workflow/runs/{run['run_id']}",params={"session_id":"wh1"},quiet=True)[1]
req=run.get("step_requirements") or []
for r in req:
    if r.get("requires_user_input"):
        r["user_input"]={"environment":"staging"}
        for f in r.get("user_input_schema") or []: f["value"]="staging"
s,b,e2=cap(g,"hitl_continue_input","POST",f"/workflows/hitl-workflow/runs/{run['run_id']}/continue",form={"session_id":"wh1","stream":"true","step_requirements":json.dumps(req)})
s,b,e=W("hitl_pause_nonstream",wid="hitl-workflow",form={"message":"Hello","stream":"false","session_id":"wh2"})
req=b.get("step_requirements") or []
for r in req: r["confirmed"]=False
cap(g,"hitl_reject_nonstream","POST",f"/workflows/hitl-workflow/runs/{b['run_id']}/continue",form={"session_id":"wh2","stream":"false","step_requirements":json.dumps(req)})
cap(g,"hitl_bad_json","POST",f"/workflows/hitl-workflow/runs/{b['run_id']}/continue",form={"session_id":"wh2","stream":"false","step_requirements":"{nope"})
# cancel slow workflow and team/agents by run_id from the stream
def cancel_stream(name,kind,cid,form,cond,grp="cancel"):
    rid_box={}
    def watch(t):
        if "rid" not in rid_box and cond(t):
            e=parse_sse(t[:t.rfind("\n\n")]); rid_box["rid"]=e[0][1]["run_id"]
            threading.Thread(target=lambda: httpx.post(BASE+f"/{kind}/{cid}/runs/{rid_box['rid']}/cancel",trust_env=False)).start()
        return False
    r=cap(grp,name,"POST",f"/{kind}/{cid}/runs",form=form,stop_after=watch)
    until_over(f"/{kind}/{cid}/runs/{rid_box['rid']}",{"session_id":form["session_id"]}); cap(grp,name+"_after","GET",f"/{kind}/{cid}/runs/{rid_box['rid']}",params={"session_id":form["session_id"]})
hold(4)
cancel_stream("agent_plain_stream","agents","my-agent",{"message":"slow 12","stream":"true","session_id":"cx1"},lambda t:t.count("event: RunContent")>=4)
cancel_stream("team_plain_stream","teams","my-team",{"message":"slow 12","stream":"true","session_id":"cx2"},lambda t:t.count("event: TeamRunContent")>=4)
go()
cancel_stream("workflow_plain_stream","workflows","slow-workflow",{"message":"x","stream":"true","session_id":"cx3"},lambda t:"event: StepStarted" in t)
cancel_stream("workflow_bg_stream","workflows","slow-workflow",{"message":"x","stream":"true","background":"true","session_id":"cx4"},lambda t:"event: StepStarted" in t)
