# From a profile to a model of your own. `make` alone lists the commands.
PROFILE ?= data/profiles/alex.yaml
OUT     ?= runs/alex
BASE    ?=
SEED    ?= 1
REPO    ?=
VENV    ?= .venv

export TOKENIZERS_PARALLELISM = false
RUN = $(VENV)/bin/python

# A python3 on the PATH may be too old, or a shim that only prints an error: take the first one that works.
CHECK = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PICK = for p in python3 python3.13 python3.12 python3.11; do \
         if $$p -c '$(CHECK)' >/dev/null 2>&1; then echo $$p; break; fi; done

.DEFAULT_GOAL := help
.PHONY: help setup run test chat notebooks lab bench doctor clean badges

help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: PROFILE=$(PROFILE) OUT=$(OUT) BASE=$(or $(BASE),default) SEED=$(SEED)"

setup: ## make the environment in .venv (all other commands do this first)
	@python=$$($(PICK)); if [ -z "$$python" ]; then \
	  echo "no usable Python found: install Python 3.11, 3.12 or 3.13 with its venv module" >&2; exit 2; fi; \
	$$python helpers/setup_env.py --venv "$(VENV)"

run: setup ## from a profile to a model you can chat with (PROFILE, OUT, BASE, SEED)
	@$(RUN) -m helpers personalize --profile "$(PROFILE)" --out "$(OUT)" --seed "$(SEED)" $(if $(BASE),--base "$(BASE)")

test: setup ## check the style and run all tests
	@$(RUN) -m ruff check .
	@$(RUN) -m pytest tests -n logical --maxprocesses 4 --dist worksteal

chat: setup ## talk to your model in the terminal (OUT)
	@$(RUN) -m helpers chat --model "$(OUT)"

notebooks: setup ## run the notebooks from the first cell to the last and store their outputs (ONLY=00)
	@$(RUN) -m helpers notebooks $(if $(ONLY),--only "$(ONLY)")

lab: setup ## open the notebooks in JupyterLab
	@$(RUN) -m jupyter lab notebooks

bench: setup ## measure the numbers in data/results again
	@$(RUN) -m helpers bench
	@$(RUN) -m helpers footprint
	@$(RUN) -m helpers samples

doctor: setup ## what this computer can do and what is missing
	@$(RUN) -m helpers doctor

badges: setup ## write where the repository is into badges and set-up cells (REPO=owner/name)
	@$(RUN) -m helpers badges --repo "$(REPO)"

clean: ## remove caches and half-made files; runs and the environment stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis unsloth_compiled_cache
	@find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
