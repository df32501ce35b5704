#!/bin/sh
# Install our packages for the Python of another Debian. Usage: orthanc-packages.sh FOLDER PYTHON
# They lie beside those of this machine's Python, where plugin/covid.py looks for them.
set -eu
folder=$1
python=$2
version=$(basename "$(ls -d "$folder"/usr/lib/python3.[0-9]*)" | sed 's/python//')
packages=$(dirname "$python")/../lib/python$version/site-packages
stamp=$packages/.ready
if [ -e "$stamp" ] && [ "$stamp" -nt requirements-base.txt ] && [ "$stamp" -nt requirements.txt ] &&
    [ "$stamp" -nt requirements-no-deps.txt ]; then
    exit 0
fi
echo "Installing packages for Python $version"
rm -rf "$packages"
install() {
    "$python" -m pip --disable-pip-version-check install --quiet --python-version "$version" --only-binary=:all: \
        --target "$packages" --upgrade "$@"
}
install -r requirements.txt
install --no-deps -r requirements-no-deps.txt
touch "$stamp"
