#!/bin/sh
# Installs the runtime of this archive in a folder of its own: sh install.sh DIR
# Needs Python and no network, no pip and no compiler: all wheels lie beside this file, pip's too.
# The same again changes nothing. What it makes is started by DIR/bin/edgefleet-runtime.
# EDGEFLEET_PYTHON names the Python to take; EDGEFLEET_OWN_PYTHON another that is tried last.
set -eu
umask 022

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

[ $# -eq 1 ] || fail 'usage: sh install.sh DIR'
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $1 in
/*) to=$1 ;;
*) to=$(pwd)/$1 ;;
esac

# One at a time in a folder: what another installs here would be removed as a half-made one. What
# outlives this script when it is killed, such as pip, holds the lock until it ends.
beside=$(dirname -- "$to")
mkdir -p "$beside"
if [ -r "$beside" ] && command -v flock >/dev/null; then
    exec 9<"$beside"
    if ! flock -n 9; then
        printf 'waiting for another installation in %s\n' "$beside" >&2
        flock 9 || : # a file system without locks
    fi
fi
if cmp -s "$here/manifest.json" "$to/manifest.json"; then
    exit 0 # it appears last: all of it is there
fi
if [ -e "$to" ] && [ ! -e "$to/.incomplete" ] && [ -n "$(ls -A "$to")" ]; then
    fail "$to holds something else: name a folder that isn't there"
fi

python=
reasons=
for one in ${EDGEFLEET_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11} \
    "${EDGEFLEET_OWN_PYTHON:-}"; do
    found=$(command -v "$one") || continue
    if said=$("$found" -I -B "$here/device_check.py" "$here/manifest.json" "$to" 2>&1); then
        python=$found
        break
    fi
    reasons="$reasons
  $found: $said"
done
if [ -z "$python" ]; then
    fail "no Python here can run this runtime:${reasons:-
  there is none at all: install python3}"
fi

cleanup() {
    status=$?
    trap - EXIT
    [ "$status" -eq 0 ] || rm -rf "$to"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Settings of the device's own pip are not for this one.
for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
PIP_ROOT_USER_ACTION=ignore
export PIP_CONFIG_FILE PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_CACHE_DIR PIP_ROOT_USER_ACTION

pip() {
    runs=$1
    shift
    for wheel in "$here"/wheels/pip-*.whl; do
        PYTHONPATH=$wheel "$runs" -m pip install --quiet --no-index --no-deps --require-hashes \
            --only-binary=:all: -f "$here/wheels" -r "$here/requirements.lock" "$@"
    done
}

rm -rf "$to"
mkdir -p "$to"
: >"$to/.incomplete"
# Without pip in it: an environment needs ensurepip only for that, and Debian leaves ensurepip out.
if "$python" -I -c 'import venv' 2>/dev/null && "$python" -I -m venv --without-pip "$to"; then
    pip "$to/bin/python"
else
    pip "$python" --target "$to/site"
    mkdir -p "$to/bin"
    cat >"$to/bin/edgefleet-runtime" <<END
#!/bin/sh
PYTHONPATH='$to/site' exec '$python' -m edgefleet_runtime "\$@"
END
    chmod 755 "$to/bin/edgefleet-runtime"
fi
"$to/bin/edgefleet-runtime" --version
cp "$here/manifest.json" "$to/manifest.json.new"
sync # so that no power cut leaves the sign of a whole installation without its files
mv "$to/manifest.json.new" "$to/manifest.json"
rm -f "$to/.incomplete"
