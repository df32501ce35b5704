#!/bin/sh
# Ask the vulnerability service about our pinned packages. Usage: pip-audit.sh PYTHON
set -eu
answer=$(mktemp)
errors=$(mktemp)
trap 'rm -f "$answer" "$errors"' EXIT
for list in requirements-base.txt requirements.txt requirements-no-deps.txt requirements-gpu.txt; do
    "$1" -m pip_audit --progress-spinner off --disable-pip --no-deps --format json -r "$list" >"$answer" 2>"$errors" || true
    "$1" - "$list" "$answer" "$errors" <<'END'
import json, sys
name, path, errors = sys.argv[1:]
try:
    packages = json.load(open(path))["dependencies"]
except ValueError:
    said = open(errors).read()
    if not any(word in said for word in ("Connection", "HTTP", "Max retries", "resolve", "timed out", "ServiceError")):
        sys.exit(f"pip-audit cannot look through {name}:\n{said}")
    sys.exit(print(f"pip-audit: SKIPPED {name}: the vulnerability service cannot be reached from here."))
weak = [f"{p['name']} {p['version']}: {v['id']}" for p in packages for v in p.get("vulns", [])]
unknown = [p["name"] for p in packages if "skip_reason" in p]
if unknown:
    print(f"pip-audit: SKIPPED in {name}, the service does not know or answer: {', '.join(unknown)}")
known = len(packages) - len(unknown)
print(f"pip-audit: {known} packages of {name} asked about, {len(weak)} known weaknesses" if known else
      f"pip-audit: nothing of {name} was checked")
sys.exit("\n".join(weak) or 0)
END
done
