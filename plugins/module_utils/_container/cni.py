# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network of a container's own, made anew by plugins of CNI, as ``network: cni:PATH`` asks.

CRIU brings a network namespace of runc's back empty (:mod:`_capture.own_network`), and a pod's was never in the
checkpoint. What the plugins have made is noted in the container's directory before they make it, since addresses are
given to a container until its network is deleted.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from typing import Any

from .._checkpoint.task_state import NETWORK, TaskState
from .._core import labels, state_dir, strict_json
from .._core.errors import NodeError
from .._core.strict_json import StrictJsonError
from .._criu import action_script
from .._criu.action_script import ActionScript
from . import cni_worker, netns

#: Where nodes have the plugins: Kubernetes and the plugins' own releases, Debian, Fedora.
DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
_NAME, _PLAN = "cni", "network.json"
_INTERFACE = "eth0"
_LONGEST = 1 << 20
_LONGEST_INTERFACE = 15


def config_of(spec: Mapping[str, Any]) -> str:
    """The configuration that an adapted spec names; empty where its network is not made by CNI."""
    return str((spec.get("annotations") or {}).get(labels.CNI) or "")


def problems(spec: Mapping[str, Any]) -> list[NodeError]:
    """What of it this node lacks."""
    config = config_of(spec)
    if not config:
        return []
    try:
        _plugins(config)
    except NodeError as error:
        return [error]
    return []


def plan(container_id: str, namespace: str, config: str, recorded: TaskState | None) -> dict[str, Any]:
    """What the plugins are told. The device is called as it was; plugins that can be asked for addresses are asked for
    those that were. Raises NodeError ``cni_config_invalid``, ``cni_plugin_missing``."""
    devices = dict(recorded.kinds.get(NETWORK, {})) if recorded is not None else {}
    had = [name for name in devices if name not in ("lo", "routes") and _is_device(name)]
    interface = had[0] if had else _INTERFACE
    addresses = [text for text in devices.get(interface, {}).get("addresses", "").split() if _is_address(text)]
    found = _plugins(config)
    for plugin in found:
        wanted = plugin["config"].pop("capabilities", None)
        if addresses and isinstance(wanted, dict) and wanted.get("ips") is True:
            plugin["config"]["runtimeConfig"] = {"ips": addresses}
    path = ":".join(DIRECTORIES)
    return {"container_id": f"{namespace}-{container_id}", "interface": interface, "path": path, "plugins": found}


def is_noted(work: str) -> bool:
    """Whether a network of the container's was made and not taken away."""
    return os.path.exists(os.path.join(work, _PLAN))


def release(work: str, netns: str = "") -> list[str]:
    """Have a network taken away that a task of the container has had; what keeps it from being gone, in sentences."""
    path = os.path.join(work, _PLAN)
    try:
        with open(path, encoding="utf-8") as stream:
            noted = json.load(stream)
        found = cni_worker.delete(noted, netns)
        problems = [
            f"A plugin of CNI could not take the network of {noted['container_id']} away: {one}" for one in found
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        problems = [
            f"The note of a network that CNI has made, {path}, cannot be read ({error}): what it made may be left."
        ]
    os.unlink(path)
    return problems


class Network:
    """The network of one restore. Making it raises NodeError."""

    def __init__(
        self, container_id: str, namespace: str, spec: Mapping[str, Any], recorded: TaskState | None, criu_config: str
    ) -> None:
        self._container_id = container_id
        self._criu_config = criu_config
        self._config = config_of(spec)
        self._plan = plan(container_id, namespace, self._config, recorded)
        #: Of the namespace, where it is there before CRIU begins.
        self._path = netns.given(spec)

    def script(self, work: str) -> ActionScript | None:
        """What makes it in a namespace that CRIU makes; None where :meth:`make` has done it."""
        if self._path:
            return None
        note = os.path.join(work, _PLAN)
        return ActionScript(self._criu_config, work, _NAME, action_script.SETUP_NAMESPACES, cni_worker, (note,))

    def make(self, work: str) -> None:
        """Note it, and have it made where its namespace is there. Raises NodeError ``cni_failed``."""
        state_dir.write_text(os.path.join(work, _PLAN), json.dumps(self._plan))
        if self._path:
            try:
                cni_worker.add(self._plan, self._path)
            except cni_worker.PluginError as error:
                raise self.failure(str(error)) from error

    def failure(self, why: str) -> NodeError:
        """The plugins have not made it."""
        return NodeError(
            "cni_failed",
            f"CNI has not made the network of {self._container_id}, as {self._config} says: {why}.",
            f"Correct {self._config} or the node's network, then run again; network=none restores without one.",
        )


def no_script(container_id: str, why: str) -> NodeError:
    """CRIU makes the namespace, and cannot be made to start the plugins."""
    return NodeError(
        "cni_failed",
        f"CNI cannot make the network of {container_id}: {why or 'its CRIU configuration is not of this collection'}.",
        "Update CRIU, or restore without (network=none).",
    )


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``, but for the note of what was made."""
    action_script.Files(work, _NAME).remove()


def _is_device(name: str) -> bool:
    if not name.isascii() or not name.isprintable() or name in (".", ".."):
        return False
    return 0 < len(name) <= _LONGEST_INTERFACE and not any(char in "/: " for char in name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def _plugins(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as stream:
            document = strict_json.parse_object(stream.read(_LONGEST + 1), _LONGEST)
    except (OSError, StrictJsonError) as error:
        raise _invalid(path, str(error)) from error
    entries = document.get("plugins", [document])
    if not isinstance(entries, list) or not entries or not all(_is_plugin(entry) for entry in entries):
        raise _invalid(path, "it has neither a type nor a list of plugins that have one")
    shared = {key: document[key] for key in ("cniVersion", "name") if isinstance(document.get(key), str)}
    if set(shared) != {"cniVersion", "name"}:
        raise _invalid(path, "it lacks a name or a cniVersion")
    return [{"program": _program(path, str(entry["type"])), "config": {**entry, **shared}} for entry in entries]


def _is_plugin(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and bool(entry["type"])


def _program(config: str, kind: str) -> str:
    if "/" not in kind:
        for directory in DIRECTORIES:
            program = os.path.join(directory, kind)
            if os.access(program, os.X_OK):
                return program
    raise NodeError(
        "cni_plugin_missing",
        f"The CNI configuration {config} names the plugin {kind}, which is in none of {', '.join(DIRECTORIES)}.",
        "Install it on the node (Debian: containernetworking-plugins), or name another configuration.",
    )


def _invalid(path: str, why: str) -> NodeError:
    return NodeError(
        "cni_config_invalid",
        f"{path} on this node is no CNI configuration that can be used: {why}.",
        "Name a file such as /etc/cni/net.d/NAME.conflist in network (cni:PATH).",
    )
