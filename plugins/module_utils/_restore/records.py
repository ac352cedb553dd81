# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documents about workloads that root alone reads on the node: receipts, and evidence of failures.

<state root>/receipts/<name>.json            what the last restore of a workload did
<state root>/debug/<name>-<UTC time>/        what was known when one failed; no memory image

``name`` is the workload's on the node (:func:`_core.state_dir.node_name`).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core import state_dir

RECEIPTS, DEBUG, FAILURE = "receipts", "debug", "failure.json"
#: Logs are copied up to their last bytes; CRIU's may be long, and a process may print a lot.
_COPY_BYTES = 16 << 20


def receipt_path(root: str, namespace: str, container_id: str) -> str:
    """Where the receipt of a workload lies."""
    return os.path.join(root, RECEIPTS, f"{state_dir.node_name(namespace, container_id)}.json")


def read_receipt(root: str, namespace: str, container_id: str) -> dict[str, Any]:
    """The receipt of a workload; {} when there is none that can be read.

    Earlier releases had one for the containers of that name in all namespaces, the last one's.
    """
    for path in (receipt_path(root, namespace, container_id), _earlier_path(root, container_id)):
        found = _read(path)
        if found and _namespace(found) in (namespace, ""):
            return found
    return {}


@dataclass(frozen=True)
class Failure:
    """The evidence of one failed restore."""

    namespace: str
    name: str
    #: What ``write_failure`` wrote; {} when it cannot be read.
    document: dict[str, Any]


def all_receipts(root: str) -> list[dict[str, Any]]:
    """Those of all workloads, in all namespaces; one that cannot be read is none."""
    names = _names(os.path.join(root, RECEIPTS))
    found = (_read(os.path.join(root, RECEIPTS, name)) for name in names if name.endswith(".json"))
    return [receipt for receipt in found if receipt]


def all_failures(root: str) -> list[Failure]:
    """All evidence that is kept, of all workloads, the oldest of each first."""
    found = []
    for bundle in _names(os.path.join(root, DEBUG)):
        match = re.fullmatch(r"(?:(?P<namespace>.+?)--)?(?P<name>.+)-[0-9]{8}T[0-9]{6}Z", bundle)
        if match:
            document = _read(os.path.join(root, DEBUG, bundle, FAILURE))
            found.append(Failure(match["namespace"] or state_dir.PLAIN_NAMESPACE, match["name"], document))
    return found


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _earlier_path(root: str, container_id: str) -> str:
    return os.path.join(root, RECEIPTS, f"{container_id}.json")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _namespace(receipt: Mapping[str, Any]) -> str:
    container = receipt.get("container")
    return str(container.get("namespace", "")) if isinstance(container, dict) else ""


def write_receipt(root: str, namespace: str, container_id: str, receipt: Mapping[str, Any]) -> None:
    """Write the receipt; a run that is killed leaves the old one or the new one. Raises OSError."""
    path = receipt_path(root, namespace, container_id)
    state_dir.make_private(os.path.dirname(path), root)
    partial = f"{path}.{os.getpid()}"
    try:
        _write(partial, receipt)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    earlier = _earlier_path(root, container_id)
    if earlier != path and _namespace(_read(earlier)) == namespace:
        os.unlink(earlier)


def keep_evidence(root: str, name: str, keep: int, directory: str, outputs: Sequence[str]) -> str:
    """Begin a bundle of the workload with that name on the node: CRIU's log and configuration out of ``directory``, and
    the ends of ``outputs``.

    Only the last ``keep`` (at least 1) bundles of the workload stay. Returns the bundle's path. Raises OSError.
    """
    debug = os.path.join(root, DEBUG)
    state_dir.make_private(debug, root)
    bundle = _new_bundle(debug, name)
    for source in [*_files(directory), *outputs]:
        with contextlib.suppress(FileNotFoundError):
            _copy_end(source, _free(bundle, os.path.basename(source)))
    ours = re.compile(re.escape(name) + r"-[0-9]{8}T[0-9]{6}Z\Z")
    for old in sorted(entry for entry in os.listdir(debug) if ours.match(entry))[:-keep]:
        shutil.rmtree(os.path.join(debug, old))
    return bundle


def write_failure(bundle: str, document: Mapping[str, Any]) -> None:
    """Write, or write anew, what failed. Raises OSError."""
    _write(os.path.join(bundle, FAILURE), document)


def _new_bundle(debug: str, name: str) -> str:
    """A directory of its own; where two attempts fail within one second, the later one has the next second's name."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    while True:
        bundle = os.path.join(debug, f"{name}-{moment:%Y%m%dT%H%M%SZ}")
        try:
            os.mkdir(bundle, 0o700)
        except FileExistsError:
            moment += datetime.timedelta(seconds=1)
        else:
            return bundle


def _free(bundle: str, name: str) -> str:
    """A path in the bundle that nothing has yet: outputs may be called like each other, or like our own files."""
    path, number = os.path.join(bundle, name), 1
    while os.path.basename(path) == FAILURE or os.path.lexists(path):
        number += 1
        path = os.path.join(bundle, f"{name}.{number}")
    return path


def _files(directory: str) -> list[str]:
    try:
        return sorted(entry.path for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _write(path: str, document: Mapping[str, Any]) -> None:
    with open(_new(path), "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2, sort_keys=True, default=str)
        stream.write("\n")


def _copy_end(source: str, target: str) -> None:
    with open(source, "rb") as stream, open(_new(target), "wb") as copy:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _COPY_BYTES))
        shutil.copyfileobj(stream, copy)


def _new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
