# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For those who use nox in place of the Makefile: ``pip install nox antsibull-nox ansible-core``, then ``nox --list``.

Most sessions are those that antsibull-nox.toml chooses; ``imports`` and ``units`` call this repository's own tools.
What starts nodes is in the Makefile alone.
"""

# /// script
# dependencies = ["nox>=2025.02.09", "antsibull-nox>=1.0.0", "ansible-core>=2.19"]
# ///

from __future__ import annotations

import nox

try:
    import antsibull_nox
except ImportError:
    raise SystemExit("antsibull-nox is missing: run 'pip install antsibull-nox' where nox is installed") from None

antsibull_nox.load_antsibull_nox_toml()


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """Check that imports go the way that docs/architecture.md says."""
    session.run("python3", "tests/tools/check_imports.py")


@nox.session(venv_backend="none", default=False)
@nox.parametrize("python_version", [nox.param(v, id=v) for v in ("3.9", "3.10", "3.11", "3.12", "3.13")])
def units(session: nox.Session, python_version: str) -> None:
    """Run the unit tests on that Python; arguments are for pytest."""
    session.run("tests/tools/units", *session.posargs, env={"PYTHONS": python_version}, external=True)


if __name__ == "__main__":
    nox.main()
