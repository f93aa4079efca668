#!/bin/sh
# Starts the runtime that `current` names, or the one on trial beside it.
#
# In EDGEFLEET_RUNTIMES (/var/lib/edgefleet/runtime) lie:
#   versions/NAME  runtimes, as install.sh of their archives makes them
#   current        link to the one that serves
#   trial          "NAME LEFT": one to be tried, and how many more starts it has. A runtime that has
#                  proven itself makes `current` name it, and then removes this file.
#   reverted       what `trial` was, of one that used up its starts
# It is root's, and small: whatever a runtime does to that folder, the next start is decided here.
set -eu
home=${EDGEFLEET_RUNTIMES:-/var/lib/edgefleet/runtime}
chosen=$home/current
if [ "${1-}" = run ] && [ -f "$home/trial" ]; then
    name='' left=''
    read -r name left <"$home/trial" || :
    case $name in
    '' | .* | */*) left=0 ;;
    esac
    case $left in
    [1-9] | [1-9][0-9]) ;;
    *) left=0 ;;
    esac
    if [ "$left" -eq 0 ] || [ ! -x "$home/versions/$name/bin/edgefleet-runtime" ]; then
        mv -f "$home/trial" "$home/reverted" || :
    elif printf '%s %s\n' "$name" "$((left - 1))" >"$home/trial.new" &&
        mv -f "$home/trial.new" "$home/trial"; then
        # Only one whose start is counted is tried: a full disk starts `current`.
        chosen=$home/versions/$name
        EDGEFLEET_TRIAL=$name
        export EDGEFLEET_TRIAL
    fi
fi
if [ ! -x "$chosen/bin/edgefleet-runtime" ]; then
    printf 'error: there is no runtime at %s: run the install script again\n' "$chosen" >&2
    exit 1
fi
exec "$chosen/bin/edgefleet-runtime" "$@"
