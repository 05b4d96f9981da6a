# Sourced by the other scripts: where the project is, and how to say what is missing.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

# need COMMAND PACKAGE: installs a Debian package when root and it is missing, or says how to.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "$1 is missing: installing $2"
    if apt-get install -y -q "$2" >/dev/null 2>&1 ||
      { apt-get update -q && apt-get install -y -q "$2"; } >/dev/null 2>&1; then
      command -v "$1" >/dev/null && return
    fi
  fi
  echo "$1 is missing: install it (Debian: apt-get install $2) and run this again" >&2
  exit 1
}

need_rust() {
  if ! command -v cargo >/dev/null; then
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    command -v cargo >/dev/null || {
      echo "cargo is missing: install Rust with rustup and run this again" >&2
      exit 1
    }
  fi
  need cc gcc
}
