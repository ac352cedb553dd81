# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What guards a publication: full links, a tree that is ready, a changelog fragment for what users see."""

from __future__ import annotations

import importlib.util
import pathlib
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def load(name: str) -> types.ModuleType:
    """A tool of tests/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


full_links = load("full_links")
requirements_for = load("requirements_for")
release_check = load("release_check")
check_fragments = load("check_fragments")

BASE = "https://git.example.net/gpuops/restore/blob/1.2.0"
GALAXY = """\
version: 1.2.0
repository: https://git.gpuops.net/gpuops/restore
documentation: https://git.gpuops.net/gpuops/restore
homepage: https://git.gpuops.net
issues: https://git.gpuops.net/gpuops/restore/issues
"""


def tree(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        ("", "see [it](docs/a.md#part), [here](#here)", f"see [it]({BASE}/docs/a.md#part), [here](#here)"),
        ("", "[out](https://a.org/b) [mail](mailto:a@b.org)", "[out](https://a.org/b) [mail](mailto:a@b.org)"),
        ("", "[folder](docs)", f"[folder]({BASE}/docs)"),
        ("roles/one", "[up](../../docs/a.md)", f"[up]({BASE}/docs/a.md)"),
    ],
)
def test_links_to_files_become_full(tmp_path: pathlib.Path, folder: str, text: str, expected: str) -> None:
    root = tree(tmp_path, {"docs/a.md": "", "roles/one/README.md": ""})
    assert full_links.full(text, folder, BASE, root) == expected


@pytest.mark.parametrize("target", ["docs/absent.md", "../outside.md"])
def test_a_link_to_no_file_of_the_tree_is_refused(tmp_path: pathlib.Path, target: str) -> None:
    root = tree(tmp_path, {"outside.md": "", "tree/README.md": ""}) / "tree"
    with pytest.raises(SystemExit, match=r"links to .*, and there is no such file"):
        full_links.full(f"[a]({target})", "", BASE, root)


def test_all_pages_of_this_tree_have_targets() -> None:
    for page in full_links.pages(ROOT):
        folder = page.parent.relative_to(ROOT).as_posix()
        assert "](docs/" not in full_links.full(page.read_text(), folder, BASE, ROOT)


def ready(root: pathlib.Path, **other: str) -> pathlib.Path:
    changelog = "releases: {1.1.0: {}, 1.2.0: {}}\n"
    files = {
        "galaxy.yml": GALAXY,
        "changelogs/changelog.yaml": changelog,
        "CHANGELOG.rst": "\nv1.2.0\n======\n",
        **other,
    }
    return tree(root, files)


def edited(old: str, new: str) -> dict[str, str]:
    assert old in GALAXY
    return {"galaxy.yml": GALAXY.replace(old, new)}


def test_a_tree_can_be_ready(tmp_path: pathlib.Path) -> None:
    assert release_check.problems(ready(tmp_path)) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (edited("git.gpuops.net/gpuops/restore/issues", "example.org/issues"), "issues is the placeholder"),
        (edited("homepage: https:", "homepage: http:"), "homepage is http://git.gpuops.net, not an address with https"),
        (edited("repository", "other"), "repository is empty"),
        (edited("1.2.0", "1.2.0-dev"), "version is 1.2.0-dev, not MAJOR.MINOR.PATCH"),
        ({"changelogs/changelog.yaml": "releases: {1.1.0: {}}\n"}, "has no release 1.2.0"),
        ({"changelogs/changelog.yaml": "releases: {1.2.0: {}, 1.10.0: {}}\n"}, "has a newer release, 1.10.0,"),
        ({"CHANGELOG.rst": "\nv1.1.0\n======\n"}, "CHANGELOG.rst has no section v1.2.0"),
        ({"changelogs/fragments/7-a.yml": "bugfixes: [a]\n"}, "1 fragment(s) that are in no release, such as 7-a.yml"),
    ],
)
def test_what_is_not_ready_is_said(tmp_path: pathlib.Path, files: dict[str, str], said: str) -> None:
    (problem,) = release_check.problems(ready(tmp_path, **files))
    assert said in problem


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        (["plugins/modules/a.py"], True),
        (["roles/a/defaults/main.yml", "tests/unit/test_a.py"], True),
        (["plugins/modules/a.py", "changelogs/fragments/a.yml"], False),
        (["plugins/modules/a.py", "changelogs/changelog.yaml", "CHANGELOG.rst"], False),
        (["roles/a/README.md", "docs/a.md", "tests/tools/lint"], False),
        ([], False),
    ],
)
def test_what_users_see_needs_a_fragment(changed: list[str], wrong: bool) -> None:
    assert (check_fragments.problem(changed) is not None) == wrong


def test_a_wheelhouse_has_what_the_nodes_python_needs() -> None:
    text = """\
# A comment.
one==1.0 ; python_full_version < '3.10' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
one==2.0 ; python_full_version >= '3.10' \\
    --hash=sha256:cc
other==3 \\
    --hash=sha256:dd
"""
    assert requirements_for.chosen(text, "3.9") == [
        "one==1.0 --hash=sha256:aa --hash=sha256:bb",
        "other==3 --hash=sha256:dd",
    ]
    assert requirements_for.chosen(text, "3.10") == ["one==2.0 --hash=sha256:cc", "other==3 --hash=sha256:dd"]


def test_the_pages_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "tools"))
    site_pages = load("site_pages")
    index = "   :maxdepth: 1\n\n   README\n   docs/first-hour\n   The role <roles/one/README>\n   :caption: Begin\n"
    assert site_pages.named(index) == ["README", "docs/first-hour", "roles/one/README"]
    shown = site_pages.named((ROOT / "docs/docsite/site/index.rst").read_text())
    pages = {f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(shown), "a page of docs is not on the site"
