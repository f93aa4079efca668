
usage() {
    cat <<END
Installs the EdgeFleet runtime $version on this machine and starts it. The same again changes nothing.

  sh install.sh [--gateway URL [--pin sha256//BASE64]] [OPTIONS]         joins a fleet; token by stdin
  sh install.sh [OPTIONS] --archive FILE -- --device NAME --channel ...  any other channel

  --archive FILE     take this archive instead of fetching it
  --state DIR        models, telemetry, identity, runtimes (default: /var/lib/edgefleet)
  --prefix DIR       of the program that starts it (default: /opt/edgefleet)
  --user NAME        who it runs as; made if there is none (default: edgefleet)
  --group NAME       a group of that user's, such as video, for an accelerator; any number of times
  --memory-max SIZE  most memory that it may take, such as 2G (default: all there is)
  --http HOST:PORT   where it serves (default: 127.0.0.1:8000)
  --socket PATH      where it serves besides (default: /run/edgefleet/runtime.sock; none for nowhere)
  --no-service       make no user and no service, and print how to start it
END
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

say() {
    printf '%s\n' "$1" >&2
}

# What goes into a unit file and onto command lines unquoted.
plain() {
    case $2 in
    '' | *[!A-Za-z0-9/._,:=@+%-]*) fail "$1 can't be '$2': letters, digits and /._,:=@+%- only" ;;
    esac
}

pins='' archive='' user=edgefleet groups='' memory='' http=127.0.0.1:8000
state=/var/lib/edgefleet prefix=/opt/edgefleet socket=/run/edgefleet/runtime.sock
unit=/etc/systemd/system/edgefleet-runtime.service service=yes given=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --no-service)
        service=no
        shift
        continue
        ;;
    --)
        shift
        [ $# -gt 0 ] || fail 'no options after --'
        for word in "$@"; do
            plain 'an option of the runtime' "$word"
            given="$given $word"
        done
        break
        ;;
    esac
    [ $# -gt 1 ] || fail "$1 is no option, or has no value: see --help"
    case $1 in
    --gateway) gateway=$2 ;;
    --pin) pins=$2 ;;
    --archive) archive=$2 ;;
    --state) state=$2 ;;
    --prefix) prefix=$2 ;;
    --unit) unit=$2 ;;
    --user) user=$2 ;;
    --group)
        plain --group "$2"
        groups="$groups $2"
        ;;
    --memory-max) memory=$2 ;;
    --http) http=$2 ;;
    --socket) socket=$2 ;;
    *) fail "$1 is no option: see --help" ;;
    esac
    shift 2
done
for pair in "state=$state" "prefix=$prefix" "user=$user" "http=$http" "socket=$socket"; do
    plain "--${pair%%=*}" "${pair#*=}"
done
[ -z "$memory" ] || plain --memory-max "$memory"
case $state:$prefix in
/*:/*) ;;
*) fail '--state and --prefix are absolute paths' ;;
esac
if [ -z "$gateway" ] && [ -z "$given" ]; then
    fail 'how does this machine hear of its fleet? give --gateway URL, or options of the runtime after --'
fi

# ------------------------------------------------------------------------- what this machine is

case $(uname -s) in
Linux) ;;
*) fail "this is $(uname -s), and the runtime is for Linux" ;;
esac
case $(uname -m) in
x86_64 | amd64) platform=linux-x86_64 digest=$digest_x86_64 ;;
aarch64 | arm64) platform=linux-aarch64 digest=$digest_aarch64 ;;
*) fail "there is no runtime for $(uname -m)" ;;
esac
[ -n "$digest" ] || fail "there is no archive for $platform here: edgefleet runtime build --platform $platform"
for tool in python3 tar sha256sum; do
    command -v "$tool" >/dev/null || fail "this machine lacks $tool: install it, such as with: apt-get install python3 tar coreutils"
done
if [ "$service" = yes ]; then
    [ "$(id -u)" -eq 0 ] || fail 'only root can make a service: run it with sudo, or give --no-service'
    command -v systemctl >/dev/null || fail 'this machine has no systemd: give --no-service, and start the runtime by what it has'
    command -v runuser >/dev/null || fail 'this machine lacks runuser: install util-linux'
    if ! id "$user" >/dev/null 2>&1; then
        command -v useradd >/dev/null || fail "this machine lacks useradd: make the user $user by what it has"
        useradd --system --user-group --home-dir "$state" --no-create-home \
            --shell /usr/sbin/nologin "$user"
        say "made the user $user"
    fi
    install -d -o "$user" -g "$(id -gn "$user")" -m 0750 "$state"
else
    mkdir -p "$state"
fi

# One at a time: another would remove what this one installs. The folder itself lies in one of root's,
# so that opening it follows no link of the service's.
if command -v flock >/dev/null; then
    exec 9<"$state"
    if ! flock -n 9; then
        say 'waiting for another installation on this machine'
        flock 9 || : # a file system without locks
    fi
fi
# Whatever lies below the state folder is the service's: root does nothing there itself, so that no
# link which a runtime left leads root astray. Standard input has the token.
owner() {
    if [ "$service" = yes ]; then
        runuser -u "$user" -- "$@"
    else
        "$@"
    fi
}
quiet_owner() {
    owner "$@" </dev/null
}

# --------------------------------------------------------------------------------- the runtime

home=$state/runtime
name=$version-$(printf %.12s "$digest")
quiet_owner mkdir -p "$home/versions"
scratch=$(quiet_owner mktemp -d "$home/.install.XXXXXX")
cleanup() {
    status=$?
    trap - EXIT
    quiet_owner rm -rf "$scratch"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -n "$authorities" ]; then
    printf '%s' "$authorities" | owner tee "$scratch/ca.pem" >/dev/null
fi

fetch() {
    if command -v curl >/dev/null; then
        set -- --fail --silent --show-error --location --retry 5 --output "$scratch/archive" "$1"
        if [ -n "$pins" ]; then
            # The authority isn't looked at; the public key is compared all the same.
            set -- --insecure --pinnedpubkey "$pins" "$@"
        elif [ -n "$authorities" ]; then
            set -- --cacert "$scratch/ca.pem" "$@"
        fi
        quiet_owner curl "$@"
    elif command -v wget >/dev/null; then
        set -- -q -O "$scratch/archive" "$1"
        if [ -n "$authorities" ]; then
            set -- --ca-certificate="$scratch/ca.pem" "$@"
        elif [ -n "$pins" ]; then
            fail 'wget compares no public keys: install curl'
        fi
        quiet_owner wget "$@"
    else
        fail 'this machine lacks curl and wget: install one, or give --archive FILE'
    fi
}

if ! quiet_owner test -f "$home/versions/$name/manifest.json"; then
    if [ -n "$archive" ]; then
        owner tee "$scratch/archive" <"$archive" >/dev/null
    else
        [ -n "$gateway" ] || fail 'there is no gateway to fetch the archive from: give --archive FILE'
        say "fetching the runtime $version for $platform"
        fetch "$gateway/v1/archives/sha256/$digest" || fail "the archive can't be fetched from $gateway"
    fi
    found=$(quiet_owner sha256sum "$scratch/archive")
    [ "${found%% *}" = "$digest" ] || fail "the archive is not what it should be: its SHA-256 is ${found%% *}, not $digest"
    quiet_owner mkdir "$scratch/unpacked"
    quiet_owner tar -xzf "$scratch/archive" -C "$scratch/unpacked"
    say "installing the runtime $version; this takes a minute or more on a small board"
    quiet_owner env TMPDIR="$scratch" sh "$scratch/unpacked/install.sh" "$home/versions/$name" >&2
fi
program=$home/versions/$name/bin/edgefleet-runtime

# -------------------------------------------------------------------------------- who it is

if [ -z "$given" ]; then
    identity=$state/identity
    token=''
    [ -t 0 ] || token=$(cat)
    if [ -n "$token" ] || ! quiet_owner test -f "$identity/identity.json"; then
        [ -n "$token" ] || [ -t 0 ] || fail 'there is no token on standard input: edgefleet device enroll prints the whole command'
        set -- enroll --gateway "$gateway" --root "$state"
        if [ -n "$pins" ]; then
            set -- "$@" --pin "$pins"
        elif [ -n "$authorities" ]; then
            set -- "$@" --ca "$scratch/ca.pem"
        fi
        if [ -n "$token" ]; then
            printf %s "$token" | owner "$program" "$@" >&2
        else
            owner "$program" "$@" >&2
        fi
    fi
    device=$(quiet_owner python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["device"])' "$identity/identity.json")
    plain 'the name of the device' "$device"
    given=" --device $device --channel pull -o identity=$identity"
fi

# ------------------------------------------------------------------------------- what starts it

before=$(quiet_owner readlink "$home/current" || :)
changed=no
if [ "$before" != "versions/$name" ]; then
    changed=yes
    quiet_owner rm -f "$home/trial" "$home/current.new"
    quiet_owner ln -s "versions/$name" "$home/current.new"
    quiet_owner mv -fT "$home/current.new" "$home/current"
    for one in $(quiet_owner ls "$home/versions"); do
        [ "$one" = "$name" ] || [ "versions/$one" = "$before" ] || quiet_owner rm -rf "$home/versions/$one"
    done
fi
command="run --root $state$given --http $http"
if [ "$service" = no ]; then
    say 'start it with:'
    printf '%s %s\n' "$home/current/bin/edgefleet-runtime" "$command"
    exit 0
fi
[ "$socket" = none ] || command="$command --uds $socket"

# Puts standard input into a file of root's, whole or not at all; says whether it was another.
put() {
    cat >"$1.new"
    chmod "$2" "$1.new"
    if cmp -s "$1.new" "$1"; then
        rm -f "$1.new"
    else
        mv -f "$1.new" "$1"
        changed=yes
    fi
}

# As a unit has it, where % begins what systemd puts in its place.
escaped() {
    printf %s "$1" | sed 's/%/%%/g'
}

mkdir -p "$prefix/bin"
put "$prefix/bin/edgefleet-runtime" 755 <<'END'
@LAUNCHER@
END
if [ "$state" = /var/lib/edgefleet ]; then
    folders='StateDirectory=edgefleet
StateDirectoryMode=0750'
else
    folders="ReadWritePaths=$(escaped "$state")
Environment=EDGEFLEET_RUNTIMES=$(escaped "$home")"
fi
put "$unit" 644 <<END
[Unit]
Description=EdgeFleet device runtime
# No After=network-online.target: it starts offline and serves the last good release.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=$(escaped "$prefix/bin/edgefleet-runtime $command")
Restart=always
RestartSec=2
# What the runtime ends with to be started as another version of itself.
SuccessExitStatus=79
TimeoutStartSec=120
TimeoutStopSec=15
# It is told that the runtime makes progress; one that hangs is started anew, and its log says where.
WatchdogSec=60
Environment=PYTHONFAULTHANDLER=1
User=$user
${groups:+SupplementaryGroups=${groups# }
}$folders
RuntimeDirectory=edgefleet
RuntimeDirectoryMode=0755
WorkingDirectory=$(escaped "$state")
UMask=0027
${memory:+MemoryMax=$memory
}NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --quiet edgefleet-runtime.service
if [ "$changed" = yes ]; then
    systemctl restart edgefleet-runtime.service
else
    systemctl start edgefleet-runtime.service
fi
say "the runtime $version serves on $http; its log: journalctl -u edgefleet-runtime"
