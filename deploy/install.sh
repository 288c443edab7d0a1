#!/bin/sh
# Installs the field service: a virtual environment, a user, a configuration where there is none, a systemd unit; or puts
# all of that into an image, whose users are made when it first starts.
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
  --destdir DIR            install below DIR, the root of an image, for machines of this kind: the user is made and the
                           service started when such a machine starts
  --image-python PROGRAM   the image's Python, of the same minor version as --python; default: /usr/bin/python3
  --no-start               install only; in an image: do not have the service started
  --dry-run                say what would be done
END
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
wheel='' extras=cli,service,signing python=python3 prefix=/opt/edge-lsla destdir='' image_python=/usr/bin/python3 start=yes dry=no
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
        --image-python) value "$1" $#; image_python=$2; shift ;;
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
    case $image_python in /?*) ;; *) fail "--image-python is an absolute path in the image: $image_python" 2 ;; esac
    destdir=${destdir%/}
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
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -n "$destdir" ]; then
    held=$(readlink "$destdir$image_python" || true) # /usr/bin/python3 is a link to python3.12, or the like
    case ${held##*/} in
        "python$minor" | python3 | '') ;;
        *) fail "the image has ${held##*/}, and $python is python$minor; give that version with --python" 3 ;;
    esac
fi
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
    elif [ "$dry" = yes ]; then
        with=''
        if ! cmp -s "$filled" "$here/$1"; then with=" (with $prefix in it)"; fi
        echo "    would run: install -D -m $3 $here/$1 $2$with"
    else
        run install -D -m "$3" "$filled" "$2"
    fi
}
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT
relocate() { # PLACE, its Python: where the environment will lie, and what it uses there
    run "$python" "$here/relocate.py" "$environment" "$1" "$2"
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
    if [ -n "$destdir" ]; then # as a Python of this machine, for pip
        relocate "$environment" "$("$python" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')"
    fi
fi
if [ -n "$destdir" ]; then set -- --no-compile "$@"; fi # what is compiled names its folder; see below

say "packages: edge-lsla [$extras] from $package"
run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$@" "${package}[$extras]"
if [ -n "$wheel" ]; then # pip takes another wheel of the same version for the same
    run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$@" "$wheel"
fi
if [ "$system" = yes ] && (cd / && "$python" -c 'import cv2' 2>/dev/null); then
    say "OpenCV: the system's own, which knows CSI cameras"
    run "$environment/bin/python" -m pip uninstall --quiet --yes opencv-python opencv-python-headless
fi

say "commands $destdir/usr/local/bin/edge-lsla and edge-lsla-field"
run mkdir -p "$destdir/usr/local/bin"
run ln -sfn "$prefix/bin/edge-lsla" "$destdir/usr/local/bin/edge-lsla"
place edge-lsla-field "$destdir/usr/local/bin/edge-lsla-field" 0755

if [ -n "$destdir" ]; then
    say "the environment moves to $prefix, for Python $minor as $image_python of the image"
    run "$environment/bin/python" -m compileall -q -f -j 0 -s "$destdir" -p / "$environment/lib" ||
        echo "    some packages have files for other versions of Python"
    relocate "$prefix" "$image_python"
fi

say "user edge-lsla"
place sysusers.conf "$destdir/etc/sysusers.d/edge-lsla.conf" 0644
place tmpfiles.conf "$destdir/etc/tmpfiles.d/edge-lsla.conf" 0644
if [ -z "$destdir" ]; then
    run systemd-sysusers /etc/sysusers.d/edge-lsla.conf
else
    echo "    it is made when the image first starts"
    run rm -f "$destdir/etc/.updated" # where systemd noted that it has made all users
fi

say "configuration $etc"
run install -d -m 0755 "$etc" "$etc/trusted-keys"
run install -d -m 0700 "$etc/secrets"
if [ -e "$etc/field.toml" ]; then
    echo "    field.toml is there already, and left as it is"
else
    run install -m 0640 "$here/field.toml" "$etc/field.toml"
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

if [ -n "$destdir" ]; then
    if [ "$start" = yes ]; then
        wants=$units/multi-user.target.wants
        run mkdir -p "$wants"
        run ln -sfn /etc/systemd/system/edge-lsla.service "$wants/edge-lsla.service"
        echo "    before the image starts, put the model where $etc/field.toml says, and edit that"
    fi
else
    run systemd-tmpfiles --create /etc/tmpfiles.d/edge-lsla.conf # the owners of the configuration
fi
if [ -z "$destdir" ] && [ "$start" = yes ]; then
    say "systemd"
    run systemctl daemon-reload
    run systemctl restart systemd-journald
    run systemctl enable edge-lsla
    check="$environment/bin/edge-lsla run $etc/field.toml --check"
    if [ "$dry" = yes ]; then
        echo "    would run: $check, and where it finds nothing wrong: systemctl restart edge-lsla"
    elif said=$($check 2>&1); then
        echo "$said" | sed 's/^/    /'
        systemctl restart --no-block edge-lsla # the first start may build a GPU engine
        echo "    it starts with what was just installed; look with: systemctl status edge-lsla"
    else
        echo "$said" | sed 's/^/    /'
        if systemctl is-active --quiet edge-lsla; then
            echo "    NOT RESTARTED: the service still runs the program that it was started with, from before this"
            echo "    installation; correct what is said above, look with: $check"
            echo "    then: systemctl restart edge-lsla"
        else
            echo "    not started: correct what is said above, look with: $check"
            echo "    then: systemctl start edge-lsla"
        fi
    fi
fi
if [ ! -s "$etc/secrets/status-token" ]; then
    echo "    a token for the status page is drawn at the service's first start, on each device its own"
fi
say "done"
