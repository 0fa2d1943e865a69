# `make demo` and `make test` need nothing but Python 3.10-3.12; each makes the environment it uses.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do command -v $$p && break; done | head -n 1)
VENV := .venv
VENV26 := .venv-paddle26
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: install demo test test-paddle26 clean

install: $(VENV)/.installed

demo: install
	$(VENV)/bin/python -m ppcls_ssld demo

# all tests on Paddle 3.3, then the unit tests on Paddle 2.6.2 (what `pip install paddlepaddle-gpu` gives from PyPI)
test: install $(VENV26)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest
	OMP_NUM_THREADS=1 $(VENV26)/bin/python -m pytest -m "not end_to_end"

$(VENV)/.installed: requirements.txt requirements-common.txt requirements-paddleclas.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else "Python 3.10, 3.11 or 3.12 is needed, found %d.%d; say PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements.txt
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r requirements-paddleclas.txt
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

$(VENV26)/.installed: requirements-common.txt requirements-paddleclas.txt pyproject.toml
	$(PYTHON) -m venv $(VENV26)
	$(VENV26)/bin/python -m pip install $(PIP_FLAGS) "paddlepaddle==2.6.2" "numpy<2" "pyarrow<23" -r requirements-common.txt
	$(VENV26)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r requirements-paddleclas.txt
	@touch $@

clean:
	rm -rf $(VENV) $(VENV26) output
