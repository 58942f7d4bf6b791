# make run    starts the server on ./data with config.toml
# make test   what a change has to pass: format, lints, tests
# make torture  hours of kills, power cuts and damage; writes docs/torture-report.md
#
# Everything is built with Cargo's dev profile, which is optimised (Cargo.toml says why),
# so that RocksDB is built once, for `run`, `test` and `lint` alike. It lands in the
# user's cache folder, where a fresh clone finds it again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(HOME)/.cache/watchpost/target
# Clients of other projects that tests run against us, installed by npm and pip.
export WATCHPOST_CLIENTS ?= $(HOME)/.cache/watchpost/clients
# rustup's programs, also right after it was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help prerequisites build run test torture fmt lint bench fuzz dist clients

help:
	@sed -n 's/^# //p' Makefile | head -3
	@echo 'others: build fmt lint bench clients fuzz dist'

# Compilers and headers; installs what is missing on Debian and Ubuntu.
prerequisites:
	@.ci/prerequisites

build: prerequisites
	cargo build --locked

run: prerequisites
	cargo run --locked -- serve --config config.toml

fmt: prerequisites
	cargo fmt

lint: prerequisites
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

test: lint
	cargo test --locked
	@$(MAKE) --no-print-directory clients

# docs/testing-durability.md says what is in it; KILLS, ROUNDS, SOAK_S make it shorter.
torture: prerequisites
	@tests/torture/run.sh

# Real Jaeger, OpenTelemetry and Zipkin clients against a real process; what a machine cannot run is
# left out and said (tests/clients/run.sh).
clients: build
	@tests/clients/run.sh

# BENCH=ingest runs the benches with that in their name.
bench: prerequisites
	cargo bench --locked --profile dev -- $(BENCH)

# TARGET=logql; see fuzz/README.md. RocksDB is taken as built above, without a sanitizer: the
# decoders never touch it.
fuzz: build
	cd fuzz && env -u CARGO_TARGET_DIR ROCKSDB_STATIC=1 \
	  ROCKSDB_LIB_DIR="$$(dirname "$$(ls -t $(CARGO_TARGET_DIR)/debug/build/librocksdb-sys-*/out/librocksdb.a | head -1)")" \
	  cargo +nightly fuzz run $(or $(TARGET),logql) -- -max_total_time=$(or $(SECONDS_EACH),60)

# For packages: link-time optimisation. Builds RocksDB a second time.
dist: prerequisites
	cargo build --locked --profile dist
	@echo "$(CARGO_TARGET_DIR)/dist/watchpost"
