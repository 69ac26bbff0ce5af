#!/usr/bin/env bash
# Holds examples/reference_os.rs against the recorded exchanges, the API's document and its Python client, with the
# scripted model of the recording. Expects the example built, and Python with tests/requirements.txt: .venv or PATH.
# Prints what differs and `N passed, M failed`.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
server=${CARGO_TARGET_DIR:-$root/target}/debug/examples/reference_os
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python || command -v python3)

if [ ! -x "$server" ]; then
  echo "$server is missing: run \`cargo build --examples\` first." >&2
  exit 1
fi

dir=$(mktemp -d)
chmod 755 "$dir" # PostgreSQL may run as another user
pids=()
clean() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null; done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null; done
  rm -rf "$dir"
}
trap clean EXIT

# waits SECONDS COMMAND...: until the command succeeds.
waits() {
  local left=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    sleep 0.1
  done
}
answers() { "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' "$1"; }

"$python" "$here/fake_openai.py" --port 0 >"$dir/model.log" 2>&1 &
pids+=($!)
waits 180 grep -q 'http://' "$dir/model.log"
model=$(grep -o 'http://[^ ]*' "$dir/model.log")

env -u DATABASE_URL -u CALLS_FILE PORT=0 MODEL_URL="$model/v1" DATA_DIR="$dir/data" "$server" >"$dir/ready" 2>"$dir/server.log" &
pids+=($!)
waits 180 answers "$model/v1/models" && waits 180 grep -q 'http://' "$dir/ready"
base=$(grep -o 'http://[^ ]*' "$dir/ready")
if [ -z "$base" ] || ! waits 180 answers "$base/health"; then
  echo "reference_os did not start:" >&2
  cat "$dir/server.log" >&2
  exit 1
fi

passed=0 failed=0
# check NAME COMMAND...: shows its output and adds up its last line, `N passed, M failed`.
check() {
  local name=$1 last
  shift
  echo "--- $name"
  "$@" 2>&1 | tee "$dir/out"
  local code=${PIPESTATUS[0]}
  last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$dir/out" | tail -n 1)
  passed=$((passed + $(expr "${last:-0 passed, 0 failed}" : '\([0-9]*\)')))
  local bad
  bad=$(expr "${last:-0 passed, 0 failed}" : '.* \([0-9]*\) failed')
  # A check that ended badly without saying so has failed too, and so has one that checked nothing.
  if [ "$bad" -eq 0 ] && { [ "$code" -ne 0 ] || [ -z "$last" ] || [ "${last%% *}" -eq 0 ]; }; then bad=1; fi
  failed=$((failed + bad))
}

check "recorded exchanges" "$python" "$here/replay.py" "$base" --model "$model" --groups agent_runs,team_runs,workflow_runs,hitl,approvals,cancel,resume,meta,agents,teams,workflows,databases,websocket \
  --deviations "$here/deviations.txt" --later "$here/later.txt"
check "the API's document" "$python" "$here/check_openapi.py" "$base" --only health,info,config,databases,agents,approvals,teams,workflows
check "the client's configuration" "$python" "$here/client_drive.py" "$base" --only get_config
check "the client's agents" "$python" "$here/client_drive.py" "$base" --only agent
check "the client's teams" "$python" "$here/client_drive.py" "$base" --only team
check "the client's workflows" "$python" "$here/client_drive.py" "$base" --only workflow
check "the client's sessions" "$python" "$here/client_drive.py" "$base" --only create_session

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
