#!/bin/sh
# Make a virtual environment and install shiplap into it: venv.sh PYTHON DIRECTORY WHAT...
set -eu
python=$1 directory=$2
shift 2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "shiplap needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2
  exit 1
}
if [ ! -x "$directory/bin/pip" ]; then
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    # Debian and Ubuntu keep venv's other half in a package of its own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
    else
      echo "Python's venv is missing. As root: apt-get install python3-venv" >&2
      exit 1
    fi
  fi
  rm -rf "$directory"
  "$python" -m venv "$directory"
fi
# A stamp spares pip's seconds when nothing changed.
stamp="$directory/.installed"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || { [ "$*" = . ] && [ -n "$(find src -newer "$stamp" -name '*.py' | head -n 1)" ]; }; then
  # shellcheck disable=SC2068  the words of $* are pip's arguments
  "$directory/bin/pip" install -q --disable-pip-version-check $@
  touch "$stamp"
fi
