#!/bin/sh
# Feeds receipts to receipt.sh and compares the totals.
set -u

passed=0
failed=0

check() {
    got=$(printf '%b' "$3" | sh receipt.sh)
    if [ "$got" = "$2" ]; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1: expected $2, got $got"
    fi
}

check "an empty receipt" 0 ""
check "one thing" 250 "1 250 tea\n"
check "two things" 370 "1 250 tea\n1 120 bun\n"
check "three of a thing" 750 "3 250 tea\n"
check "several of each" 860 "2 250 tea\n3 120 bun\n"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
