#!/bin/sh
# debian.sh DIRECTORY PACKAGE...: a minimal Debian with apt, from where this machine's apt gets its own packages, as
# DIRECTORY/root.tar. In it, as /debs, lies a repository with the packages and all they need, and it is the only one it
# knows: installing them takes no network. Needs root and a Debian.
set -eu
directory=$1
shift
. /etc/os-release
mirrors=
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
  if [ -s "$file" ]; then mirrors="$mirrors $file"; fi
done
hook="$directory/hook"
cat >"$hook" <<END
#!/bin/sh
set -eu
APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends --download-only install $*
mkdir "\$1/debs"
mv "\$1"/var/cache/apt/archives/*.deb "\$1/debs/"
cd "\$1/debs"
for deb in *.deb; do
  dpkg-deb -f "\$deb"
  echo "Filename: ./\$deb"
  echo "Size: \$(stat -c %s "\$deb")"
  echo "SHA256: \$(sha256sum <"\$deb" | cut -d ' ' -f 1)"
  echo
done >Packages
rm -f "\$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/debs ./' >"\$1/etc/apt/sources.list"
END
chmod +x "$hook"
# shellcheck disable=SC2086
mmdebstrap --quiet --mode=root --variant=apt \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --customize-hook="$hook" "$VERSION_CODENAME" "$directory/root.tar" $mirrors
