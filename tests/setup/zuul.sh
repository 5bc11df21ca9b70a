#!/bin/sh
# zuul-registry, a registry of another make (Python) that the tests push to: zuul.sh PYTHON DIRECTORY makes a virtual environment
# of its own for it. Without what it needs for objects in OpenStack and at Amazon, it comes in a quarter of the time, and starts in
# half; tests/setup/zuul_server.py starts it so. One package (sha256) is compiled: gcc and Python's headers.
set -eu
sh "$(dirname "$0")/venv.sh" "$1" "$2" cherrypy pyjwt pyyaml routes sha256
[ -x "$2/bin/zuul-registry" ] || "$2/bin/pip" install -q --disable-pip-version-check --no-deps 'zuul-registry==1.3.0'
