# SPDX-License-Identifier: Apache-2.0
# The short front of the build; CMake does the work (CMakeLists.txt). What is missing is installed first (scripts/setup).
#
#   make                    both libraries and the command line, in build/
#   make demo [MODEL=path]  quantizes a real checkpoint with every recipe and prints one table
#   make test               everything tested: gcc, clang, sanitizers, valgrind, C and Python tests
#   make test-neon          AArch64's kernels, by a cross compiler and an emulator; a part of make test, as test-tsan (threads) is
#   make test-exhaustive    the tests that walk whole domains (all 2^32 floats): long; `make test-all`: both
#   make python             the Python package, into .venv
#   make gpu                on a machine with an NVIDIA GPU: builds what needs only libc, into build-gpu, and checks it there
#   make check              formatting, warnings, folders against src/DEPENDS, licence lines
#   make bench              measurements; `make bench-memory`: the bytes of every recipe; `make bench-cpu`: casts
#                           and products beside the machine's limits and other libraries
#   make install            to PREFIX=/usr/local, below DESTDIR=
#   make format             rewrites the C files as .clang-format says
#   make clean              removes the build folders; `make distclean` also .venv and .cache
MAKEFLAGS += --no-print-directory
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
STRICT ?= ON
CMAKE_FLAGS ?=
PYTEST_FLAGS ?=

PYTHON = .venv/bin/python
# Pinned by scripts/setup: versions differ in what they want.
CLANG_FORMAT = .venv/bin/clang-format
# Its makes have jobs of their own.
CMAKE = env -u MAKEFLAGS cmake
CONFIGURE = $(CMAKE) -S . -DCMAKE_RULE_MESSAGES=OFF -DCMAKE_TARGET_MESSAGES=OFF -DCMAKE_INSTALL_PREFIX=$(PREFIX) \
            -DBRECCIA_STRICT=$(STRICT) --log-level=WARNING $(CMAKE_FLAGS)
# The CUDA kernels are compiled into $(BUILD), and by their own test; the other builds are of the C code, in folders of its own.
NO_KERNELS = -DBRECCIA_CUDA=OFF
TESTED = $(BUILD)-test
NO_PROGRAMS = -DBRECCIA_CLI=OFF -DBRECCIA_BENCH=OFF
LIBRARY_ALONE = -DBRECCIA_FILES=OFF $(NO_PROGRAMS)
COMPILE = $(CMAKE) --build
# One worker a processor, each with half of the files, so that what a file imports or makes is seldom made twice. NumPy and torch
# would wait for threads of their own by turning, on processors that the other worker needs.
PYTEST = OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PYTHON) -m pytest -q -n $(JOBS) --dist worksteal
CTEST = ctest --output-on-failure --no-tests=error -j $(JOBS)
QUICK = -LE 'exhaustive|valgrind'
C_FILES = $(shell find src cli python/ext tests bench examples fuzz -name '*.[ch]' | sort)

ifneq ($(MAKECMDGOALS),side-by-side)
.NOTPARALLEL:
endif
.PHONY: all python setup-build setup-demo setup-check setup-tools setup-test demo test side-by-side build-tests test-clang test-sanitize test-tsan \
        test-neon test-valgrind test-kernels test-c test-python test-exhaustive test-all gpu check bench bench-cpu bench-memory install \
        format clean distclean

all: setup-build $(BUILD)/CMakeFiles/TargetDirectories.txt
	@$(COMPILE) $(BUILD) -j $(JOBS)

# Written by CMake when it succeeds; a cache is there after a failure too.
$(BUILD)/CMakeFiles/TargetDirectories.txt:
	@$(CONFIGURE) -B $(BUILD) -DBRECCIA_TESTS=OFF

setup-build setup-demo setup-check setup-tools setup-test:
	@scripts/setup $(@:setup-%=%)

# The command line alone, without the kernels, whose compilation takes minutes; make test takes what was compiled here.
demo: setup-demo
	@$(CONFIGURE) -B $(TESTED) -DBRECCIA_TESTS=OFF $(NO_KERNELS)
	@$(COMPILE) $(TESTED) -j $(JOBS) --target breccia_cli
	@$(PYTHON) scripts/demo --cli $(TESTED)/bin/breccia $(MODEL)

# Two parts at a time, so that the processors have work while packages are fetched and where a part ends with one long job.
# The runners' closing lines come last: ctest's, then pytest's.
test: setup-tools build-tests
	@$(MAKE) --output-sync --jobs=2 side-by-side
	@$(MAKE) test-c test-python

side-by-side: setup-test test-kernels test-sanitize test-clang test-neon test-tsan test-valgrind

build-tests: setup-check
	@echo "== build: $(TESTED)"
	@$(CONFIGURE) -B $(TESTED) -DBRECCIA_TESTS=ON $(NO_KERNELS)
	@$(COMPILE) $(TESTED) -j $(JOBS)

test-clang: setup-tools
	@echo "== clang: $(BUILD)-clang"
	@CC=clang CXX=clang++ $(CONFIGURE) -B $(BUILD)-clang -DBRECCIA_TESTS=ON $(NO_KERNELS)
	@$(COMPILE) $(BUILD)-clang -j $(JOBS)
	@$(CTEST) --test-dir $(BUILD)-clang $(QUICK)

test-sanitize: setup-check
	@echo "== address and undefined behaviour sanitizers: $(BUILD)-sanitize"
	@$(CONFIGURE) -B $(BUILD)-sanitize -DBRECCIA_TESTS=ON -DBRECCIA_SANITIZE=address $(NO_PROGRAMS) $(NO_KERNELS)
	@$(COMPILE) $(BUILD)-sanitize -j $(JOBS)
	@$(CTEST) --test-dir $(BUILD)-sanitize $(QUICK)

# The pool of threads alone: libbreccia and one test.
test-tsan: setup-check
	@echo "== thread sanitizer: $(BUILD)-tsan"
	@$(CONFIGURE) -B $(BUILD)-tsan -DBRECCIA_TESTS=ON -DBRECCIA_SANITIZE=thread $(LIBRARY_ALONE) $(NO_KERNELS)
	@$(COMPILE) $(BUILD)-tsan -j $(JOBS) --target test_ops_parallel
	@$(CTEST) --test-dir $(BUILD)-tsan -R '^ops/parallel$$'

# AArch64 by a cross compiler, under an emulator (which cannot fork a process of several threads, as ops/parallel does). Where
# the tools cannot be had it is left out; CI fails.
test-neon: setup-check
	@echo "== NEON: $(BUILD)-neon"
	@if scripts/setup neon; then \
	    $(CONFIGURE) -B $(BUILD)-neon -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DBRECCIA_TESTS=ON \
	        $(LIBRARY_ALONE) $(NO_KERNELS) --no-warn-unused-cli && $(COMPILE) $(BUILD)-neon -j $(JOBS) && $(CTEST) --test-dir $(BUILD)-neon -E '^ops/parallel|exhaustive|environment/'; \
	elif [ -n "$$CI" ]; then exit 1; \
	else echo "test-neon: LEFT OUT: no cross compiler or emulator, see the line above"; fi

test-valgrind: setup-tools build-tests
	@echo "== valgrind: $(TESTED)"
	@$(CTEST) --test-dir $(TESTED) -L valgrind

test-c: build-tests
	@echo "== C tests: $(TESTED)"
	@$(CTEST) --test-dir $(TESTED) $(QUICK)

# Fails on spills and on warpgroup products that the compiler serialized.
test-kernels:
	@echo "== CUDA kernels: $(BUILD)-kernels"
	@if command -v $${NVCC:-nvcc} >/dev/null; then \
	    sed -n 's/^IMAGE(\([^,]*\),.*/\1/p' src/cuda/images.def | CHECK=1 xargs -P $(JOBS) -n 1 src/cuda/build.sh $(BUILD)-kernels; \
	else echo "no nvcc: the kernels are not compiled"; fi

# The package into .venv: sdist, and from it the wheel, which tests/python/test_wheel.py looks at too. It links the libraries
# of $(TESTED); without BRECCIA_LIBRARIES the wheel compiles its own, as .github/workflows/ci.yml does.
python: setup-test build-tests
	@echo "== Python package"
	@rm -rf $(TESTED)/dist
	@PATH=$(CURDIR)/.venv/bin:$$PATH $(PYTHON) -m build --no-isolation -C cmake.define.BRECCIA_LIBRARIES=$(abspath $(TESTED)/lib) \
	    --outdir $(TESTED)/dist . >$(TESTED)/dist.log 2>&1 || { cat $(TESTED)/dist.log; exit 1; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(TESTED)/dist/*.whl

test-python: python
	@echo "== Python tests: $(TESTED)"
	@BRECCIA_BUILD=$(TESTED) BRECCIA_DIST=$(TESTED)/dist $(PYTEST) $(PYTEST_FLAGS)

test-exhaustive: setup-test build-tests
	@! ctest --test-dir $(TESTED) -N -L exhaustive | grep -q 'Total Tests: [1-9]' || $(CTEST) --test-dir $(TESTED) -L exhaustive
	@BRECCIA_BUILD=$(TESTED) $(PYTEST) -m exhaustive $(PYTEST_FLAGS)

test-all: test test-exhaustive

# QUICK=quick, EXHAUSTIVE=all, PARTS="build casts": see tests/cuda/on_gpu. Installs nothing.
gpu:
	@tests/cuda/on_gpu $(BUILD)-gpu $(PARTS)

check: setup-check
	@scripts/check_files
	@scripts/check_depends
	@$(CLANG_FORMAT) --dry-run --Werror $(C_FILES)
	@$(MAKE) build-tests STRICT=ON
	@echo "check: fine"

bench: all bench-memory
	@for program in $(filter-out $(BUILD)/bench/bench_memory,$(wildcard $(BUILD)/bench/bench_*)); do $$program || exit 1; done
	@$(MAKE) python
	@for program in bench/bench_*.py; do $(PYTHON) $$program || exit 1; done

# FLAGS="--quick --threads 1": bench/cpu/__main__.py says which there are.
bench-cpu: setup-test all
	@BRECCIA_BUILD=$(BUILD) $(PYTHON) bench/cpu $(FLAGS)

bench-memory: build-tests
	@$(TESTED)/bench/bench_memory

install: all
	@cmake -DCMAKE_INSTALL_MESSAGE=LAZY $(BUILD) --log-level=WARNING >/dev/null
	@cmake --install $(BUILD) --prefix $(PREFIX)

format: setup-check
	@$(CLANG_FORMAT) -i $(C_FILES)

clean:
	rm -rf $(BUILD) $(TESTED) $(BUILD)-clang $(BUILD)-sanitize $(BUILD)-tsan $(BUILD)-neon $(BUILD)-kernels $(BUILD)-gpu

distclean: clean
	rm -rf .venv .cache
