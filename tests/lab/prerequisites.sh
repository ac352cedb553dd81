#!/bin/sh
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what the lab needs on a Debian host; calls apt-get only when something is missing.
set -eu

missing=
want() { # want COMMAND-OR-FILE PACKAGE
    case $1 in
        /*) [ -e "$1" ] || missing="$missing $2" ;;
        *) command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
    esac
}
want mmdebstrap mmdebstrap
want apt-get apt
want dpkg-deb dpkg
want /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
want ssh openssh-client
want nsenter util-linux
want mount mount
want gcc gcc
want /usr/include/stdio.h libc6-dev
want python3 python3

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "lab: root is needed to install:$missing" >&2
    exit 1
fi
echo "lab: installing$missing" >&2
# What apt-get says is worth reading only where it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of package names
{
    apt-get -o DPkg::Lock::Timeout=300 update &&
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $missing
} >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
