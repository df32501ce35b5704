#!/bin/sh
# Install Debian packages that are missing. Usage: debian-packages.sh PACKAGE...
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "These Debian packages are missing, and only root can install them:$missing" >&2
    exit 1
fi
echo "Installing from Debian:$missing"
export DEBIAN_FRONTEND=noninteractive
# dpkg wants programs that are in folders of an administrator's PATH.
export PATH="$PATH:/usr/sbin:/sbin"
install() {
    # shellcheck disable=SC2086 # a list of words
    $as_root apt-get install --yes --quiet --no-install-recommends $missing
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { install || { $as_root apt-get update --quiet && install; }; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "The Debian packages could not be installed:$missing" >&2
    exit 1
fi
case " $missing " in
*" orthanc "*)
    # Debian starts a service that takes images from anyone; whoever only wants to try this did not ask for it.
    if command -v systemctl >/dev/null && systemctl is-active --quiet orthanc 2>/dev/null; then
        $as_root systemctl disable --now orthanc >/dev/null 2>&1
        echo "Debian's own Orthanc service was switched off; 'systemctl enable --now orthanc' switches it on."
    fi
    ;;
esac
