#!/usr/bin/env bash
# Whether NEW's engine may replace OLD's:
#
#     examples/gate.sh OLD NEW RECIPE ENGINE        such as: gate.sh old new mine.toml engines/built/mine
#
# Exit code 0: neither slower nor less accurate. 1: NEW's engine is refused, or slower or less accurate than OLD's in both of two
# comparisons, in the same row. 3: cannot tell, with too few images or in too short a time. 2: anything else that failed.
#
# OLD and NEW are two checkouts of a repository, on one machine: results of two devices are never compared. The base is measured
# twice, before and after, and a change is only believed where it stands against both; it is not judged. Where OLD has no RECIPE
# yet, only the verdict on NEW counts. One thread: on shared machines what two threads pay for each other moves by a factor of
# two. Leaves old-1.json, new-1.json, old-2.json and the tables old-1.md, old-2.md. TOOLKIT is the command, seen from OLD and NEW;
# BENCH_SECONDS the time of each of the three measurements.
set -euo pipefail
old=$1 new=$2 recipe=$3 engine=$4 here=$PWD
toolkit=${TOOLKIT:-toolkit}

build() { (cd "$1" && "$toolkit" build "$recipe" "${@:2}"); }
bench() { (cd "$1" && "$toolkit" bench "$engine" --threads 1 --seconds "${BENCH_SECONDS:-60}" -o "$here/$2.json"); }

build "$new"
[ -e "$old/$recipe" ] || { echo "gate: passed; $old has no $recipe, so there is nothing to compare with" && exit 0; }
build "$old" --no-proof
bench "$old" old-1
bench "$new" new-1
bench "$old" old-2
for before in old-1 old-2; do
  code=0
  (cd "$new" && "$toolkit" compare "$here/$before.json" "$here/new-1.json" --markdown) > "$before.md" || code=$?
  cat "$before.md"
  [ "$code" -le 1 ] || exit "$code" # they could not be compared
done
rows() { grep '^| ' "$1" | grep -v -e '^| engine |' -e '^| reference |'; } # nobody ships the reference
alarms() { rows "$1" | grep '[*][*]' | cut -d '|' -f 2,3 | sort; }
told() { rows "$1" | grep -v '| cannot tell |$'; }
both=$(comm -12 <(alarms old-1.md) <(alarms old-2.md))
[ -z "$both" ] || { printf 'gate: failed; worse than both measurements of %s:\n%s\n' "$old" "$both" && exit 1; }
told old-1.md > /dev/null && told old-2.md > /dev/null || { echo "gate: cannot tell; give it more BENCH_SECONDS" && exit 3; }
echo "gate: passed; no row is worse than both measurements of $old"
