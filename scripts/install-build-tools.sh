#!/usr/bin/env bash
# Installs what building and testing need beside the Rust toolchain, where it is missing: a C compiler, make,
# Python with venv, Node with npm; and the toolchain's formatter and linter.
set -euo pipefail
. "$(dirname "$0")/packages.sh"

have() { command -v "$1" >/dev/null 2>&1; }

if ! have cargo; then
  echo "No Rust toolchain here: install it from https://rustup.rs and try again." >&2
  exit 1
fi

have_venv() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

packages=()
manager=$(package_manager || true)
if ! have cc || ! have make; then
  case "$manager" in
    apt) packages+=(gcc libc6-dev make) ;;
    apk) packages+=(gcc musl-dev make) ;;
    pacman) packages+=(gcc make) ;;
    brew) echo "Run \`xcode-select --install\` for the C compiler, and try again." >&2 && exit 1 ;;
    *) packages+=(gcc glibc-devel make) ;;
  esac
fi
if ! have_venv; then
  case "$manager" in
    apt) packages+=(python3 python3-venv) ;;
    apk) packages+=(python3 py3-pip) ;;
    pacman) packages+=(python) ;;
    *) packages+=(python3) ;;
  esac
fi
if ! have node || ! have npm; then
  case "$manager" in
    brew) packages+=(node) ;;
    *) packages+=(nodejs npm) ;;
  esac
fi

if [ ${#packages[@]} -gt 0 ]; then
  if [ -z "$manager" ]; then
    echo "No known package manager here: install ${packages[*]} and try again." >&2
    exit 1
  fi
  install_packages "${packages[@]}"
fi

for component in rustfmt clippy; do
  if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
    step "Adding $component to the Rust toolchain"
    rustup component add "$component"
  fi
done
