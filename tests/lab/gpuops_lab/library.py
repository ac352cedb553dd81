# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests run by a node's Python, compiled once for all nodes of these sources, and kept in the cache.

A node would compile the same files for two seconds of a processor, and a run of all tests starts some seventy.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping

from gpuops_lab import node as lab_node, root
from gpuops_lab.config import Node, cache_dir

#: A generation of containerd, of which Python is no part.
USUAL = "1.7"
_PREFIX = "library-"
#: What was not used for so long belongs to sources that have changed since.
_KEPT_SECONDS = 24 * 3600.0
#: Layers of a node that decide which Python it has.
_PYTHON = ("root-", "python3-")
_SKIPPED = ("__pycache__", "*.pyc")


def layers(place: str, parts: Mapping[str, pathlib.Path]) -> tuple[str, ...]:
    """For a node that comes up now: the layer that has these parts below ``place``, if they were compiled before.

    Parts are files and folders by their paths there.
    """
    target = _kept(place, root.lower_directories(USUAL), parts)
    if not target.is_dir():
        return ()
    target.touch()
    return (str(target),)


def install(node: Node, place: str, python: str, parts: Mapping[str, pathlib.Path]) -> None:
    """The same in a node that runs, for which they are compiled where nobody has done so; nothing if it has the layer.

    Raises LabError when something does not compile.
    """
    if any(pathlib.Path(layer).name.startswith(_PREFIX) for layer in node.lower):
        return
    target = _kept(place, node.lower, parts)
    with root.cache_lock("library"):
        if not target.is_dir():
            _copy(parts, node.inside(place))
            # Sources here are as they are for as long as the node lives: nobody has to look.
            options = ("-q", "--invalidation-mode", "unchecked-hash")
            lab_node.output(node, [python, "-m", "compileall", *options, place])
            _keep(node.inside(place), target, place)
            return
        target.touch()
    node.inside(place).mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{target}{place}/.", str(node.inside(place))], check=True)


def digest(place: str, lower: Iterable[str], parts: Mapping[str, pathlib.Path]) -> str:
    """By which they are known again: where each file goes, what is in it, and the layers that Python comes from."""
    found = hashlib.sha256(f"{place}\n".encode())
    for layer in lower:
        name = pathlib.Path(layer).name
        if name.startswith(_PYTHON):
            found.update(f"{name}\n".encode())
    for path, source in sorted(parts.items()):
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and "__pycache__" not in file.parts:
                content = file.read_bytes()
                found.update(f"{path}/{file.relative_to(source)} {len(content)}\n".encode() + content)
    return found.hexdigest()[:12]


def _kept(place: str, lower: Iterable[str], parts: Mapping[str, pathlib.Path]) -> pathlib.Path:
    return cache_dir() / f"{_PREFIX}{digest(place, lower, parts)}"


def _copy(parts: Mapping[str, pathlib.Path], target: pathlib.Path) -> None:
    for path, source in parts.items():
        place = target / path
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns(*_SKIPPED), dirs_exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def _keep(library: pathlib.Path, target: pathlib.Path, place: str) -> None:
    """It is whole or absent; those of earlier sources go."""
    for other in cache_dir().glob(f"{_PREFIX}*"):
        if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(other)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    copy = temporary / place.strip("/")
    copy.parent.mkdir(parents=True, mode=0o755)
    temporary.chmod(0o755)
    subprocess.run(["cp", "-a", str(library), str(copy)], check=True)
    temporary.touch()
    temporary.rename(target)
