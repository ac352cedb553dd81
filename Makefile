# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# What there is to run; the work is done by the scripts in tests/tools.

.DEFAULT_GOAL := help
SHELL := /bin/bash
TOOLS := tests/tools

.PHONY: help demo check test lint sanity units integration two-controllers migrate-kills evacuate-kills window window-slices look faults faults-table fuzz molecule bench bench-fleet gpu-bundle wheelhouse requirements package docs docs-look install-check release-check changelog compatibility clean distclean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## a maintenance window over three nodes: found, captured, down and up, restored, reported (root)
	@$(TOOLS)/demo

check: ## lint, and the unit tests on one Python: an answer within three minutes
	@WORKERS=$$(nproc) $(TOOLS)/gates lint units/newest

test: ## everything that CI runs (root, for the nodes; GATES="units sanity" for some)
	@$(TOOLS)/gates $(GATES)

lint: ## the checks that only read the tree (CHECKS="ruff mypy" for some)
	@$(TOOLS)/$(if $(CHECKS),lint $(CHECKS),gates lint)

sanity: ## ansible-test sanity on the oldest and newest core (PYTHONS=3.11 for one; CORE=2.20 or 2.22 for those of tests/requirements)
	@$(TOOLS)/$(if $(PYTHONS)$(CORE),sanity,gates sanity)

units: ## unit tests on all Pythons that are here (PYTHONS=3.11 for one)
	@$(TOOLS)/units

integration: ## the steps on a real containerd, in nodes of this machine (root; GPUOPS_CONTAINERD=1.6 for all on that one)
	@$(TOOLS)/gates integration

two-controllers: ## two restores of one workload, begun at twenty offsets (root; GPUOPS_CONTAINERD)
	@GPUOPS_OFFSETS="$$(seq -s ' ' 0 0.4 7.6)" $(TOOLS)/integration tests/integration/test_two_controllers.py

migrate-kills: ## a migration from node to node whose controller is killed, at each of many moments (root; GPUOPS_CONTAINERD)
	@GPUOPS_KILLS=each $(TOOLS)/integration tests/integration/test_migrate_killed.py

evacuate-kills: ## a window that moves its workloads to a spare node and back, whose controller is killed at many moments (root; GPUOPS_CONTAINERD)
	@GPUOPS_KILLS=each $(TOOLS)/integration tests/integration/test_evacuate.py -k come_back

window: ## a maintenance window over many nodes in which things go wrong (root; NODES=16, KILLS=10 of the controller, REBOOTS=5 of nodes)
	@$(TOOLS)/window

window-slices: ## a window in slices by ansible-runner, as AWX runs the project examples/awx (root; NODES=4, SLICES=2)
	@$(TOOLS)/window-slices

look: ## the page of a window's report in headless Chromium (root, to install it; PAGE=report.html for one of yours)
	@$(TOOLS)/look

faults: ## each fault at each call of the main steps, hours, in pieces (root; CONTAINERD, STEPS, FAULTS, EVERY, MINUTES as in tests/faults/README.md)
	@$(TOOLS)/faults

faults-table: ## what was struck so far, into docs/reliability.md
	@$(TOOLS)/faults --table docs/reliability.md

fuzz: ## readers of what strangers wrote, with more cases than make test has (GPUOPS_FUZZ_CASES, GPUOPS_FUZZ_SEED)
	@$(TOOLS)/fuzz

molecule: ## scenarios on nodes of this machine (root; SCENARIO=default for one)
	@$(TOOLS)/$(if $(SCENARIO),molecule $(SCENARIO),gates molecule)

bench: ## ours against the tools that people use (root; SECTIONS, SIZES, PAIRS as in tests/benchmarks/README.md)
	@$(TOOLS)/bench $(SECTIONS)

bench-fleet: ## what a node costs the controller, with 4, 16 and 48 nodes (root; NODES="4 16")
	@$(TOOLS)/bench-fleet

gpu-bundle: ## one archive for tests/gpu/run.sh on a GPU host without a network (root)
	@$(TOOLS)/gpu-bundle

wheelhouse: ## wheels for nodes that reach no index (PYTHON=3.12 of theirs, REQUIREMENTS="node gpu-570", WHEELHOUSE=DIRECTORY)
	@$(TOOLS)/wheelhouse

requirements: ## what nodes install, with hashes, of requirements/*.in (PyPI)
	@$(TOOLS)/requirements

package: ## the archive for Galaxy, into build/package
	@$(TOOLS)/package

docs: ## the site of all documents, into build/site/html; any warning fails
	@$(TOOLS)/docs

docs-look: ## pictures of the site's pages by headless Chromium, into build/site/look (PAGES="docs/window.html" for some)
	@$(TOOLS)/docs-look $(PAGES)

install-check: ## build the collection, have galaxy-importer take it, install it, use it by name
	@$(TOOLS)/install-check

release-check: ## whether this tree can be released (docs/releases.md)
	@$(TOOLS)/release-check

changelog: ## write CHANGELOG.rst anew, with the modules that are there
	@$(TOOLS)/changelog

compatibility: ## what the last integration tests met, into docs/compatibility.md
	@$(TOOLS)/compatibility_table.py build/compatibility docs/compatibility.md

clean: ## bring nodes down, remove what was built; only the cache stays
	@$(TOOLS)/clean

distclean: ## clean, and remove the cache
	@$(TOOLS)/clean --all
