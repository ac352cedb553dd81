# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the host a restored container may have: what the operator allows, and for a checkpoint that somebody vouches
for, what the container had when it was captured.

A checkpoint from a registry or an archive is whoever's who could write there, and it comes back as root. One that this
node captured itself, whose digest the operator names, or that is signed as the operator asks, is known: its spec is the
one that ran.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._checkpoint import original as checkpoint_original
from .._checkpoint.original import Original
from .._containerd.client import Client
from .._core.errors import InputError
from .._criu import image_files
from .._gpu import devices
from .._oci import spec_adapt, spec_rights, spec_validate
from .._oci.spec_rights import ALL, READ_ONLY, Right

#: Where nodes keep data, and what every distribution gives everybody to read, the driver's libraries among it. Nothing
#: of it is secret or rules the host, so a GPU container that asks for no more comes back without a word.
_USUAL_BINDS = (
    "/srv",
    "/mnt",
    "/media",
    "/data",
    "/scratch",
    *(f"/{name}{READ_ONLY}" for name in ("usr", "lib", "lib64", "bin", "sbin")),
    *(
        f"/etc/{name}{READ_ONLY}"
        for name in ("hosts", "resolv.conf", "hostname", "localtime", "OpenCL", "vulkan", "glvnd", "egl")
    ),
    "/run/nvidia-persistenced/socket",
    "/run/nvidia-fabricmanager/socket",
)
_SWITCHES = (spec_rights.SECCOMP, spec_rights.PRIVILEGED, spec_rights.CONTROL)
#: What a privileged container has.
_OF_PRIVILEGED = (spec_rights.CAPABILITIES, spec_rights.DEVICES, spec_rights.SECCOMP, spec_rights.PRIVILEGED)


@dataclass(frozen=True)
class Policy:
    """The operator's. None: as by default, which is more for a known checkpoint; any list is the whole truth."""

    #: Of checkpoints that the operator vouches for.
    digests: tuple[str, ...] = ()
    #: Whether this node's own captures are known as well.
    own_captures: bool = True
    capabilities: tuple[str, ...] | None = None
    host_namespaces: tuple[str, ...] | None = None
    bind_sources: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    sysctls: tuple[str, ...] | None = None
    mount_types: tuple[str, ...] | None = None
    seccomp_unconfined: bool | None = None
    privileged: bool | None = None
    host_control: bool | None = None

    @classmethod
    def from_options(cls, given: Mapping[str, Any] | None) -> Policy:
        """The option ``policy`` of a module."""
        options = {name: value for name, value in (given or {}).items() if value is not None}
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
        }
        return cls(**fields)

    def knows(self, original: Original) -> bool:
        """Whether somebody vouches for the checkpoint."""
        own = self.own_captures and original.checkpoint.captured_here
        return own or original.vouched or original.checkpoint.digest in self.digests

    def allows(self, right: Right, had: Collection[Right]) -> bool:
        """Whether a container may have that right; ``had``: those that a known checkpoint's ran with, else empty."""
        given = getattr(self, right.key)
        if given is None and self.privileged and right.key in _OF_PRIVILEGED:
            return True
        if right.key in _SWITCHES:
            # containerd, and kubelet by default, filter no system calls, so that says nothing about a container.
            usual = right.key == spec_rights.SECCOMP
            return (usual or right.is_within(had)) if given is None else bool(given)
        if given is None:
            return right.is_within(had) or (right.key == spec_rights.BINDS and _is_below(right.value, _USUAL_BINDS))
        if right.key == spec_rights.BINDS:
            return _is_below(right.value, given)
        if right.key == spec_rights.CAPABILITIES:
            given = [entry if entry == ALL else spec_rights.capability_name(entry) for entry in given]
        return any(entry in (right.value, ALL) or _begins(right.value, entry) for entry in given)


def _begins(value: str, entry: str) -> bool:
    return entry.endswith("*") and value.startswith(entry[:-1])


def _is_below(source: str, prefixes: Iterable[str]) -> bool:
    """Whether a bind source lies below one of the prefixes, by its name and by what its links lead to."""
    read_only = source.endswith(READ_ONLY)
    path = source[: -len(READ_ONLY)] if read_only else source
    for entry in prefixes:
        if entry.endswith(READ_ONLY) and not read_only:
            continue
        prefix = posixpath.normpath(entry[: -len(READ_ONLY)] if entry.endswith(READ_ONLY) else entry)
        if _contains(prefix, path) and _contains(os.path.realpath(prefix), os.path.realpath(path)):
            return True
    return False


def _contains(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def problem(
    client: Client,
    policy: Policy,
    original: Original,
    spec: Mapping[str, Any],
    mounts: Mapping[str, str],
    network: str | None,
    images: str = "",
) -> InputError | None:
    """Why the container must not be made of ``spec`` (checked, as it came), or None.

    ``mounts`` and ``network`` as the operator gives them: what is mapped or named by hand is the operator's wish.
    ``images``: the directory of CRIU's, where they are staged. The error is ``policy_refused``.
    """
    known = spec_rights.Known(
        is_mapped=lambda source: spec_adapt.moved(source, mounts) is not None,
        network_given=network is not None,
        gpu_numbers=devices.numbers(),
        socket=client.address,
    )
    vouched = policy.knows(original)
    had = _ran_with(client, original) if vouched else ()
    asked = spec_rights.rights(spec, known)
    if images and not vouched:
        asked = sorted({*asked, *_of_images(images)})
    refused = [right for right in asked if not policy.allows(right, had)]
    return _refusal(original, refused, _needed(policy, asked, refused), vouched) if refused else None


def _of_images(directory: str) -> Sequence[Right]:
    """What CRIU will give the processes: it goes by its images, not by the spec."""
    try:
        found = image_files.credentials(directory)
    except (OSError, image_files.UnreadableError) as error:
        return [Right(spec_rights.CAPABILITIES, ALL, f"processes whose rights cannot be read ({error})")]
    return spec_rights.of_processes(found.capabilities, found.unfiltered)


def _ran_with(client: Client, original: Original) -> Collection[Right]:
    """What the capture recorded, else what the spec says that is part of the checkpoint, and so of its digest."""
    recorded = original.checkpoint.facts.rights
    if recorded is not None:
        return [Right.parse(text) for text in recorded]
    spec = checkpoint_original.captured_spec(client, original)
    try:
        spec_validate.check(spec)
    except InputError:
        return ()
    return spec_rights.rights(spec or {}, spec_rights.Known(gpu_numbers=devices.numbers()))


def _needed(policy: Policy, asked: Sequence[Right], refused: Sequence[Right]) -> dict[str, Any]:
    """The keys that would allow it. Since a list is the whole truth, it has what passes without one as well."""
    needed: dict[str, Any] = {}
    for key in dict.fromkeys(right.key for right in refused):
        if key in _SWITCHES:
            needed[key] = True
        else:
            given = getattr(policy, key)
            wanted = [right.value for right in (asked if given is None else refused) if right.key == key]
            needed[key] = [*(given or ()), *wanted]
    return needed


def _refusal(original: Original, refused: Sequence[Right], needed: Mapping[str, Any], vouched: bool) -> InputError:
    checkpoint = original.checkpoint
    asked = ", ".join(f"{right.text} ({right.key})" for right in refused)
    keys = "; ".join(
        f"{key}: {'true' if value is True else '[' + ', '.join(map(repr, value)) + ']'}"
        for key, value in needed.items()
    )
    if vouched:
        message = f"The checkpoint {checkpoint.name} asks for what its container had not, or what the policy takes away"
        remedy = "Allow it"
    else:
        message = (
            f"The checkpoint {checkpoint.name}, which this node did not capture, no digest names and no key signs, "
            "asks for more of the host than the policy allows"
        )
        remedy = f"If you know where it comes from, set digest: {checkpoint.digest} for the workload; or allow it"
    if spec_rights.BINDS in needed:
        keys += "; a source that mounts maps to another needs no permission"
    return InputError(
        "policy_refused",
        f"{message}: {asked}.",
        f"{remedy} in policy (restore_node_policy): {keys}.",
        details={
            "asked": [{"key": one.key, "value": one.value, "text": one.text} for one in refused],
            "policy": needed,
        },
    )
