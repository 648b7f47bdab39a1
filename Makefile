PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test lint bench clean

help:
	@echo "make demo     break a walking robot and watch it adapt (sets everything up first)"
	@echo "make test     run the tests (sets everything up first)"
	@echo "make lint     ruff and mypy"
	@echo "make bench    time the control loop on this machine"
	@echo "make install  only the set-up: $(VENV) with the pinned requirements"
	@echo "make clean    remove $(VENV), caches and build output; runs/ stays"
	@echo
	@echo "PYTHON=...    the interpreter to build $(VENV) from, 3.10 or newer ($(PYTHON))"
	@echo "PIP_ARGS=...  passed on to pip install. On Linux PyTorch's default build brings some"
	@echo "              gigabytes of CUDA; without a GPU, point pip to PyTorch's CPU index:"
	@echo "              make install PIP_ARGS=\"--extra-index-url URL\", the URL as on PyTorch's"
	@echo "              'Get started' page."

install: $(STAMP)

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev,ros]'
	@touch $@

demo: $(STAMP)
	$(BIN)/mbmrl demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/mbmrl bench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mbmrl controllers robots tests -name __pycache__ -prune -exec rm -rf {} +
