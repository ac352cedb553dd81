# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of a checkpoint archive that other tools wrote. Pure rules.

Facts: checkpointctl's metadata package (``config.dump`` of the kubelet's runtimes) and podman's own container
configuration, which podman writes under the same name; ``deleted.files`` is a JSON list of paths.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._streams.tar_reader import Limits, safe_name

KUBELET, PODMAN, DIRECTORY, OCI = "kubelet", "podman", "directory", "oci"
MAX_DELETED = 65536
_DIGEST = re.compile(r"(?:.*@)?(?:sha256:)?([0-9a-f]{64})\Z", re.DOTALL)
_LIMITS = Limits()


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from: the tool, and what its documents say of container and image ('' for nothing)."""

    kind: str
    image_name: str = ""
    image_digest: str = ""
    snapshotter: str = ""


def document(data: bytes, what: str) -> Any:
    """JSON that nobody vouches for. Raises InputError ``dump_invalid``."""
    try:
        return strict_json.parse(data)
    except StrictJsonError as error:
        raise unusable(what, f"it is not proper JSON ({error})") from error


def mapping(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InputError ``dump_invalid``."""
    found = document(data, what)
    if not isinstance(found, dict):
        raise unusable(what, "it is not a JSON object")
    return found


def origin(config: Mapping[str, Any]) -> Origin:
    """What ``config.dump`` says. Podman gives the image's id, the others its reference by digest."""
    podman = isinstance(config.get("rootfsImageID"), str)
    names = [config.get(key) for key in ("rootfsImageName", "rootfsImage")]
    digests = [config.get(key) for key in ("rootfsImageID", "rootfsImageRef", "rootfsImage")]
    found = [_DIGEST.match(text) for text in digests if isinstance(text, str)]
    return Origin(
        kind=PODMAN if podman else KUBELET,
        image_name=next((text for text in names if isinstance(text, str) and text), ""),
        image_digest=next((f"sha256:{match.group(1)}" for match in found if match), ""),
    )


def storage_warnings(spec: Mapping[str, Any], path: str) -> list[str]:
    """What differs where containers/storage had the root file system, which is podman's and CRI-O's."""
    annotations = spec.get("annotations")
    manager = annotations.get("io.container.manager") if isinstance(annotations, dict) else None
    if manager not in ("libpod", "cri-o"):
        return []
    return [
        f"{path} is of {'podman' if manager == 'libpod' else 'CRI-O'}, where the root directory of a container has the "
        "mode 0555 if its image does not say; in containerd it has 0755, which CRIU refuses. Restore it with "
        "skip-file-rwx-check among criu.extra."
    ]


def whiteouts(paths: Any, what: str) -> bytes:
    """The head of a layer that removes these files: an empty entry ``.wh.<name>`` for each (OCI image spec, layers).

    Raises InputError ``dump_invalid``, ``tar_unsafe_name``.
    """
    if paths is None:
        return b""
    if not isinstance(paths, list) or len(paths) > MAX_DELETED or not all(isinstance(path, str) for path in paths):
        raise unusable(what, f"it is not a list of at most {MAX_DELETED} paths")
    blocks = []
    for path in sorted(set(paths)):
        try:
            raw = path[1:].encode() if path.startswith("/") else path.encode()
        except UnicodeEncodeError as error:
            raise unusable(what, "a path in it is not Unicode") from error
        directory, name = posixpath.split(safe_name(raw, _LIMITS, what))
        if not name or name.startswith(".wh."):
            raise unusable(what, f"it has the path {path[:120]!r}")
        entry = tarfile.TarInfo(posixpath.join(directory, f".wh.{name}"))
        entry.mode = 0o600
        blocks.append(entry.tobuf(tarfile.PAX_FORMAT))
    return b"".join(blocks)


def unusable(what: str, why: str) -> InputError:
    """The error for a checkpoint that cannot be converted."""
    return InputError(
        "dump_invalid",
        f"{what} is not usable: {why}.",
        "Take the checkpoint again, or transfer it again as a whole.",
    )
