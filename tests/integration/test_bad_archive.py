# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: hostile tars, as the CRIU images inside a checkpoint and as image archives."""

from __future__ import annotations

import gzip
import json
import tarfile
from typing import Any, Callable

import make_images
import pytest
from bad_input import CODES, Refuses
from gpuops_lab import workload
from gpuops_lab.config import Node
from make_images import Parts, imported, member, tar, zeros, zstd

REF = "gpuops.test/checkpoint:1"
STAGE, IMAGE = "containerd_checkpoint_stage", "containerd_image"
ARCHIVE = "/var/lib/gpuops-lab/hostile.tar"
MIB = 128
RunModule = Callable[..., dict[str, Any]]
#: What CRIU's images cannot do without.
HEAD = [member("inventory.img", b"x"), member("descriptors.json", b"[]")]
LEADS_OUT, SPECIAL, BOMB = "archive: name that leads out", "archive: link or device", "archive: bomb"
#: Entries that nobody makes with good intentions: what they are, how they are refused, and the words for it.
ENTRIES = {
    "parent": (member("../escaped", b"x"), LEADS_OUT, "leads out"),
    "absolute": (member("/etc/escaped", b"x"), LEADS_OUT, "is absolute"),
    "character-device": (member("null", kind=tarfile.CHRTYPE), SPECIAL, "null"),
    "fifo": (member("pipe", kind=tarfile.FIFOTYPE), SPECIAL, "pipe"),
}
LINKS = {
    "symbolic-link": member("escape", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard-link": member("escape", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
}


@pytest.fixture(scope="module", autouse=True)
def good(node: Node) -> Parts:
    return make_images.good(node, REF)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


def refused_images(
    node: Node, refuses: Refuses, good: Parts, content: bytes, what: str, *words: str, code: str = ""
) -> None:
    """These bytes as the CRIU images of a checkpoint are refused; check mode does not read them."""
    hostile = good.having("criu", content)
    with imported(node, hostile) as reference:
        named = (hostile.child("criu")["digest"], *words)
        refuses(STAGE, {"checkpoint": reference}, what, *named, modes=(False,), code=code)


@pytest.mark.parametrize("case", ENTRIES)
def test_criu_images_with(node: Node, refuses: Refuses, good: Parts, case: str) -> None:
    entry, what, word = ENTRIES[case]
    refused_images(node, refuses, good, tar([*HEAD, entry]), what, word)
    assert not node.inside("/etc/escaped").exists()


@pytest.mark.parametrize("case", LINKS)
def test_criu_images_with_links(node: Node, refuses: Refuses, good: Parts, case: str) -> None:
    refused_images(node, refuses, good, tar([*HEAD, LINKS[case]]), SPECIAL, "escape", "link")


def test_criu_images_that_are_a_bomb(node: Node, refuses: Refuses, good: Parts) -> None:
    bomb = zstd(node, zeros(MIB, HEAD))
    assert len(bomb) < 1 << 20
    refused_images(node, refuses, good, bomb, BOMB, "expands", code="expansion_limit")


def test_criu_images_with_zeros_behind(node: Node, refuses: Refuses, good: Parts) -> None:
    bomb = gzip.compress(tar(HEAD) + bytes(64 << 20), 1)
    refused_images(node, refuses, good, bomb, "archive: data behind its end")


def test_criu_images_larger_than_the_disk(node: Node, refuses: Refuses, good: Parts) -> None:
    """A header that promises a petabyte, compressed so that its size does not tell."""
    info = tarfile.TarInfo("pages-1.img")
    info.size = 1 << 50
    promise = gzip.compress(b"".join(HEAD) + info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    hostile = good.having("criu", promise)
    with imported(node, hostile) as reference:
        refuses(
            STAGE,
            {"checkpoint": reference},
            "staging disk too small",
            "needs 11259",
            modes=(False,),
            outcome="retryable",
        )


def test_criu_images_that_are_no_tar(node: Node, refuses: Refuses, good: Parts) -> None:
    refused_images(node, refuses, good, b"no tar at all " * 100, "archive: no tar", code="tar_not_a_tar")


def test_criu_images_without_inventory(node: Node, refuses: Refuses, good: Parts) -> None:
    refused_images(node, refuses, good, tar(HEAD[1:]), "CRIU images incomplete", "inventory.img")


def refused_archive(node: Node, refuses: Refuses, content: bytes, what: str, *words: str, code: str = "") -> None:
    """An image archive with these bytes is refused, in check mode too."""
    path = node.inside(ARCHIVE)
    path.write_bytes(content)
    try:
        params = {"name": make_images.REFERENCE, "archive": ARCHIVE}
        refuses(IMAGE, params, what, ARCHIVE, *words, code=code)
    finally:
        path.unlink()


@pytest.mark.parametrize("case", ENTRIES)
def test_archive_with(node: Node, refuses: Refuses, good: Parts, case: str) -> None:
    entry, what, word = ENTRIES[case]
    refused_archive(node, refuses, make_images.archive(good, make_images.REFERENCE, [entry]), what, word)
    assert not node.inside("/etc/escaped").exists()


@pytest.mark.parametrize("case", LINKS)
def test_archive_with_links(node: Node, refuses: Refuses, good: Parts, case: str) -> None:
    archive = make_images.archive(good, make_images.REFERENCE, [LINKS[case]])
    refused_archive(node, refuses, archive, "archive: link", "escape")


def test_archive_that_is_a_bomb(node: Node, refuses: Refuses) -> None:
    bomb = zstd(node, zeros(MIB))
    assert len(bomb) < 1 << 20
    refused_archive(node, refuses, bomb, BOMB, "expands")


def test_archive_with_a_bomb_beside_an_image(node: Node, refuses: Refuses, good: Parts) -> None:
    archive = make_images.archive(good, make_images.REFERENCE, [member("zeros", bytes(MIB << 20))])
    refused_archive(node, refuses, gzip.compress(archive, 1), BOMB, "expands")


def test_archive_that_is_no_tar(node: Node, refuses: Refuses) -> None:
    refused_archive(node, refuses, b"no tar at all " * 100, "archive: no tar", code="archive_unreadable")


@pytest.mark.parametrize("damage", ["missing", "truncated", "wrong-digest"])
def test_archive_with_a_damaged_blob(node: Node, refuses: Refuses, good: Parts, damage: str) -> None:
    # An ordinary image whose config the node does not have yet.
    manifest = json.loads(good.content("base"))
    config = make_images.encoded({**json.loads(good.blobs[manifest["config"]["digest"]] or b""), "author": "test"})
    digest = make_images.digest_of(config)
    manifest["config"].update(digest=digest, size=len(config))
    plain = good.ordinary().having("base", make_images.encoded(manifest))
    what, code, content, modes = {
        "missing": ("blob missing", "blob_missing", None, (True, False)),
        "truncated": ("blob truncated", "blob_size_mismatch", config[:-1], (True, False)),
        # What streams is verified while it streams: check mode cannot know.
        "wrong-digest": ("blob of wrong digest", "digest_mismatch", config[:-2] + b" }", (False,)),
    }[damage]
    assert code in CODES[what]
    plain.blobs[digest] = content
    path = node.inside(ARCHIVE)
    path.write_bytes(make_images.archive(plain, make_images.REFERENCE))
    try:
        refuses(IMAGE, {"name": make_images.REFERENCE, "archive": ARCHIVE}, what, digest, modes=modes, code=code)
    finally:
        path.unlink()


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
