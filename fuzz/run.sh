#!/usr/bin/env bash
# Runs every fuzz target for so many seconds: fuzz/run.sh [SECONDS] [TARGET...]
#
# The pinned stable compiler is used: RUSTC_BOOTSTRAP=1 lets it take the sanitizer flags of cargo-fuzz, which is installed
# if it is missing. Targets start from fuzz/seeds and what earlier runs found (fuzz/corpus, not committed). An input that
# breaks a property is left in fuzz/artifacts/TARGET, with the command to run it again. Exit code 1 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

seconds="${1:-60}"
shift || true
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || { echo "usage: fuzz/run.sh [SECONDS] [TARGET...]" >&2; exit 2; }
export RUSTC_BOOTSTRAP=1 CARGO_TERM_COLOR=never
# A build of its own beside the workspace's: other flags, and the lock file stays untouched.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"

if ! command -v cargo-fuzz >/dev/null; then
    echo "cargo-fuzz is not on PATH: installing it"
    # Unoptimised: it waits for the compiler and the fuzzers, and is built in a third of the time.
    cargo install --locked --quiet --debug cargo-fuzz
fi
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list)
cargo fuzz build

passed=0 failed=0
for target in "${targets[@]}"; do
    corpus="fuzz/corpus/$target" log="$CARGO_TARGET_DIR/$target.log"
    mkdir -p "$corpus"
    options=(-max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0)
    [[ ! -f "fuzz/$target.dict" ]] || options+=(-dict="$PWD/fuzz/$target.dict")
    printf '%s: %s s\n' "$target" "$seconds"
    if cargo fuzz run "$target" "$corpus" "fuzz/seeds/$target" -- "${options[@]}" >"$log" 2>&1; then
        runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        # A fuzzer that ran nothing has proven nothing.
        if ((${runs:-0} > 100)); then
            passed=$((passed + 1))
            echo "  ok, $runs runs"
            continue
        fi
    fi
    failed=$((failed + 1))
    echo "  FAILED:"
    tail -60 "$log" | sed 's/^/  | /'
done
echo "$passed passed, $failed failed"
((failed == 0))
