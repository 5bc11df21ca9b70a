#!/bin/sh
# Unpack a Debian package of another architecture: foreign.sh ARCHITECTURE PACKAGE DIRECTORY. Needs no root, and leaves the
# machine's own dpkg and apt as they are: lists and cache are in the directory, for as long as it takes.
set -eu
architecture=$1 package=$2 directory=$3
mkdir -p "$directory/apt/lists/partial" "$directory/apt/cache/archives/partial"
cd "$directory"
own="-qq -o APT::Architecture=$architecture -o APT::Architectures::=$architecture -o Dir::State::lists=$PWD/apt/lists"
own="$own -o Dir::Cache=$PWD/apt/cache -o Dir::State::status=/dev/null -o APT::Sandbox::User="
# shellcheck disable=SC2086
apt-get $own update
# shellcheck disable=SC2086
apt-get $own download "$package:$architecture"
dpkg-deb -x "$package"_*.deb .
rm -rf apt "$package"_*.deb
