# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The OCI spec of a container, adapted to be restored beside CRI.

Pure functions over the spec as JSON gives it; ``_container.mounts`` compares with the node. The rules prevent the
hazards of a restore into ``k8s.io``: see ``_oci.spec_namespaces`` and the comments here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import labels, strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._host import cgroup
from . import spec_namespaces, spec_validate

CRIU_CONFIG_ANNOTATION = "org.criu.config"
# A sandbox id makes the shim join that pod's shim; CDI names would have devices injected a second time.
#: What runc lets a spec mount below /proc (libcontainer/rootfs_linux.go, checkProcMount).
_PROC_OF_RUNC = frozenset(
    [
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/net/dev",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    ]
)
DROPPED_ANNOTATIONS = ("io.kubernetes.cri.", "io.kubernetes.cri-o.", "cdi.k8s.io")


@dataclass(frozen=True)
class Adaptation:
    """How the restored container is to differ from the original."""

    container_id: str
    cgroups_path: str
    criu_config_path: str
    #: Old bind source -> new source, absolute paths; for everything below the old source too, the longest match wins.
    mounts: Mapping[str, str] = field(default_factory=dict)
    #: Binds that the original had and its spec does not name: place in the container -> source.
    added_mounts: Mapping[str, str] = field(default_factory=dict)
    #: The same for memory volumes, which come with their content; ``mounts`` wins.
    volumes: Mapping[str, str] = field(default_factory=dict)
    #: None, ``host``, ``none``, the path of a network namespace, or ``cni:`` and that of a configuration of CNI's.
    network: str | None = None
    #: The operator's, which makes it anew.
    network_command: tuple[str, ...] = ()
    #: Path of an empty network namespace, where ``spec_namespaces.needs_fresh_netns`` says that one is needed.
    fresh_netns: str = ""
    #: Added or replaced. Only processes executed later see it; a restored one keeps the environment in its memory.
    env: Mapping[str, str] = field(default_factory=dict)
    allow_hooks: bool = False
    #: Names, or prefixes that end in ``*``, to keep of those that are dropped otherwise.
    allow_annotations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """The new spec."""

    spec: dict[str, Any]
    #: What differs from the original, in sentences.
    changes: list[str]
    #: What an operator should know, in sentences.
    warnings: list[str]


def _plain_path(path: str) -> bool:
    """Absolute, without ``..``, ``.``, doubled or trailing slashes."""
    return path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


def moved(source: str, mapping: Mapping[str, str]) -> tuple[str, str] | None:
    """The key that covers the source of a bind mount best and its new source, or None."""
    source = posixpath.normpath("/" + source.lstrip("/"))
    for old in sorted(mapping, key=len, reverse=True):
        if source == old:
            return old, mapping[old]
        below = old.rstrip("/") + "/"
        if source.startswith(below):
            return old, posixpath.join(mapping[old], source[len(below) :])
    return None


def _require_plain(mapping: Mapping[str, str], option: str) -> None:
    for path in (text for pair in mapping.items() for text in pair):
        if not isinstance(path, str) or not _plain_path(path):
            raise InputError(
                "mount_mapping_invalid",
                f"{path!r} in {option} is not a plain absolute path.",
                "Map absolute paths without '..' and without a trailing slash.",
            )


def _add_mounts(spec: dict[str, Any], added: Mapping[str, str], changes: list[str]) -> None:
    """What a runtime or a hook had mounted, and whoever made the checkpoint did not write into its spec."""
    _require_plain(added, "added_mounts")
    named = {posixpath.normpath(mount["destination"]): mount for mount in spec.get("mounts") or ()}
    for place, source in sorted(added.items()):
        if place in named:
            raise InputError(
                "mount_mapping_invalid",
                f"The spec has a mount at {place} already, from {named[place].get('source') or 'nowhere'}.",
                "Leave it out of added_mounts; where it comes from a path of the node, mounts gives it another source.",
            )
        mount = {"destination": place, "type": "bind", "source": source, "options": ["bind", "rprivate"]}
        spec["mounts"] = [*(spec.get("mounts") or ()), mount]
        changes.append(f"The mount at {place}, which the spec does not name, comes from {source}.")


def _set_external(spec: dict[str, Any]) -> None:
    """Binds below /proc, which runc refuses to make, are told to CRIU alone; nobody else says which those are."""
    places = {}
    kept = []
    for mount in spec.get("mounts") or ():
        place = posixpath.normpath(mount["destination"])
        if spec_validate.is_bind(mount) and place.startswith("/proc/") and place not in _PROC_OF_RUNC:
            places[place] = mount["source"]
        else:
            kept.append(mount)
    own = (labels.EXTERNAL_MOUNTS, labels.CNI, labels.NETWORK_COMMAND)
    annotations = {name: text for name, text in spec["annotations"].items() if name not in own}
    if places:
        spec["mounts"] = kept
        annotations[labels.EXTERNAL_MOUNTS] = json.dumps(places, sort_keys=True, separators=(",", ":"))
    spec["annotations"] = annotations


def external_mounts(spec: Mapping[str, Any]) -> dict[str, str]:
    """Of an adapted spec: places of mounts that CRIU has to be told of, to their sources."""
    try:
        found = strict_json.parse_object((spec.get("annotations") or {}).get(labels.EXTERNAL_MOUNTS) or "{}")
    except StrictJsonError:
        return {}
    return {place: source for place, source in found.items() if isinstance(source, str)}


def _map_mounts(
    spec: dict[str, Any],
    mapping: Mapping[str, str],
    volumes: Mapping[str, str],
    changes: list[str],
    warnings: list[str],
) -> None:
    """New sources for bind mounts."""
    _require_plain(mapping, "mounts")
    used, sources = set(), []
    for mount in spec.get("mounts") or ():
        if not spec_validate.is_bind(mount):
            continue
        source = mount.get("source") or ""
        if not source.startswith("/"):
            raise spec_validate.invalid(f"the bind mount at {mount['destination']} has no absolute source ({source!r})")
        sources.append(source)
        found = moved(source, mapping)
        if found:
            used.add(found[0])
            mount["source"] = found[1]
            changes.append(f"The mount at {mount['destination']} comes from {found[1]} instead of {source}.")
        kept = None if found else moved(source, volumes)
        if kept:
            mount["source"] = kept[1]
            changes.append(
                f"The mount at {mount['destination']} is a memory volume of its own, {kept[1]} instead of {source}."
            )
            continue
        if posixpath.normpath(mount["destination"]) == "/dev/shm":
            warnings.append(
                f"/dev/shm is a bind of {mount['source']}, and its content does not come from the checkpoint. Bring"
                " it along: a process that has files of it open or mapped is not restored without them."
            )
    unused = sorted(set(mapping) - used)
    if unused:
        raise InputError(
            "mount_mapping_unused",
            f"No bind mount comes from {', '.join(unused)}; there are: {', '.join(sorted(set(sources))) or 'none'}.",
            "Correct or remove these entries of mounts. One that the checkpoint has and its spec does not name goes "
            "into added_mounts, by its place in the container.",
            details={"unused": unused, "sources": sorted(set(sources))},
        )


def _allowed(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether an annotation is among the names and prefixes given."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def _adapt_annotations(spec: dict[str, Any], adaptation: Adaptation, changes: list[str]) -> None:
    """Drops what ties the container to its pod, and points CRIU to our configuration."""
    if not _plain_path(adaptation.criu_config_path):
        raise InputError(
            "criu_config_path_invalid",
            f"{adaptation.criu_config_path!r} is not a plain absolute path for CRIU's configuration file.",
            "Give an absolute path on the node.",
        )
    annotations = dict(spec.get("annotations") or {})
    dropped = sorted(
        name
        for name in annotations
        if name.startswith(DROPPED_ANNOTATIONS) and not _allowed(name, adaptation.allow_annotations)
    )
    for name in dropped:
        del annotations[name]
    if dropped:
        changes.append(f"The annotations {', '.join(dropped)} are dropped.")
    if annotations.get(CRIU_CONFIG_ANNOTATION) != adaptation.criu_config_path:
        changes.append(f"CRIU reads its options from {adaptation.criu_config_path}.")
    annotations[CRIU_CONFIG_ANNOTATION] = adaptation.criu_config_path
    spec["annotations"] = annotations


def _adapt_hooks(spec: dict[str, Any], allow: bool, changes: list[str], warnings: list[str]) -> None:
    """Hooks are programs of another node, run as root: only by permission."""
    hooks = {stage: entries for stage, entries in (spec.get("hooks") or {}).items() if entries}
    if allow or not hooks:
        return
    del spec["hooks"]
    programs = sorted({hook["path"] for entries in hooks.values() for hook in entries})
    changes.append(f"The hooks ({', '.join(sorted(hooks))}) are dropped.")
    warnings.append(
        f"{', '.join(programs)} did run for the original as hooks and do not run now: what they mounted is"
        " there where the spec names it, as in captures of this collection; what else they do needs allow_hooks."
    )


def _adapt_env(spec: dict[str, Any], env: Mapping[str, str], changes: list[str]) -> None:
    """Adds variables, in place of others of the same name; the change names them without their values."""
    process = spec["process"]
    lines = list(process.get("env") or ())
    altered = []
    for name in sorted(env):
        if not name or "=" in name or "\0" in name + env[name]:
            raise InputError(
                "env_invalid",
                f"{name!r} is no name of an environment variable.",
                "Use names without '=' and NUL.",
            )
        line = f"{name}={env[name]}"
        old = [item for item in lines if item.partition("=")[0] == name]
        if old == [line]:
            continue
        altered.append(name)
        lines = [item for item in lines if item.partition("=")[0] != name] + [line]
    if altered:
        process["env"] = lines
        changes.append(f"The environment of processes executed later has {', '.join(altered)} set anew.")


def adapt(original: Mapping[str, Any], adaptation: Adaptation) -> Adapted:
    """The spec for a restored container; ``original``, the spec it ran with when it was dumped, is not
    changed.

    Raises InputError ``spec_invalid``, ``mount_mapping_invalid``, ``mount_mapping_unused``, ``env_invalid``,
    ``criu_config_path_invalid``, ``cgroups_path_invalid``, ``cgroups_path_kubepods`` and those of
    ``_oci.spec_namespaces.choose``.
    """
    spec_validate.check(original)
    spec = copy.deepcopy(dict(original))
    changes: list[str] = []
    warnings: list[str] = []
    if spec["root"]["path"] != "rootfs":
        changes.append(f"The root file system is the container's snapshot instead of {spec['root']['path']}.")
        spec["root"]["path"] = "rootfs"
    chosen = spec_namespaces.choose(spec, adaptation.network, adaptation.fresh_netns)
    spec["linux"]["namespaces"] = chosen.entries
    changes += chosen.changes
    warnings += chosen.warnings
    # The kubelet kills every process in cgroups of pods that it does not know.
    new_group, old_group = cgroup.check_path(adaptation.cgroups_path), spec["linux"].get("cgroupsPath")
    spec["linux"]["cgroupsPath"] = new_group
    if new_group != old_group:
        changes.append(f"The cgroup path is {new_group} instead of {old_group or 'none'}.")
    _map_mounts(spec, adaptation.mounts, adaptation.volumes, changes, warnings)
    _add_mounts(spec, adaptation.added_mounts, changes)
    _adapt_annotations(spec, adaptation, changes)
    _set_external(spec)
    config = spec_namespaces.cni_config(adaptation.network)
    if config:
        spec["annotations"][labels.CNI] = config
    if adaptation.network_command:
        words = spec_namespaces.check_command(adaptation.network_command, adaptation.network, original)
        spec["annotations"][labels.NETWORK_COMMAND] = json.dumps(words)
        changes.append(f"The network is made anew by the command {words[0]}.")
    _adapt_hooks(spec, adaptation.allow_hooks, changes, warnings)
    _adapt_env(spec, adaptation.env, changes)
    return Adapted(spec, changes, warnings)


def mount_label(spec: Mapping[str, Any]) -> str | None:
    """``linux.mountLabel``: the root file system's mounts take the option ``context="<label>"`` of it."""
    label = (spec.get("linux") or {}).get("mountLabel")
    return label if isinstance(label, str) and label else None


def canonical(spec: Mapping[str, Any]) -> bytes:
    """The one JSON text of a spec: sorted keys, no white space, UTF-8. Raises InputError ``spec_invalid``."""
    try:
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise spec_validate.invalid(f"it cannot be written as JSON ({error})") from error


def digest(spec: Mapping[str, Any]) -> str:
    """``sha256:<hex>`` of the canonical text."""
    return "sha256:" + hashlib.sha256(canonical(spec)).hexdigest()
