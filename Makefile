# Two commands do everything on a fresh machine with Python 3.10 or newer and make:
#   make demo   installs, then trains, exports, flies and reports on a made-up world
#   make test   installs, then runs every test that needs no GPU

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# onnxruntime and onnxruntime-gpu install the same module: take the one this machine can use.
RUNTIME := $(if $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null),gpu,cpu)

.PHONY: demo test test-unit test-wheel check format gpu-check rtx-check install clean help

help:
	@sed -n '2,3p' Makefile | cut -c3-; echo "  make check, format, test-unit, test-wheel, gpu-check, rtx-check, clean"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "skyfix needs Python 3.10 or newer, $(PYTHON) is older: make PYTHON=python3.12 …"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e '.[$(RUNTIME),maps,train,export]'
	@touch $@

demo: install
	@scripts/demo

test: install
	$(BIN)/python -m pytest -n 2
	@scripts/test-wheel

test-unit: install
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-wheel: install
	@scripts/test-wheel

check: install
	@scripts/check

gpu-check: install
	@scripts/gpu-check

rtx-check: install
	@scripts/rtx-check

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) out dist build
