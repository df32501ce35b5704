#!/bin/sh
# Set up a Debian of another release with its Orthanc in a folder. Usage: orthanc-version.sh VERSION FOLDER
set -eu
version=$1
folder=$2
case $version in
1.12.7) release=trixie script=trixie ;;
1.13.0) release=forky script=sid ;;
*)
    echo "Say which Orthanc, not '$version': make test-orthanc VERSION=1.10.1 (this machine's), 1.12.7 (trixie) or 1.13.0 (forky)." >&2
    exit 1
    ;;
esac
[ -e "$folder/.ready" ] && [ -e "$folder/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so" ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Only root can set up another Debian release in a folder; run this as root." >&2
    exit 1
fi
here=$(dirname "$0")
"$here/debian-packages.sh" debootstrap
# The mirror that this machine's own apt uses.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' | awk -v name="$codename" '$2 == name {print $1; exit}')
rm -rf "$folder"
mkdir -p "$folder"
echo "Setting up Debian $release with Orthanc $version in $folder (a few minutes, 700 MB)"
log=$folder.log
if ! {
    debootstrap --variant=minbase --include=ca-certificates "$release" "$folder" "$mirror" "$script" &&
        cp /etc/resolv.conf "$folder/etc/" &&
        # forky's Release file may have expired; signatures are still checked.
        echo 'Acquire::Check-Valid-Until "false";' >"$folder/etc/apt/apt.conf.d/90valid-until" &&
        chroot "$folder" apt-get update --quiet &&
        chroot "$folder" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
            orthanc orthanc-python orthanc-dicomweb orthanc-postgresql fonts-dejavu-core
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Debian $release could not be set up; the whole log is $log." >&2
    exit 1
fi
touch "$folder/.ready"
