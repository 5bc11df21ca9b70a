#!/bin/sh
# The Debian packages that the tests use: real runtimes, registries and consumers. Needs root; else says what is missing.
set -eu
packages="buildah busybox-static containerd crun docker-registry docker.io gcc gcc-aarch64-linux-gnu git libc6-dev libc6-dev-arm64-cross mmdebstrap openssh-client openssl passt podman python3-dev python3-venv qemu-user-static runc skopeo slirp4netns uidmap umoci"
missing=
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing$missing"
  apt-get -qq update
  # Services stay off: the tests start what they need, in directories of their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
else
  echo "not installed, and only root may:$missing" >&2
  echo "tests that need them will say so and be left out" >&2
fi
