# Sourced by the other scripts: steps that are printed, and packages by whatever package manager is here.

step() { printf '\n==> %s\n' "$*"; }

# package_manager: prints apt, dnf, yum, zypper, apk, pacman or brew; fails where there is none.
package_manager() {
  local name
  for name in apt-get dnf yum zypper apk pacman brew; do
    if command -v "$name" >/dev/null 2>&1; then
      echo "${name%-get}"
      return
    fi
  done
  return 1
}

# as_root COMMAND...: runs it as root, by sudo when need be; says what to run where that is not possible.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    echo "This needs root, and there is no sudo here. Run as root: $*" >&2
    return 1
  fi
}

# install_packages PACKAGE...: with the names of this package manager.
install_packages() {
  step "Installing $*"
  case "$(package_manager)" in
    apt)
      if [ -z "${PACKAGES_UPDATED:-}" ]; then
        as_root apt-get update -qq
        PACKAGES_UPDATED=1
      fi
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
      ;;
    dnf) as_root dnf install -y -q "$@" ;;
    yum) as_root yum install -y -q "$@" ;;
    zypper) as_root zypper --non-interactive --quiet install "$@" ;;
    apk) as_root apk add --quiet "$@" ;;
    pacman) as_root pacman -Sy --noconfirm --needed --quiet "$@" ;;
    brew) brew install --quiet "$@" ;; # refuses to run as root
  esac
}
