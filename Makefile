# Everything a person does with this project. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
SOURCE ?=
PRUNE ?=
ARGS ?=
NAME ?=
FAULTS ?=
BENCH ?=
NEIGHBOURS ?=
CLIENTS ?=
WALK ?=
UPGRADE ?=
API ?=

.DEFAULT_GOAL := help
.PHONY: help up down restart run ps logs logs-web logs-worker logs-beat logs-db sources urls login docker-login debug shell db-shell clean \
        test test-api test-browser pictures bounds export full coverage lint format migration requirements faults bench neighbours clients walk upgrade docker-up docker-down

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.venv/installed: requirements.txt requirements/runtime.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "· installing the pinned requirements (first time only)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q wheel
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q -r requirements.txt
	@touch $@

.venv/suites: requirements.txt requirements/suites.txt .venv/installed
	@echo "· fetching test feeds and real CSV files (first time only)"
	@rm -rf $@ $@.part && $(BIN)/python -m pip download --disable-pip-version-check -q --no-deps --no-binary feedparser -d $@.part \
	    $$(grep '^feedparser==' requirements.txt) && \
	    { $(BIN)/python -m pip download --disable-pip-version-check -q --no-deps --only-binary :all: -d $@.part \
	      -r requirements/suites.txt || echo "· the real CSV files cannot be fetched; their test is left out"; } && \
	    mv $@.part $@

.venv/lint: requirements/lint.txt .venv/installed
	@$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements/lint.txt
	@touch $@

up: .venv/installed ## start the service, run every source once, show the result
	@$(BIN)/python -m stack up

down: .venv/installed ## stop the service; the data stays
	@$(BIN)/python -m stack down

restart: .venv/installed ## stop and start; ports that were given stay
	@$(BIN)/python -m stack restart

run: .venv/installed ## run a source and wait: make run SOURCE=name (all without one; FULL=1 reads all of it again)
	@$(BIN)/python -m stack run $(SOURCE) $(if $(FULL),--full)

ps: .venv/installed ## the processes of the stack
	@$(BIN)/python -m stack ps

logs: .venv/installed ## follow all logs (logs-web, logs-worker, logs-beat, logs-db for one)
	@$(BIN)/python -m stack logs

logs-web logs-worker logs-beat logs-db: .venv/installed
	@$(BIN)/python -m stack logs $(@:logs-%=%)

sources: .venv/installed ## apply sources.yaml (PRUNE=1 disables the sources that are not in it any more, ADOPT=1 takes over those declared over the API, DRY_RUN=1 only says what would change)
	@$(BIN)/python -m db sources $(if $(PRUNE),--prune) $(if $(ADOPT),--adopt) $(if $(DRY_RUN),--dry-run)

urls: .venv/installed ## addresses of the running stack, for scripts (make -s urls)
	@$(BIN)/python -m stack urls

login: .venv/installed ## an address that signs a browser in, once, within 10 minutes (ROLE=read|operate|admin)
	@$(BIN)/python -m web login $(if $(ROLE),--role $(ROLE))

docker-login: ## the same of the containers
	@docker compose exec web python -m web login $(if $(ROLE),--role $(ROLE))

debug: .venv/installed ## run a source in this process, with breakpoints and without Redis: make debug SOURCE=name
	@$(BIN)/python -m worker debug $(SOURCE)

shell: .venv/installed ## a Python shell in the project
	@$(BIN)/python -i -c "from config import settings; current = settings.load(); print('settings are in current')"

db-shell: .venv/installed ## psql on the stack's database
	@$(BIN)/python -m stack db-shell

clean: .venv/installed ## stop, and remove all data of the stack
	@$(BIN)/python -m stack clean

# All tests are shared out by file to two processes, long ones first as they stand; some, by one that can be interrupted.
test: .venv/installed .venv/suites .venv/fuzz/installed ## every test, with servers of its own (some: make test ARGS="tests/unit -k cursor")
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)

test-browser: .venv/installed ## the pages in a Chromium (CHROMIUM=/path/to/it)
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || command -v chromium-browser >/dev/null || \
	    { echo "error: no Chromium found; on Debian: apt-get install chromium, elsewhere name one: CHROMIUM=/path make test-browser" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/browser $(ARGS)

pictures: .venv/installed ## the pictures of the documentation, made anew (needs a Chromium)
	@$(BIN)/python -m testkit.pictures

coverage: .venv/lint .venv/suites ## the lines and branches that tests miss (all but the acceptance tests; some: ARGS="tests/unit")
	@$(BIN)/python -m coverage run -m pytest -q $(or $(ARGS),tests/unit tests/integration tests/migrations)
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report

lint: .venv/lint ## style, types, layers, secrets
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --exclude-lines "user:password@|POSTGRES_PASSWORD:" --exclude-files "^(data/|requirements|tests/integration/cookbook/)"

format: .venv/lint ## format the code
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .

.venv/fuzz/installed: requirements/fuzz.txt .venv/installed
	@echo "· installing what the HTTP interface is asked with (first time only)"
	@$(PYTHON) -m venv .venv/fuzz
	@.venv/fuzz/bin/python -m pip install --disable-pip-version-check -q -r requirements/fuzz.txt
	@touch $@

test-api: .venv/fuzz/installed ## the HTTP interface asked with all that its description allows, and more (API="--cases 20000 --seed 2")
	@$(BIN)/python -m bench.fuzz $(API)

full: .venv/installed ## disks that run full under PostgreSQL and Redis (as root)
	@$(BIN)/python -m bench.full

bounds: .venv/installed ## the pages of the database that answers about a million runs look at
	@$(BIN)/python -m bench.bounds

export: .venv/installed ## how fast items go out, against COPY of PostgreSQL (EXPORT="--items 100000")
	@$(BIN)/python -m bench.export $(EXPORT)

faults: .venv/installed ## the fault suite, short (FAULTS="--long --seed 2" for more)
	@$(BIN)/python -m bench.faults $(FAULTS)

migration: .venv/lint ## a new migration from what the models have: make migration NAME="what it does"
	@$(BIN)/python -m testkit.migration $(NAME)

requirements: .venv/installed ## pin the requirements anew
	@$(BIN)/python -m pip install --disable-pip-version-check -q pip-tools
	@cd requirements && for set in runtime=runtime all=../requirements lint=lint bench=bench fuzz=fuzz; do \
	    ../$(BIN)/pip-compile -q --upgrade --no-header --no-emit-index-url --no-emit-find-links --strip-extras \
	        --no-annotate --allow-unsafe $${set%=*}.in -o $${set#*=}.txt; done

.venv/peers/installed: requirements/bench.txt .venv/installed
	@echo "· installing what the benchmarks compare with (first time only)"
	@$(PYTHON) -m venv .venv/peers
	@.venv/peers/bin/python -m pip install --disable-pip-version-check -q -r requirements/bench.txt
	@touch $@

bench: $(if $(findstring --against,$(BENCH)),.venv/installed,.venv/peers/installed) ## measure against hand-written SQL, dlt and others (BENCH="--quick"), a commit in pairs (BENCH="--against HEAD~1")
	@$(BIN)/python -m bench.speed --json bench.json --plot bench.png $(BENCH)

neighbours: .venv/installed ## how late healthy sources start beside 230 bad ones (NEIGHBOURS="--seconds 60", "--processes 1 --dead 50")
	@$(BIN)/python -m bench.neighbours $(NEIGHBOURS)

upgrade: .venv/installed ## the newest migration on a million items, with writers and readers at work (UPGRADE="--items 100000")
	@$(BIN)/python -m bench.upgrade $(UPGRADE)

walk: .venv/installed ## the modules and calls between packages on the way of a record (WALK="--against COMMIT")
	@$(BIN)/python -m bench.walk $(WALK)

.venv/clients: requirements/bench.txt .venv/installed
	@echo "· fetching the server that ours is compared with (first time only)"
	@rm -rf $@ && $(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --target $@.part \
	    $$(grep '^granian==' requirements/bench.txt) && mv $@.part $@

clients: .venv/clients ## slow clients and slow questions against three servers (CLIENTS="--servers ours --only rate")
	@$(BIN)/python -m bench.clients $(CLIENTS)

docker-up: .venv/installed ## the containers: build, start, wait until healthy
	@$(BIN)/python -m stack docker-up

docker-down: .venv/installed ## stop the containers; the data stays
	@$(BIN)/python -m stack docker-down
