# The commands of this project. `make run` and `make test` do all set-up themselves.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What the set-up built comes first, then what the machine has; the last two are where installers put Rust and Go.
export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/.tools/venv/bin:$(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin

# dev builds in a fraction of the time; PROFILE=release is for measuring and for use.
PROFILE ?= dev
# DEMO=0 starts without the recording job.
DEMO ?= 1
# More arguments for the program (run, bench) or for the tests (test).
ARGS ?=
# The fuzz target, all without it, and the seconds each gets.
TARGET ?=
FUZZ_SECONDS ?= 300
# The seed of one simulation.
SEED ?= 1

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/quintet
SCRIPTS := deploy/scripts

.PHONY: help setup setup-build setup-run setup-lint build-tests run test test-real fuzz lint bench bench-peers schemas sim nats-image docker-stop

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

setup: ## Find or get all that building, running and testing needs
	@$(SCRIPTS)/setup

setup-build:
	@$(SCRIPTS)/setup compiler rust

setup-run:
	@$(SCRIPTS)/setup compiler rust nats-server ffmpeg

setup-lint:
	@$(SCRIPTS)/setup compiler rust cargo-tools

run: setup-run ## Build, start everything with one agent, record a live stream (DEMO=0: do not; PROFILE=release)
	cargo build --profile $(PROFILE) -p quintet
	@exec $(PROGRAM) up --agents 1 $(if $(filter 0,$(DEMO)),,--demo) $(ARGS)

test: setup ## Run every test, documentation examples included, and fuzz for a moment (ARGS: only some tests, without the rest)
	@$(SCRIPTS)/sweep
	cargo nextest run --workspace $(ARGS)
	@$(if $(ARGS),,cargo test --workspace --doc --quiet)
	@$(if $(ARGS),,FUZZ_SECONDS=20 $(SCRIPTS)/fuzz)

build-tests: setup-build ## Build everything that `make test` runs, and run nothing
	cargo test --workspace --no-run
	@$(SCRIPTS)/fuzz build

test-real: setup ## Build and test what takes minutes to compile or fetch (features, real models and servers)
	@echo "test-real: nothing is in it yet; what needs a feature or a real model comes with inference and voice"

fuzz: setup-build ## Feed the borders arbitrary bytes (TARGET=codec: only that one; FUZZ_SECONDS=300 each)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(SCRIPTS)/fuzz $(TARGET)

lint: setup-lint ## Check formatting, lints, documentation, and the licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --exclude quintet-fuzz --all-targets -- -D warnings
	cargo deny --config deploy/deny.toml check --hide-inclusion-graph licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude quintet-fuzz --no-deps
	@for script in $(SCRIPTS)/* .ci/run; do bash -n $$script; done
	@if command -v shellcheck >/dev/null; then shellcheck --external-sources $(SCRIPTS)/* .ci/run; fi

bench: setup-run ## Measure against the raw bus, on a release build
	cargo build --release -p quintet -p quintet-bench
	@exec $(TARGET_DIR)/release/quintet-bench $(ARGS)

bench-peers: setup-run ## Measure next to BullMQ, Celery and Restate, in one run (ARGS="--jobs 20000 --rounds 3")
	cargo build --release -p quintet -p quintet-bench
	python3 tests/peers/run.py --quintet $(TARGET_DIR)/release/quintet $(ARGS)

schemas: setup-build ## Regenerate schemas/ from the code
	cargo run -p quintet -- schemas --write

sim: setup-build ## Run one simulation again (SEED=… of jobs, or RUNS_SEED=… of runs)
	$(if $(RUNS_SEED),QUINTET_SIM_RUNS_SEED=$(RUNS_SEED),QUINTET_SIM_SEED=$(SEED)) cargo test --workspace --test sim $(if $(RUNS_SEED),no_fault_makes_a_node,no_fault_makes_a_job) -- --nocapture $(ARGS)

nats-image: ## Build the NATS image of the tests, without an image registry
	@$(SCRIPTS)/nats-image

docker-stop: ## End the Docker engine that the set-up started, and no other
	@$(SCRIPTS)/docker-engine stop
