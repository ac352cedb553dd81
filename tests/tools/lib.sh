# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by the other tools: where things are, which Pythons there are, and how a tool speaks.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${GPUOPS_CACHE:-$HOME/.cache/gpuops-restore}
BUILD=$ROOT/build
COLLECTIONS=$BUILD/collections
CONTROLLER_PYTHONS="3.11 3.12 3.13"
# shellcheck disable=SC2034 # for those who source this
NODE_PYTHONS="3.9 3.10"
export GPUOPS_CACHE=$CACHE

# Whatever a tool keeps goes to the cache, so that nothing of ours lies about in the user's home.
export PIP_CACHE_DIR=$CACHE/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export XDG_CACHE_HOME=$CACHE/xdg ANSIBLE_HOME=$CACHE/ansible
export PYTHONNOUSERSITE=1
# Bytecode is kept beside the sources, where git ignores it and make clean finds it: thousands of tests are compiled once.
unset PYTHONDONTWRITEBYTECODE
# An installed copy of the collection elsewhere would shadow this tree.
export ANSIBLE_COLLECTIONS_PATH=$COLLECTIONS

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

need_root() { # need_root WHAT
    [ "$(id -u)" = 0 ] && return 0
    die "$1 starts nodes with their own namespaces on this machine and needs root; run it as root (lint, units, sanity and install-check do not need it)."
}

# What starts nodes calls this first: a fresh machine lacks what the lab is made with.
need_lab() { # need_lab WHAT
    need_root "$1"
    mkdir -p "$CACHE"
    flock "$CACHE/prerequisites.lock" "$ROOT/tests/lab/prerequisites.sh" >&2 ||
        die "what the test nodes need could not be installed; apt-get's output is above."
}

# The path of Python $1 (such as 3.11), or nothing. A shim that only dispatches to other versions does not count.
find_python() {
    local bin prefix
    for bin in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3 /usr/local/bin/"python$1" /usr/bin/"python$1"; do
        [ -x "$bin" ] || continue
        prefix=$("$bin" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ "$prefix" = "$1" ] && printf '%s\n' "$bin" && return 0
    done
    return 0
}

# Those of the given versions that this machine has; the others are named on stderr.
present_pythons() {
    local version
    for version in "$@"; do
        if [ -n "$(find_python "$version")" ]; then
            printf '%s\n' "$version"
        else
            printf 'not tested here: Python %s (no interpreter)\n' "$version" >&2
        fi
    done
}

# The newest Python here that runs a supported ansible-core.
main_python() {
    local version found=
    for version in $CONTROLLER_PYTHONS; do
        [ -z "$(find_python "$version")" ] || found=$version
    done
    [ -n "$found" ] || die "none of Python $CONTROLLER_PYTHONS is here; install one of them."
    printf '%s\n' "$found"
}

# build/collections/ansible_collections/gpuops/restore -> this tree, so that imports and playbooks see the sources.
link_collection() {
    mkdir -p "$COLLECTIONS/ansible_collections/gpuops"
    ln -sfn "$ROOT" "$COLLECTIONS/ansible_collections/gpuops/restore"
}

# Puts the environment $1 for Python $2 on PATH, making it first where needed.
use_venv() {
    local venv
    venv=$("$ROOT/tests/tools/bootstrap" "$1" "$2")
    export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
    hash -r
}

# Copies what git tracks, and what it does not ignore, to $1: a tree without links, build outputs and caches.
copy_tree() {
    rm -rf "$1"
    mkdir -p "$1"
    # Files that are deleted but not yet committed are still listed: keep only what exists.
    (cd "$ROOT" && git ls-files -z --cached --others --exclude-standard --deduplicate |
        while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
        tar -c --null --files-from=- | tar -x -C "$1")
    # Tools that ask git for the files would otherwise find this repository, which ignores the place of the copy.
    git -C "$1" init --quiet
}
