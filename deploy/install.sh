#!/bin/sh
# Installs the field service: a virtual environment, a user, a configuration where there is none, a systemd unit.
# Running it again updates what it installed; it never overwrites a configuration or a secret.
set -eu
umask 022 # the service's user must be able to read what root installs

usage() {
    cat <<'END'
usage: install.sh [options] [-- options of pip]

  --wheel FILE             install this wheel; default: the checkout that this script lies in
  --extras LIST            parts to install; default: cli,service,signing
  --python PROGRAM         Python 3.10 or newer; default: python3
  --system-site-packages   see the system's Python packages; default on a Jetson, whose TensorRT is one
  --prefix DIR             the environment's folder; default: /opt/edge-lsla
  --destdir DIR            install below DIR, for images and tests: no user is made and nothing started
  --no-start               install only
  --dry-run                say what would be done
END
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
wheel='' extras=cli,service,signing python=python3 prefix=/opt/edge-lsla destdir='' start=yes dry=no
system=no
if [ -e /etc/nv_tegra_release ]; then system=yes; fi

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

value() { # of the option $1, which has $2 arguments left
    [ "$2" -ge 2 ] || fail "$1 needs a value; see --help" 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --wheel) value "$1" $#; wheel=$2; shift ;;
        --extras) value "$1" $#; extras=$2; shift ;;
        --python) value "$1" $#; python=$2; shift ;;
        --prefix) value "$1" $#; prefix=$2; shift ;;
        --destdir) value "$1" $#; destdir=$2; shift ;;
        --system-site-packages) system=yes ;;
        --no-start) start=no ;;
        --dry-run) dry=yes ;;
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        *) usage >&2; fail "unknown option $1" 2 ;;
    esac
    shift
done

case $prefix in
    /?*) ;;
    *) fail "--prefix is an absolute path, such as /opt/edge-lsla: $prefix" 2 ;;
esac
if [ -n "$destdir" ]; then
    case $destdir in /?*) ;; *) fail "--destdir is an absolute path: $destdir" 2 ;; esac
    start=no
fi
if [ -n "$wheel" ]; then
    [ -f "$wheel" ] || fail "no such wheel: $wheel" 2
    package=$wheel
else
    package=$(dirname -- "$here")
    [ -f "$package/pyproject.toml" ] || fail "no checkout around this script; give --wheel FILE" 2
fi
command -v "$python" >/dev/null || fail "$python is missing; install Python 3.10 or newer, or give --python" 3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than 3.10; give --python" 3
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv; apt install python3-venv" 3
if [ "$dry" = no ] && [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    fail "only root can install; run it with sudo, or look with --dry-run"
fi

environment=$destdir$prefix
etc=$destdir/etc/edge-lsla
units=$destdir/etc/systemd/system

say() { echo "==> $*"; }
run() {
    if [ "$dry" = yes ]; then
        echo "    would run: $*"
    else
        "$@"
    fi
}
place() { # FILE, where, mode: a file of ours, with the prefix in it, replaced when it changed
    sed "s|/opt/edge-lsla/bin/|$prefix/bin/|" "$here/$1" >"$filled"
    if cmp -s "$filled" "$2"; then
        echo "    $2 is as it should be"
    else
        run install -D -m "$3" "$filled" "$2"
    fi
}
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT
own() { # only root, on the machine itself, can give files away
    if [ -z "$destdir" ]; then run chown "$@"; fi
}

say "environment $environment"
if [ -e "$environment" ] && [ ! -e "$environment/pyvenv.cfg" ]; then
    fail "$environment exists and is no environment of Python; remove it, or give --prefix"
fi
if [ ! -e "$environment/pyvenv.cfg" ]; then
    run mkdir -p "$environment"
    if [ "$system" = yes ]; then
        run "$python" -m venv --system-site-packages "$environment"
    else
        run "$python" -m venv "$environment"
    fi
else
    echo "    it is there already"
fi

say "packages: edge-lsla [$extras] from $package"
run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$@" "${package}[$extras]"
if [ -n "$wheel" ]; then # pip takes another wheel of the same version for the same
    run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
fi
if [ "$system" = yes ] && (cd / && "$python" -c 'import cv2' 2>/dev/null); then
    say "OpenCV: the system's own, which knows CSI cameras"
    run "$environment/bin/python" -m pip uninstall --quiet --yes opencv-python opencv-python-headless
fi

say "commands $destdir/usr/local/bin/edge-lsla and edge-lsla-field"
run mkdir -p "$destdir/usr/local/bin"
run ln -sfn "$prefix/bin/edge-lsla" "$destdir/usr/local/bin/edge-lsla"
place edge-lsla-field "$destdir/usr/local/bin/edge-lsla-field" 0755

if [ -z "$destdir" ]; then
    say "user edge-lsla"
    for group in video render; do # the unit names both
        getent group "$group" >/dev/null || run groupadd --system "$group"
    done
    if id edge-lsla >/dev/null 2>&1; then
        echo "    it is there already"
    else
        run useradd --system --user-group --home-dir /var/lib/edge-lsla --no-create-home \
            --shell /usr/sbin/nologin edge-lsla
    fi
fi

say "configuration $etc"
run install -d -m 0755 "$etc" "$etc/trusted-keys"
run install -d -m 0700 "$etc/secrets"
if [ -e "$etc/field.toml" ]; then
    echo "    field.toml is there already, and left as it is"
else
    run install -m 0640 "$here/field.toml" "$etc/field.toml"
    own root:edge-lsla "$etc/field.toml"
fi
for secret in mqtt-password webhook-token status-token camera; do
    if [ ! -e "$etc/secrets/$secret" ]; then # the unit loads them; empty means none
        run install -m 0600 /dev/null "$etc/secrets/$secret"
    fi
done

say "service $units/edge-lsla.service"
place edge-lsla.service "$units/edge-lsla.service" 0644
place edge-lsla-token.service "$units/edge-lsla-token.service" 0644
place journald.conf "$destdir/etc/systemd/journald.conf.d/edge-lsla.conf" 0644

if [ "$start" = yes ]; then
    say "systemd"
    run systemctl daemon-reload
    run systemctl restart systemd-journald
    run systemctl enable edge-lsla
    if "$environment/bin/edge-lsla" run "$etc/field.toml" --check >/dev/null 2>&1; then
        run systemctl restart --no-block edge-lsla # the first start may build a GPU engine
        echo "    look with: systemctl status edge-lsla"
    else
        echo "    not started: edit $etc/field.toml, look with: edge-lsla run $etc/field.toml --check"
        echo "    then: systemctl start edge-lsla"
    fi
fi
if [ ! -s "$etc/secrets/status-token" ]; then
    echo "    a token for the status page is drawn at the service's first start, on each device its own"
fi
say "done"
