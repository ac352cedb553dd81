# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between the playbooks, which have registered results of tasks, and the decisions.

A result is trusted no further than it goes: a host that was not reached, a task that failed or did not run, an answer
without what was asked for all mean that nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Callable

from . import controller, decisions, records
from .decisions import Migration, Seen, Verdict
from .records import Record

#: What a loop over copies or verdicts puts its item into; each has its ``record``.
ITEM = "gpuops_settle_item"
#: Of a look at a target: the answer of containerd_migration_info, and results of what ended copies there.
LOOK, ENDED = "look", "ended"

#: What an answer of a module has that did what it was asked for; ``failed`` may have been overruled by the playbook.
_GOOD = {"actions", "staged", "containers"}
_OTHERS = ("image_other_digest", "image_not_ours")
_RECORD = [field.name for field in fields(Record)]
_TEXTS = {field.name for field in fields(Seen)} - {"exists"}


def seen(answer: object) -> dict[str, Seen] | None:
    """The containers of a node, None where it gave no answer."""
    if (
        not isinstance(answer, Mapping)
        or _failure(answer) is not None
        or not isinstance(answer.get("containers"), Mapping)
    ):
        return None
    found = {}
    for name, container in answer["containers"].items():
        texts = {key: str(container[key]) for key in _TEXTS}
        found[str(name)] = Seen(exists=bool(container["exists"]), **texts)
    return found


def noted(answer: object, source: str, known: Sequence[Mapping[str, Any]] = ()) -> list[Record]:
    """The records of a source, or where it gave no answer those that this run has ``known``."""
    given = answer["records"] if isinstance(answer, Mapping) and seen(answer) is not None else known
    documents = ({key: document[key] for key in _RECORD if key in document} for document in given)
    return [replace(records.parse(document), source=source) for document in documents]


def of_target(record: Record, targets: Mapping[str, Any]) -> Seen | None:
    """What the record's target says of the copy, None where it says nothing."""
    found = seen(_part(targets, record.target, LOOK))
    # One that was not asked for is not known to be absent.
    return None if found is None else found.get(record.name)


def end_failed(record: Record, targets: Mapping[str, Any]) -> str | None:
    """Why the copy could not be ended, empty where it was, None where nobody tried."""
    tried = None
    for result in _part(targets, record.target, ENDED) or []:
        if _names(result, record):
            code = result["failure"].get("code") if isinstance(result.get("failure"), Mapping) else None
            # An image that has that name now was not what the copy came from.
            tried = tried or (code not in _OTHERS and _failure(result)) or ""
    return tried


def copies_to_end(
    host: str, answer: object, sources: Mapping[str, Any], migration: Mapping[str, Any] | None, others: bool
) -> list[Record]:
    """The records of all ``sources`` (their answers by host) whose copies on ``host`` are to be ended."""
    found = []
    for source, of_source in sources.items():
        containers = seen(of_source)
        for record in noted(of_source, source) if containers is not None else []:
            if record.target == host and not controller.at_work(record.controller, others):
                targets = {host: {LOOK: answer}}
                taken_up = _taken_up(migration)(record)
                here = (containers or {}).get(record.source_name, Seen())
                if decisions.has_to_end(record, here, of_target(record, targets), taken_up):
                    found.append(record)
    return found


def verdicts(
    source: str,
    answer: object,
    targets: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]] = (),
    migration: Mapping[str, Any] | None = None,
    settled: Sequence[Any] | None = None,
    others: bool = False,
) -> list[Verdict]:
    """The verdicts on all records of a source; with ``settled``, results of ending and resuming, as it came to be."""
    found = decisions.settle_all(
        noted(answer, source, known),
        seen(answer),
        lambda record: of_target(record, targets),
        lambda record: end_failed(record, targets),
        _taken_up(migration),
        lambda record: controller.at_work(record.controller, others),
    )
    if settled is None:
        return found
    return [decisions.carried_out(verdict, _not_settled(verdict, settled)) for verdict in found]


def plan(
    migration: Mapping[str, Any], of_source: object, of_target_host: object, found: Sequence[Verdict]
) -> decisions.Plan:
    """What the migration does. Hosts that gave no answer are problems."""
    begun = Migration.from_options(migration, controller.own())
    here, there = seen(of_source), seen(of_target_host)
    problems = [
        f"{host} gave no answer: {_why_silent(answer)}."
        for host, containers, answer in ((begun.source, here, of_source), (begun.target, there, of_target_host))
        if containers is None
    ]
    planned = decisions.plan(begun, found, here or {}, there or {})
    unreadable = of_source.get("unreadable", []) if isinstance(of_source, Mapping) else []
    problems += [
        f"{path} on {begun.source} is no record of a migration that can be read. Look at that workload, then remove it."
        for path in unreadable
    ]
    return replace(planned, problems=[*planned.problems, *problems])


def _taken_up(migration: Mapping[str, Any] | None) -> Callable[[Record], bool]:
    return Migration.from_options(migration, controller.own()).goes_on_from if migration else lambda _record: False


def _not_settled(verdict: Verdict, settled: Sequence[Any]) -> str:
    if not verdict.leave:
        return ""
    for result in settled:
        if _names(result, verdict.record):
            return _failure(result) or ""
    return "the host was not reached"


def _names(result: object, record: Record) -> bool:
    item = result.get(ITEM) if isinstance(result, Mapping) else None
    document = item.get("record") if isinstance(item, Mapping) else None
    return isinstance(document, Mapping) and (document.get("id"), document.get("name")) == (record.id, record.name)


def _part(targets: Mapping[str, Any], host: str, key: str) -> Any:
    found = targets.get(host)
    return found.get(key) if isinstance(found, Mapping) else None


def _why_silent(answer: object) -> str:
    why = _failure(answer) if isinstance(answer, Mapping) else None
    return (why or "it was not asked").strip().rstrip(".")


def _failure(answer: Mapping[str, Any]) -> str | None:
    """Why a task gave no good answer, None where it did."""
    if answer.get("unreachable"):
        return "the host was not reached"
    if answer.get("skipped"):
        return "it was not asked"
    if answer.get("failed") or "failure" in answer or not _GOOD.intersection(answer):
        return str(answer.get("msg") or "the module did not run; -vvv shows why")
    return None
