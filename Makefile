# Two commands do everything: `make demo` and `make test`. The rest is for those who work on shiplap.
PYTHON ?= python3

.PHONY: demo test soak check bench setup clean

demo: ## install into .demo/venv, build examples/hello, run it
	@sh tests/setup/venv.sh "$(PYTHON)" .demo/venv .
	@.demo/venv/bin/python examples/demo.py

setup: ## what tests and checks need, Debian packages included where we may install them
	@sh tests/setup/packages.sh
	@sh tests/setup/venv.sh "$(PYTHON)" .venv '-e .[dev]'
	@sh tests/setup/zuul.sh "$(PYTHON)" .tests/zuul

test: setup ## all tests
	@.venv/bin/python -m pytest -q -n 2 --dist loadgroup

soak: setup ## the store's tests in full: every kill point, 300 kills at random, 100 damages, 3 minutes of loops; an hour or two
	@SHIPLAP_SOAK=1 .venv/bin/python -m pytest -q -s -n 2 tests/integration/test_store_*.py tests/integration/test_layers_many.py

check: setup ## lint, types, import rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup ## time shiplap beside the builders found here
	@.venv/bin/python -m bench

clean: ## (an ordinary user's store holds files of subordinate ids, which only shiplap can remove)
	@if [ -x .demo/venv/bin/shiplap ]; then .demo/venv/bin/shiplap --root .demo/store prune --all; fi
	rm -rf .demo .venv .tests
