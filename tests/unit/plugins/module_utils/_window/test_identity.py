# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._window import identity
from ansible_collections.gpuops.restore.plugins.module_utils._window.identity import Identity

UID = "5c1b7a52-2f7a-4f9e-9f52-0a4f5b3d1e11"


def test_a_container_of_a_pod_is_called_by_its_labels_and_has_those_of_the_pod() -> None:
    labels = {
        "io.kubernetes.pod.namespace": "training",
        "io.kubernetes.pod.name": "bert-0",
        "io.kubernetes.pod.uid": UID,
        "io.kubernetes.container.name": "trainer",
        "io.cri-containerd.kind": "container",
        "maintainer": "ml",
    }
    found = identity.identify("2869cd08", labels, {}, {"team": "nlp", "maintainer": "pod"})
    assert (found.name, found.pod_uid, found.sandbox) == ("training-bert-0-trainer", UID, False)
    assert found.labels == {"team": "nlp", "maintainer": "ml"}
    assert found.result() == {"namespace": "training", "name": "bert-0", "uid": UID, "container": "trainer"}


def test_a_checkpoint_without_labels_is_called_by_the_annotations_in_its_spec() -> None:
    annotations = {
        "io.kubernetes.cri.sandbox-namespace": "training",
        "io.kubernetes.cri.sandbox-name": "bert-0",
        "io.kubernetes.cri.container-name": "trainer",
        "io.kubernetes.cri.container-type": "container",
    }
    assert identity.identify("2869cd08", {}, {"annotations": annotations}).name == "training-bert-0-trainer"


def test_the_container_that_holds_a_pod_is_known() -> None:
    assert identity.identify("a", {"io.cri-containerd.kind": "sandbox"}, {}).sandbox
    assert identity.identify("a", {}, {"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}).sandbox


def test_a_container_without_a_pod_has_its_id() -> None:
    assert identity.identify("counter", {"team": "nlp"}, {"annotations": None}).name == "counter"
    assert identity.identify("counter", {}, {}).result() is None


def test_a_name_is_one_that_containerd_takes() -> None:
    assert Identity("x", "a--b", "c..d_", "", "e").name == "a-b-c.d-e"
    long = Identity("x", "n" * 40, "p" * 40, "", "one")
    other = Identity("x", "n" * 40, "p" * 40, "", "two")
    assert len(long.name) <= 64 and long.name != other.name
