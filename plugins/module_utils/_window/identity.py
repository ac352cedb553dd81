# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container is called by people: its pod where it has one, and the names that are made of that.

Pure, so that the controller can ask it too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import labels as core_labels

#: Labels of CRI on a container's record, and annotations in its spec, which a checkpoint keeps.
_LABELS = {
    "namespace": "io.kubernetes.pod.namespace",
    "pod": "io.kubernetes.pod.name",
    "pod_uid": "io.kubernetes.pod.uid",
    "container": "io.kubernetes.container.name",
}
_ANNOTATIONS = {
    "namespace": "io.kubernetes.cri.sandbox-namespace",
    "pod": "io.kubernetes.cri.sandbox-name",
    "pod_uid": "io.kubernetes.cri.sandbox-uid",
    "container": "io.kubernetes.cri.container-name",
}
_KIND_LABEL, _KIND_ANNOTATION = "io.cri-containerd.kind", "io.kubernetes.cri.container-type"
_SANDBOX = "sandbox"
#: Characters of a name: containerd's 76, less what a name for a second container would need.
_LONGEST = 64
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_DOUBLE = re.compile(r"[._-]*([._-])[._-]*")


@dataclass(frozen=True)
class Identity:
    """A container and its pod; the pod's fields are empty where it has none."""

    id: str
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    container: str = ""
    #: A pod's own container, which holds its namespaces and no work.
    sandbox: bool = False
    #: Its own labels, and those of its pod, without what CRI sets by itself.
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that people can read and containerd takes: ``NAMESPACE-POD-CONTAINER``, or the container's id."""
        if not self.pod:
            return self.id
        whole = "-".join(part for part in (self.namespace, self.pod, self.container) if part)
        name = _DOUBLE.sub(r"\1", _OTHER.sub("-", whole)).strip("._-")
        if len(name) <= _LONGEST:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"{name[: _LONGEST - 9].rstrip('._-')}-{digest}"

    def placeholders(self, host: str) -> dict[str, str]:
        """What texts of a selection may name in braces."""
        return {
            "id": self.id,
            "name": self.name,
            "namespace": self.namespace,
            "pod": self.pod,
            "pod_uid": self.pod_uid,
            "container": self.container,
            "host": host,
        }

    def result(self) -> dict[str, Any] | None:
        """The pod as modules return it; None where there is none."""
        if not self.pod:
            return None
        return {"namespace": self.namespace, "name": self.pod, "uid": self.pod_uid, "container": self.container}


def identify(
    container_id: str,
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    pod_labels: Mapping[str, str] | None = None,
) -> Identity:
    """Of a container's record, or of a checkpoint, which has no labels but the captured ``spec``."""
    annotations = spec.get("annotations") if isinstance(spec.get("annotations"), dict) else {}
    found = {key: str(labels.get(_LABELS[key]) or (annotations or {}).get(_ANNOTATIONS[key]) or "") for key in _LABELS}
    kind = labels.get(_KIND_LABEL) or (annotations or {}).get(_KIND_ANNOTATION)
    return Identity(
        id=container_id,
        sandbox=kind == _SANDBOX,
        labels=core_labels.given(pod_labels or {}, labels),
        **found,
    )
