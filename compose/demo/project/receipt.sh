#!/bin/sh
# Reads lines of "quantity price-in-cents name" and prints the total in cents.
set -eu

total=0
while read -r quantity price _; do
    total=$((total + price))
done
echo "$total"
