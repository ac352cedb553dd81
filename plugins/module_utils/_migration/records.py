# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration notes on its source before it touches a workload, so that a later run can settle it.

<state root>/migrations/<containerd namespace>/<container>.<id>.json

Written by the playbook, one for each workload. It outlives the boot: what the migration has put on other machines does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .._core import strict_json, text

MIGRATIONS = "migrations"
#: Begins the names of all directories with archives of a migration; its id follows.
PLACE_PREFIX = "gpuops-migrate-"

#: Nothing has left the source yet, or nobody noted it.
BEGUN = "begun"
#: The checkpoint is whole, and its digest is noted; from here on the target may have a copy.
CAPTURED = "captured"
#: The target took over, and the source was ended.
MOVED = "moved"
#: The source goes on, and the target has no copy; only what was left elsewhere has to go.
RETURNED = "returned"
STATES = (BEGUN, CAPTURED, MOVED, RETURNED)

_ID = re.compile(r"[a-z0-9]{8,40}\Z")
_NAME = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*\Z")
#: Bytes of a record.
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Record:
    """One workload of one migration; the fields are the file's keys."""

    #: Of the migration; it is in all names that the migration has made.
    id: str
    #: Hosts, as the inventory calls them.
    source: str
    target: str
    #: The container on the source, and on the target.
    source_name: str
    name: str
    #: Reference of the checkpoint image in containerd.
    checkpoint: str
    #: Of the checkpoint image; empty before the capture.
    digest: str = ""
    state: str = BEGUN
    #: Where directories for archives were made: on the nodes, or on what both see. Empty for the registry's route.
    directory: str = ""
    #: What the checkpoint was pushed to; empty for the other routes.
    reference: str = ""
    #: The run that has written it, see :mod:`_migration.controller`.
    controller: str = ""

    @property
    def place(self) -> str:
        """The directory with this migration's archives; empty where there are none."""
        return os.path.join(self.directory, PLACE_PREFIX + self.id) if self.directory else ""

    @property
    def file_name(self) -> str:
        """The record's own file name."""
        return f"{self.source_name}.{self.id}.json"

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return asdict(self)


def parse(document: Mapping[str, Any]) -> Record:
    """A record out of its document. Raises ValueError."""
    known = {field.name for field in fields(Record)}
    wrong = sorted(str(key) for key in document if key not in known)
    wrong += sorted(key for key in known if not isinstance(document.get(key, ""), str))
    if wrong:
        raise ValueError(f"these keys are unknown or no text: {', '.join(wrong)}")
    try:
        found = Record(**document)
    except TypeError as error:
        raise ValueError("a key is missing") from error
    if not _ID.match(found.id):
        raise ValueError("its id is not one that a migration gives")
    if not _NAME.match(found.source_name) or not _NAME.match(found.name):
        raise ValueError("a name in it is none that containerd takes")
    if found.state not in STATES:
        raise ValueError(f"its state is none of {', '.join(STATES)}")
    if found.directory and not os.path.isabs(found.directory):
        raise ValueError("its directory is not an absolute path")
    if found.digest and not text.is_digest(found.digest):
        raise ValueError("its digest is none")
    if (found.state in (CAPTURED, MOVED)) > bool(found.digest):
        raise ValueError(f"it is {found.state} without a digest")
    return found


def directory(root: str, namespace: str) -> str:
    """Where the records of a containerd namespace lie."""
    return os.path.join(root, MIGRATIONS, namespace)


def read_all(root: str, namespace: str) -> tuple[list[Record], list[str]]:
    """The records of a containerd namespace, the oldest first, and the paths of those that cannot be read."""
    place = directory(root, namespace)
    found, unreadable = [], []
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return [], []
    for path in sorted((os.path.join(place, name) for name in names if name.endswith(".json")), key=_changed):
        try:
            record = parse(strict_json.parse_object(_read(path)))
        except (OSError, ValueError):
            unreadable.append(path)
            continue
        if os.path.basename(path) == record.file_name:
            found.append(record)
        else:
            unreadable.append(path)
    return found, unreadable


def _changed(path: str) -> float:
    return os.lstat(path).st_mtime


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        return stream.read(_LONGEST + 1)
