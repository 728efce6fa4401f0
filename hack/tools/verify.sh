#!/usr/bin/env bash
# Fails when a generated file differs from what its generator makes now. Compared to copies, not to the last commit: work that
# is not committed yet is judged as it stands. A difference is shown, and the tree is left as it was.
set -euo pipefail
cd "$(dirname "$0")/../.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
parts=()
for part in crds proto charts docs/reference; do
  [ -e "$part" ] && parts+=("$part")
done
tar --exclude=__pycache__ -cf - "${parts[@]}" | tar -xf - -C "$copy"

make generate >"$copy/.log" 2>&1 || { cat "$copy/.log" >&2; exit 1; }

stale=0
for part in "${parts[@]}"; do
  diff -ru --exclude=__pycache__ "$copy/$part" "$part" || stale=1
done
if [ "$stale" != 0 ]; then
  tar -cf - -C "$copy" "${parts[@]}" | tar -xf -
  echo "What happened:  generated files differ from what their generators make (see above)" >&2
  echo "Not done:       nothing was changed" >&2
  echo "What to do now: run \`make generate\` and commit the result" >&2
  exit 1
fi
echo "Generated files are up to date: ${parts[*]}"
