# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules as Ansible sees them: names, documents, options checked against argument specs, calls in this process."""

from __future__ import annotations

import copy
import importlib
import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from ansible.module_utils.common import warnings
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.testing import patch_module_args

from ansible_collections.gpuops.restore.plugins.module_utils import _module

TREE = Path(str(_module.__file__)).parents[2]
COLLECTION = "gpuops.restore"
#: What the fixture ``call`` gives.
Call = Callable[..., "dict[str, Any]"]
NAMES = sorted(path.stem for path in (TREE / "plugins" / "modules").glob("*.py"))


def load(name: str) -> Any:
    """The module's Python module."""
    return importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.modules.{name}")


def document(name: str, part: str) -> Any:
    """``EXAMPLES`` or ``RETURN`` of the module, parsed."""
    return yaml.safe_load(getattr(load(name), part))


def argument_spec(name: str) -> dict[str, Any]:
    """A copy of the module's own, since Ansible fills in defaults that are dictionaries when it validates."""
    return copy.deepcopy(load(name).ARGUMENT_SPEC)


def parameters(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with the defaults of the others, as a step finds them. Raises ValueError for what Ansible refuses."""
    spec = {**_module.CONTAINERD, **argument_spec(name)}
    found = ArgumentSpecValidator(spec, **getattr(load(name), "RULES", {})).validate(dict(options))
    if found.error_messages:
        raise ValueError(f"{name}: {'; '.join(found.error_messages)}")
    validated: dict[str, Any] = found.validated_parameters
    return validated


def as_shown(printed: str) -> dict[str, Any]:
    """What the controller makes of what a module has printed: from ansible-core 2.22 on it is who masks."""
    answer: dict[str, Any] = json.loads(printed)
    secrets = answer.pop("_ansible_new_secrets", [])
    text = json.dumps(answer)
    for secret in secrets:
        text = text.replace(json.dumps(secret)[1:-1], "$REDACTED$")
    shown: dict[str, Any] = json.loads(text)
    return shown


def run(name: str, check: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one call, which has to be as documented. Raises ValueError for what Ansible refuses."""
    printed = io.StringIO()
    given = {**options, "_ansible_check_mode": check}
    # Ansible gathers warnings for the life of a process, which ordinarily is that of one module.
    silent = patch.dict(warnings._global_warnings, clear=True)
    fresh = patch.object(load(name), "ARGUMENT_SPEC", argument_spec(name))
    with silent, fresh, patch_module_args(given), redirect_stdout(printed), suppress(SystemExit):
        load(name).main()
    answer = as_shown(printed.getvalue())
    if "warnings" in answer:
        answer["warnings"] = [warning["event"]["msg"] for warning in answer["warnings"]]
    if answer.get("failed") and "failure" not in answer:
        raise ValueError(f"{name}: {answer['msg']}")
    assert undocumented(name, answer) == []
    return answer


#: What Ansible itself adds to an answer, and what it documents for all modules.
COMMON = {"changed", "diff", "warnings", "deprecations", "invocation", "failed", "msg", "exception"}
TYPES = {"bool": bool, "dict": dict, "float": (int, float), "int": int, "list": list, "str": str}


def undocumented(name: str, answer: Mapping[str, Any]) -> list[str]:
    """How an answer differs from what RETURN says; null is allowed for anything."""
    documented = document(name, "RETURN")
    due = {key for key, of in documented.items() if of["returned"] == "success"}
    if "failure" in answer:
        due = set()
    found = [f"{key} is documented nowhere" for key in sorted(set(answer) - COMMON - set(documented))]
    found += [f"{key} lacks" for key in sorted(due - set(answer))]
    for key in sorted(set(answer) & set(documented)):
        if answer[key] is not None and not isinstance(answer[key], TYPES[documented[key]["type"]]):
            found.append(f"{key} is no {documented[key]['type']}")
    return found
