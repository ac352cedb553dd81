# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever a checkpoint says in its spec, its facts, beside it in metadata, or in CRIU's images, is read or refused.

``make fuzz`` runs more cases than are run here; see helpers/fuzzing.py.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import metadata
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.staged import Staged
from ansible_collections.gpuops.restore.plugins.module_utils._core import strict_json
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import image_files
from ansible_collections.gpuops.restore.plugins.module_utils._oci import (
    spec_adapt,
    spec_rights,
    spec_summary,
    spec_validate,
)
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.plugins.module_utils._parallel_memory import split
from ansible_collections.gpuops.restore.tests.unit.helpers import criu_samples, fuzzing
from ansible_collections.gpuops.restore.tests.unit.helpers.criu_samples import MIB, PRESENT, Process, Vma
from ansible_collections.gpuops.restore.tests.unit.helpers.fuzzing import Reader, changed, damaged, written
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import cri_spec, ctr_spec

KNOWN = spec_rights.Known()
FACTS: dict[str, Any] = {
    "container": "train",
    "memory_bytes": 1 << 30,
    "kernel": "6.18",
    "criu": "4.2.1",
    "cpu": {"model": "x", "features": ["avx2"]},
    "rights": ["host_namespaces=network"],
    "criu_options": ["file_locks"],
    "base_image": {"name": "x:1", "digest": "sha256:" + 64 * "1"},
    "runtime": {"name": "runc", "version": "1.1"},
    "gpu": {
        "driver": "580.1",
        "cards": [{"uuid": "GPU-1", "name": "H200", "memory": 1 << 37}],
        "processes": [{"pid": 7, "vram": {"GPU-1": 1 << 30}}],
        "visible": ["GPU-1"],
    },
}


def odd_case(rng: random.Random, document: Any) -> Any:
    """A key spelled as Go would still take it."""
    if isinstance(document, dict) and document:
        name = rng.choice(list(document))
        if rng.random() < 0.5:
            return {**document, name: odd_case(rng, document[name])}
        other = rng.choice((name.upper(), name.capitalize(), name.replace("s", "\u017f"), name.replace("k", "\u212a")))
        return {**document, other: document[name]}
    if isinstance(document, list) and document:
        return [odd_case(rng, document[0]), *document[1:]]
    return document


def odd_spec(rng: random.Random) -> Any:
    document = rng.choice((cri_spec, ctr_spec))()
    for _time in range(rng.choice((1, 1, 2, 5))):
        document = changed(rng, document) if rng.random() < 0.8 else odd_case(rng, document)
    return document


def read_spec(rng: random.Random, _place: Path) -> None:
    try:
        document = strict_json.parse_object(written(rng, odd_spec(rng)))
    except strict_json.StrictJsonError as error:
        # As who reads a checkpoint has it.
        raise InputError("spec_unreadable", f"It cannot be read: {error}.", "Take the checkpoint again.") from error
    spec_validate.check(document)
    adapted = spec_adapt.adapt(document, spec_adapt.Adaptation("train", "/train", "/run/criu.conf"))
    assert "hooks" not in adapted.spec and adapted.spec["annotations"]["org.criu.config"] == "/run/criu.conf"
    folded = [key.casefold() for key in adapted.spec]
    assert len(folded) == len(set(folded)), "a key that Go reads as another has passed"
    spec_rights.rights(document, KNOWN)
    json.dumps([spec_summary.summary(document), spec_summary.redacted(document)])
    spec_adapt.digest(adapted.spec)


def read_facts(rng: random.Random, _place: Path) -> None:
    document = changed(rng, changed(rng, FACTS))
    text = written(rng, document) if rng.random() < 0.8 else damaged(rng, json.dumps(document).encode())
    found = Facts.parse(text.decode("utf-8", "replace"))
    # What is not understood counts as not recorded; what is kept can be written and read again.
    assert Facts.parse(found.render()) == found
    json.dumps([found.vram(), found.visible_gpus, found.tells_vram])


def read_metadata(rng: random.Random, _place: Path) -> None:
    document = {"originalImage": "x:1", "snapshotter": "overlayfs", "snapshotID": "y", "ociSpec": odd_spec(rng)}
    text = written(rng, changed(rng, document) if rng.random() < 0.5 else document)
    if rng.random() < 0.2:
        text = damaged(rng, text)
    found = metadata.parse(text.decode("utf-8", "replace"))
    if found.oci_spec is not None:
        spec_validate.check(found.oci_spec)


def criu_images(rng: random.Random, place: Path) -> Path:
    """A dump of two processes, some of whose files are damaged."""
    shutil.rmtree(place, ignore_errors=True)
    images = place / "images"
    images.mkdir(parents=True)
    areas = [Vma(0x10000000, MIB), Vma(0x7F0000000000, 4 * MIB)]
    runs = [(0x10000000, 1 << 14, PRESENT), (0x7F0000000000, 2 * MIB, PRESENT)]
    criu_samples.dump(images, Process(1, 0, areas, runs), Process(2, 1, areas, runs))
    criu_samples.core(images, "core-1.img", 0xFFFF)
    criu_samples.dump_mounts(images, "/data")
    criu_samples.dump_files(images, {1: "/a", 2: "/b"}, [(1, 2, 0)])
    names = sorted(path.name for path in images.iterdir() if not path.name.startswith("pages-"))
    for name in rng.sample(names, rng.choice((1, 1, 2, 4))):
        path = images / name
        if rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(damaged(rng, path.read_bytes()))
    return images


def read_criu_images(rng: random.Random, place: Path) -> None:
    """Each reader by itself, and what splits memory with them: a refusal of theirs counts as one in a sentence."""
    images = criu_images(rng, place)
    known = (image_files.UnreadableError, split.NotSplitError, OSError)
    refused = ""
    for act in (
        lambda: image_files.credentials(str(images)),
        lambda: image_files.link_remaps(str(images)),
        lambda: image_files.external_mounts(str(images)),
        lambda: image_files.parents(str(images)),
        lambda: [image_files.pagemap(str(images), pid, 1 << 20) for pid in (1, 2)],
        lambda: split.split_checkpoint(Staged(str(images), "sha256:one", 1, 1, False)),
    ):
        with contextlib.suppress(*known):
            act()
            continue
        refused = "a file"
    if refused:
        raise InputError("images_unreadable", f"It cannot be read: {refused}.", "Take the checkpoint again.")


READERS: list[Reader] = [read_spec, read_facts, read_metadata, read_criu_images]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_reads_it_or_refuses_it(reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = fuzzing.refused(reader, tmp_path / "fuzzed", capsys)
    assert reader is read_facts or refused > 0, "nothing was refused: the cases are tame"
