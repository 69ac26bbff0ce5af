#!/usr/bin/env bash
# Makes .venv with the Python clients the contract tests drive Daybook with; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

wanted=tests/requirements.txt
done_mark=.venv/requirements.txt

if cmp -s "$wanted" "$done_mark" && .venv/bin/python -c '' 2>/dev/null; then
  exit 0
fi

step "Making .venv from $wanted"
python3 -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
.venv/bin/python -c 'from agno.client import AgentOSClient'
cp "$wanted" "$done_mark"
