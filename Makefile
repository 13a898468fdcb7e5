# make train    installs into .venv if needed, trains the preset digits, evaluates it
# make test     installs into .venv if needed, checks the style, runs the tests; make test-slow runs the long tests
# make board    starts TensorBoard for runs/ at http://localhost:6006

PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-slow lint board

train: .venv/run
	$(BIN)/python train.py
	$(BIN)/python eval.py --ckpt runs/digits

test: .venv/dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

board: .venv/run
	$(BIN)/tensorboard --logdir runs --host localhost

.venv/run: requirements.txt
	@echo "installing into .venv: 3 GB, two minutes or more"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: .venv/run requirements-dev.txt requirements-parquet.txt requirements-torch.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
