#!/usr/bin/env bash
# Puts the MCP server from npm that tests call into target/mcp-servers; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

wanted=tools/tests/npm/package-lock.json
place=target/mcp-servers
done_mark=$place/installed.json

if cmp -s "$wanted" "$done_mark" && [ -d "$place/node_modules" ]; then
  exit 0
fi

step "Installing MCP servers from $wanted"
mkdir -p "$place"
cp tools/tests/npm/package.json "$wanted" tools/tests/npm/.npmrc "$place"
(cd "$place" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
cp "$wanted" "$done_mark"
