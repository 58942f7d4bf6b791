#!/usr/bin/env bash
# Runs the long tests of tests/it/torture one after the other and writes docs/torture-report.md.
#   KILLS      kills of each of the three kill loops (600, 300, 300)
#   ROUNDS     bytes damaged in each file of the data directory (5)
#   SOAK_S     seconds of the soak (1800)
#   TORTURE_OUT  where results are collected: with an existing file a run adds to it
#   MODES      which of them (all)
set -eu
cd "$(dirname "$0")/../.."
modes="${MODES:-runs::kills runs::kills_at_named_points runs::power_cuts bugs errors flips::damaged_bytes soak::soak_at_the_memory_limit}"
export TORTURE_OUT="${TORTURE_OUT:-$(mktemp)}"
export TORTURE_REPORT="${TORTURE_REPORT:-docs/torture-report.md}"

it() {
    cargo test --locked --test it -- --nocapture --include-ignored "$@"
}

failed=''
for mode in $modes; do
    echo "+ $mode"
    case $mode in
    bugs) it --test-threads 1 found_out || failed="$failed $mode" ;;
    errors) it --exact torture::errors::every_call_that_fails || failed="$failed $mode" ;;
    *) it --exact "torture::$mode" || failed="$failed $mode" ;;
    esac
done
it --exact torture::report::write_report
echo "written: $TORTURE_REPORT"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
