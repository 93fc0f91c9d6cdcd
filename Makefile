# make run     everything on this machine: WATCH=DIR PORT=N DATA=DIR are optional
# make test    sets everything up and runs the tests
# make help    the rest
#
# Needs Python 3.11 or newer with venv and pip, and nothing else. What is installed goes into .venv, which is filled
# again only when pyproject.toml or requirements/constraints.txt change.

SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
LOCK := requirements/constraints.txt
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint $(LOCK)

# The peers of make bench-bus, away from our own: what one of them asks for never changes what we are tested with.
PEERS := .venv-peers
PEERS_OLD := .venv-arq
BULLMQ := benchmarks/peers/bullmq
WEBHOOKS := benchmarks/peers/webhooks
INSTALLED_PEERS := $(PEERS)/.installed $(PEERS_OLD)/.installed $(BULLMQ)/node_modules/.installed $(WEBHOOKS)/node_modules/.installed

PORT ?= 8080
DATA ?= sourcebus-data
SOAK_MINUTES ?= 10
# All tests in two processes, a file in one of them. Named tests run in one, where a debugger can be used.
ALL := -n 2 --dist loadfile
# A folder of real files that every machine has: Python's own library. And the pages that explain what you are looking at.
ifdef WATCH
watched = --watch '$(WATCH)'
else
watched = --watch "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" --exclude site-packages --watch docs
endif

.PHONY: help run setup test soak suite-tables lint bench bench-bus bench-intake lock build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## start everything and keep a folder searchable (WATCH=DIR PORT=N DATA=DIR)
	@exec $(VENV)/bin/sourcebus up $(watched) --port $(PORT) --data '$(DATA)'

setup: $(VENV)/.installed-dev ## only make .venv, with what the tests need

test: $(VENV)/.installed-dev ## run the tests (ARGS="-k words" narrows them)
	@$(PY) -m pytest $(or $(ARGS),$(ALL))

soak: $(VENV)/.installed-dev ## the tests that take longer; new simulated worlds for SOAK_MINUTES (10, or hours)
	@SOAK_MINUTES='$(SOAK_MINUTES)' $(PY) -m pytest -m soak $(ARGS)

suite-tables: $(VENV)/.installed-dev ## run the connector suite and write its results into docs/connectors
	@$(PY) -m pytest -p sourcebus.testing.tables --suite-tables docs/connectors tests/connectors -q $(ARGS)

lint: $(VENV)/.installed-dev ## style, types and the floors between the rooms
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/pyright --pythonpath $(PY)
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-bench $(INSTALLED_PEERS) ## measure everything, beside CocoIndex and nine queues (minutes)
	@$(PY) -m benchmarks $(ARGS)

bench-bus: $(VENV)/.installed-dev $(INSTALLED_PEERS) ## measure the bus alone, beside BullMQ, Celery and seven more
	@$(PY) -m benchmarks bus $(ARGS)

bench-intake: $(VENV)/.installed-dev $(WEBHOOKS)/node_modules/.installed ## measure webhooks received, changes found in real systems, and faulty ones
	@$(PY) -m benchmarks intake $(ARGS)

lock: $(VENV)/.installed-dev ## choose new versions for requirements/constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@cp $(LOCK) $(VENV)/locked && head -n 1 $(VENV)/locked > $(LOCK)
	@$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra bench --python-version 3.11 --upgrade --quiet \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links >> $(LOCK) || { cp $(VENV)/locked $(LOCK); exit 1; }

build: $(VENV)/.installed-dev ## the wheel and the source archive, in dist/
	@$(PY) -m pip install --quiet --disable-pip-version-check build && $(PY) -m build

clean: ## remove what make made; your data (DATA) stays
	rm -rf $(VENV) $(PEERS) $(PEERS_OLD) $(BULLMQ)/node_modules $(WEBHOOKS)/node_modules dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@test -n "$(PYTHON)" || { echo "sourcebus needs Python 3.11 or newer; found none. Say which: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# Each stamp is newer than what it was made from; the ones below it fill the same .venv further.
$(VENV)/.installed: pyproject.toml $(LOCK) | $(PY)
	@echo "installing into $(VENV) (about a minute, once)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "installing what the benchmarks compare with"
	@$(PIP) --editable '.[dev,bench]'
	@touch $@

# A peer that cannot be installed is said to be missing, here and in the table; the others are measured all the same, and
# the next run tries again, because the stamp is only made when all of them are there.
$(PEERS)/.installed: benchmarks/peers/requirements.txt | $(PY)
	@$(call install_peers,$(PEERS),$<,redis celery huey dramatiq taskiq-redis rq pydocket celery-once)

$(PEERS_OLD)/.installed: benchmarks/peers/requirements-arq.txt | $(PY)
	@$(call install_peers,$(PEERS_OLD),$<,arq saq[redis])

define install_peers
echo "installing the peers of $(2) into $(1)"; \
test -x $(1)/bin/python || $(PY) -m venv $(1); \
pip="$(1)/bin/python -m pip install --quiet --disable-pip-version-check"; \
if $$pip --requirement $(2); then touch $(1)/.installed; else for peer in $(3); do \
	$$pip --constraint $(2) $$peer || echo "could not install $$peer: the benchmarks go without it" >&2; done; fi
endef

$(BULLMQ)/node_modules/.installed: $(BULLMQ)/package.json
	@echo "installing BullMQ into $(BULLMQ)/node_modules"
	@if command -v npm > /dev/null; then cd $(BULLMQ) && npm install --silent --no-progress && touch node_modules/.installed \
		|| echo "could not install BullMQ: the benchmarks go without it" >&2; \
	else echo "no npm here: the benchmarks go without BullMQ; Debian and Ubuntu: apt-get install nodejs npm" >&2; fi

$(WEBHOOKS)/node_modules/.installed: $(WEBHOOKS)/package.json
	@echo "installing GitHub's example payloads into $(WEBHOOKS)/node_modules"
	@if command -v npm > /dev/null; then cd $(WEBHOOKS) && npm install --silent --no-progress && touch node_modules/.installed \
		|| echo "could not install the payloads: the benchmarks go without them" >&2; \
	else echo "no npm here: the benchmarks go without GitHub's payloads; Debian and Ubuntu: apt-get install nodejs npm" >&2; fi
