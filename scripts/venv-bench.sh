#!/usr/bin/env bash
# Makes .venv-bench with the agno that Daybook is measured beside; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

wanted=bench/requirements.txt
done_mark=.venv-bench/requirements.txt

if cmp -s "$wanted" "$done_mark" && .venv-bench/bin/python -c '' 2>/dev/null; then
  exit 0
fi

step "Making .venv-bench from $wanted"
python3 -m venv --clear .venv-bench
.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
.venv-bench/bin/python -c 'import uvicorn; from agno.os import AgentOS'
cp "$wanted" "$done_mark"
