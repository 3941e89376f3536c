# Every target makes its own environment in .venv on first use (torch and torchvision from the index, then the rest of settings.ini).
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := agg
ARGS ?=
JOBS ?= 4

.PHONY: export course docs help install demo lab test test-all test-newest bench clean
help:
	@echo "make demo      pretrain without labels, segment with 20, write runs/demo/report.html  (ARGS='--data camvid --root PATH': CP2 and MoCo on your data)"
	@echo "make export    the library from its notebooks: pixcl_nb/"
	@echo "make lab       open JupyterLab at the first notebook"
	@echo "make test      export in sync, notebooks and tests: 8 minutes on two cores; ARGS=--long adds what takes 10 CPU seconds and more, as CI does"
	@echo "make test-all  all that, with the slow cells and tests"
	@echo "make test-newest  the core of the tests on the newest Python of this machine, with the newest packages"
	@echo "make course    the assignments: course/student.zip for students, course/instructor for you"
	@echo "make docs      the documentation as one site that needs no server: build/docs/index.html"
	@echo "make bench     speed and memory against the usual ways, as ratios of one run"

install: $(STAMP)
$(STAMP): settings.ini setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

export: $(STAMP)
	$(BIN)/nbdev_export
	$(BIN)/python -c "from pathlib import Path; from pixcl_nb.public import write_packages; write_packages(Path('pixcl_nb'))"

demo: $(STAMP)
	$(BIN)/pixcl demo $(ARGS)

lab: $(STAMP)
	$(BIN)/jupyter lab nbs/index.ipynb

# Four workers share the files and, at the end, the notebooks: on two cores too, since a third of the time a test waits for a browser or a sandbox. A table of CPU seconds follows. More cores: make test JOBS=16
test: $(STAMP)
	$(BIN)/python -m pytest tests -n $(JOBS) $(ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest tests --slow $(ARGS)

test-newest: $(STAMP)
	$(BIN)/python tests/tools/newest_python.py $(ARGS)

bench: $(STAMP)
	@for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; done

course: $(STAMP)
	$(BIN)/pixcl course

docs: $(STAMP)
	$(BIN)/python nbs/site/make_site.py $(ARGS)

clean:
	rm -rf runs build dist *.egg-info
