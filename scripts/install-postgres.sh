#!/usr/bin/env bash
# Installs PostgreSQL's server programs where there are none. Daybook runs its own private server with them;
# no system service is set up or started.
set -euo pipefail
. "$(dirname "$0")/packages.sh"

OLDEST=14

# The places Daybook itself looks in (store/src/embedded/binaries.rs). An empty glob stays a pattern, and is no file.
bin_dirs() {
  local program
  program=$(command -v postgres 2>/dev/null || true)
  if [ -n "$program" ]; then dirname "$(readlink -f "$program" 2>/dev/null || echo "$program")"; fi
  pg_config --bindir 2>/dev/null || true
  printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/lib/postgresql*/bin /usr/libexec/postgresql* \
    /usr/local/pgsql*/bin /usr/local/opt/postgresql*/bin /opt/homebrew/opt/postgresql*/bin \
    /home/linuxbrew/.linuxbrew/opt/postgresql*/bin /opt/local/lib/postgresql*/bin /opt/postgresql*/bin \
    /Library/PostgreSQL/*/bin /Applications/Postgres.app/Contents/Versions/*/bin
}

# Prints the first installation that is new enough.
installed() {
  local dir major
  while read -r dir; do
    if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
      major=$("$dir/postgres" --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
      if [ "${major:-0}" -ge "$OLDEST" ]; then
        echo "$dir"
        return
      fi
    fi
  done < <(bin_dirs)
  return 1
}

# Debian's package creates and starts a cluster for the whole system, which nobody asked for here.
install_on_debian() {
  local conf=/etc/postgresql-common/createcluster.conf
  if [ ! -e "$conf" ]; then
    install_packages postgresql-common
    as_root sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' "$conf"
  fi
  install_packages postgresql
}

if dir=$(installed); then
  echo "PostgreSQL is here: $dir"
  exit 0
fi

case "$(package_manager || true)" in
  apt) install_on_debian ;;
  dnf | yum | zypper) install_packages postgresql-server ;;
  apk | pacman) install_packages postgresql ;;
  brew) install_packages postgresql@17 ;;
  *)
    echo "No known package manager here: install PostgreSQL $OLDEST or newer (initdb and postgres) and try again." >&2
    exit 1
    ;;
esac

if ! dir=$(installed); then
  echo "The packages are installed, but no PostgreSQL $OLDEST or newer was found; install one by hand and try again." >&2
  exit 1
fi
echo "PostgreSQL is here: $dir"
