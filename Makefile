# PYTHON= names the interpreter, PROCESSES= how many run the tests; PORT= and DATA_DIR= are read by the project's
# settings.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PROCESSES ?= 4
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
LOCK := --quiet --universal --generate-hashes --no-emit-index-url --no-header
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

HEX := $(PY) -c 'import secrets; print(secrets.token_hex(32))'
# What a production site sets, with secrets of the moment. Nothing connects to this database.
PRODUCTION = ENV_FILE=/dev/null DATA_DIR= DEBUG=false HTTPS=true ALLOWED_HOSTS=example.org \
	DATABASE_URL=sqlite://:memory: SECRET_KEY=$$($(HEX)) API_KEY_PEPPERS=p1:$$($(HEX)) ENCRYPTION_KEYS=$$($(HEX))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check messages bench bench-scale bench-search attack screenshots format lock clean

help: ## Show what there is
	@echo "make <target>, with PORT=8000 and DATA_DIR=./data where they matter:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile

demo: $(DEMO) ## Start everything: database, model, server, and keys to try it with
	@$(PY) manage.py quickstart

# Each process of the tests has a database of its own. There are more of them than cores, since half of a test's time is
# waiting: for servers to start, for limits to pass. Files keep the order that tests/conftest.py gives them.
test: $(DEV) ## Run all tests
	@$(PY) -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

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
	@$(PRODUCTION) $(PY) manage.py compilemessages --locale zh_Hans --ignore .venv

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

lock: $(DEV) ## Lock the dependencies of pyproject.toml anew (ARGS=--upgrade for newer versions)
	$(PIP) uv
	$(PY) -m uv pip compile $(LOCK) $(ARGS) pyproject.toml -o requirements/base.txt
	$(PY) -m uv pip compile $(LOCK) $(ARGS) --extra demo pyproject.toml -o requirements/demo.txt
	$(PY) -m uv pip compile $(LOCK) $(ARGS) --extra demo --extra dev pyproject.toml -o requirements/dev.txt

clean: ## Remove what can be made again; the data folder stays
	rm -rf $(VENV) .test-data* .bench-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis staticfiles screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): requirements/demo.txt | $(PY)
	@echo "Installing what the demo needs into $(VENV). The first time this takes about a minute."
	@$(PIP) --require-hashes --no-deps -r requirements/demo.txt
	@touch $@

$(DEV): requirements/dev.txt | $(PY)
	@echo "Installing what development and tests need into $(VENV). The first time this takes about two minutes."
	@$(PIP) --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not one. Name another: make demo PYTHON=python3.12"; \
		exit 1; }
	@echo "Creating $(VENV)."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
