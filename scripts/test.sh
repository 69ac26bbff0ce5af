#!/usr/bin/env bash
# All checks, in the order in which they fail fastest. Expects what `make test` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

step "Formatting"
cargo fmt --all --check

step "Lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "Build"
cargo build --locked --workspace

step "Tests"
cargo test --locked --workspace

if [ -f tests/contract/run.sh ]; then
  step "Contract"
  PATH="$PWD/.venv/bin:$PATH" bash tests/contract/run.sh
fi

step "All checks passed"
