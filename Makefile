# PYTHON= names the interpreter, PROCESSES= how many run the tests; PORT= and DATA_DIR= are read by the project's
# settings. Other package indexes than the usual ones are named as pip, uv (UV_DEFAULT_INDEX) and npm want them.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PROCESSES ?= 4
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
# It installs in seconds where pip takes minutes. Like pip, it trusts whom the system trusts, and so does npm below.
UV := $(VENV)/bin/uv
export UV_SYSTEM_CERTS := true
# Two clients want different versions of a third, so one environment cannot hold them all.
CLIENTS := .venv-clients/.installed .venv-clients-openai2/.installed
NODE := tests/clients/node
NODE_CLIENTS := $(NODE)/node_modules/.installed
NPM := NODE_OPTIONS=--use-system-ca .venv-clients/bin/npm --prefix $(NODE)
LOCK := --quiet --universal --generate-hashes --no-emit-index-url --no-header
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

HEX := $(PY) -c 'import secrets; print(secrets.token_hex(32))'
# What a production site sets, with secrets of the moment. Nothing connects to this database.
PRODUCTION = ENV_FILE=/dev/null DATA_DIR= DEBUG=false HTTPS=true ALLOWED_HOSTS=example.org \
	DATABASE_URL=sqlite://:memory: SECRET_KEY=$$($(HEX)) API_KEY_PEPPERS=p1:$$($(HEX)) ENCRYPTION_KEYS=$$($(HEX))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test clients check messages bench bench-scale bench-search attack screenshots format lock clean

help: ## Show what there is
	@echo "make <target>, with PORT=8000 and DATA_DIR=./data where they matter:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile

demo: $(DEMO) ## Start everything: database, model, server, and keys to try it with
	@$(PY) manage.py quickstart

# Each process of the tests has a database of its own. There are more of them than cores, since half of a test's time is
# waiting: for servers to start, for limits to pass. Files keep the order that tests/conftest.py gives them.
test: $(DEV) ## Run all tests
	@$(PY) -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

clients: $(CLIENTS) $(NODE_CLIENTS) ## Install the programs of others that tests/clients tries on the server

check: $(DEV) ## Check format, lint, types, migrations, and production settings
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	@echo "mypy"; $(PRODUCTION) $(PY) -m mypy fastgpt_site apikeys datasets chat
	@echo "makemigrations --check"; $(PRODUCTION) $(PY) manage.py makemigrations --check --dry-run
	@echo "check --deploy"; $(PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING

# It needs the programs of GNU gettext: on Debian, apt-get install gettext
messages: $(DEV) ## Gather the texts to translate into locale/, and compile what is translated
	@$(PRODUCTION) $(PY) manage.py makemessages --locale zh_Hans --no-location --no-wrap --no-obsolete \
		--ignore data --ignore staticfiles --ignore screenshots --ignore tests --ignore .bench-peers
	@$(PRODUCTION) $(PY) manage.py compilemessages --locale zh_Hans --ignore '.venv*'

bench: $(DEV) ## Measure throughput, latency and memory; with ARGS=--peers, beside other gateways
	@$(PY) -m tests.bench $(ARGS)

bench-scale: $(DEV) ## Measure whether a request costs more among a million keys
	@$(PY) -m tests.bench.scale $(ARGS)

bench-search: $(DEV) ## Measure what search finds, and how long it takes among a million vectors
	@$(PY) -m tests.bench.search $(ARGS)

attack: $(DEV) ## Attack a server of its own, and say what it held
	@$(PY) -m tests.attack $(ARGS)

screenshots: $(DEV) ## Take pictures of every page of the admin into screenshots/
	@$(PY) -m pytest tests/e2e/screenshots.py -q $(ARGS)

format: $(DEV) ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: $(UV) ## Lock the dependencies of pyproject.toml anew (ARGS=--upgrade for newer versions)
	$(UV) pip compile $(LOCK) $(ARGS) pyproject.toml -o requirements/base.txt
	$(UV) pip compile $(LOCK) $(ARGS) --extra demo pyproject.toml -o requirements/demo.txt
	$(UV) pip compile $(LOCK) $(ARGS) --extra demo --extra dev pyproject.toml -o requirements/dev.txt
	$(UV) pip compile $(LOCK) $(ARGS) --group uv -o requirements/uv.txt
	$(UV) pip compile $(LOCK) $(ARGS) --group clients -o requirements/clients.txt
	$(UV) pip compile $(LOCK) $(ARGS) --group clients-openai2 -o requirements/clients-openai2.txt
	@$(MAKE) .venv-clients/.installed
	$(NPM) $(if $(filter --upgrade,$(ARGS)),update,install) --package-lock-only
	sed -i '/"url": /d' $(NODE)/package-lock.json

clean: ## Remove what can be made again; the data folder stays
	rm -rf $(VENV) .venv-clients* $(NODE)/node_modules .test-data* .bench-peers
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis staticfiles screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): requirements/demo.txt | $(PY)
	@echo "Installing what the demo needs into $(VENV). The first time this takes about a minute."
	@$(PIP) --require-hashes --no-deps -r requirements/demo.txt
	@touch $@

$(DEV): requirements/dev.txt | $(UV)
	@echo "Installing what development and tests need into $(VENV). The first time this takes about half a minute."
	@$(UV) pip install --quiet --require-hashes --no-deps --compile-bytecode --python $(PY) -r requirements/dev.txt
	@touch $@

.venv-%/.installed: requirements/%.txt | $(UV)
	@echo "Installing $< into $(@D)."
	@$(UV) venv --quiet --clear --python $(PY) $(@D)
	@$(UV) pip install --quiet --require-hashes --no-deps --python $(@D)/bin/python -r $<
	@touch $@

$(NODE_CLIENTS): $(NODE)/package-lock.json | .venv-clients/.installed
	@echo "Installing $< into $(@D)."
	@$(NPM) ci --loglevel error
	@touch $@

$(UV): requirements/uv.txt | $(PY)
	@$(PIP) --require-hashes --no-deps -r requirements/uv.txt
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not one. Name another: make demo PYTHON=python3.12"; \
		exit 1; }
	@echo "Creating $(VENV)."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
