#!/bin/sh
# Removes what install.sh installed. Records, models, the configuration and the user stay, unless --purge is given.
set -eu

usage() {
    cat <<'END'
usage: uninstall.sh [options]

  --purge          remove the data, the configuration with its secrets, and the user too
  --prefix DIR     the environment's folder; default: /opt/edge-lsla
  --destdir DIR    what was installed below DIR
  --dry-run        say what would be done
END
}

prefix=/opt/edge-lsla destdir='' purge=no dry=no

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --destdir)
            [ $# -ge 2 ] || fail "$1 needs a value; see --help" 2
            if [ "$1" = --prefix ]; then prefix=$2; else destdir=$2; fi
            shift
            ;;
        --purge) purge=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option $1" 2 ;;
    esac
    shift
done

case $prefix in /?*) ;; *) fail "--prefix is an absolute path: $prefix" 2 ;; esac
if [ -n "$destdir" ]; then
    case $destdir in /?*) ;; *) fail "--destdir is an absolute path: $destdir" 2 ;; esac
elif [ "$dry" = no ] && [ "$(id -u)" -ne 0 ]; then
    fail "only root can uninstall; run it with sudo, or look with --dry-run"
fi

say() { echo "==> $*"; }
run() {
    if [ "$dry" = yes ]; then
        echo "    would run: $*"
    else
        "$@"
    fi
}
remove() {
    for one in "$@"; do
        if [ -e "$one" ] || [ -L "$one" ]; then run rm -rf -- "$one"; fi
    done
}

environment=$destdir$prefix
if [ -e "$environment" ] && [ ! -e "$environment/bin/edge-lsla" ]; then
    fail "$environment is no environment of edge-lsla; give --prefix"
fi

if [ -z "$destdir" ]; then
    say "systemd"
    run systemctl disable --now edge-lsla || echo "    it was not enabled"
fi
say "service, command and environment"
remove "$destdir/etc/systemd/system/edge-lsla.service" "$destdir/etc/systemd/system/edge-lsla-token.service" \
    "$destdir/etc/systemd/system/multi-user.target.wants/edge-lsla.service" \
    "$destdir/etc/systemd/journald.conf.d/edge-lsla.conf" "$destdir/etc/tmpfiles.d/edge-lsla.conf" \
    "$destdir/etc/sysusers.d/edge-lsla.conf" \
    "$destdir/usr/local/bin/edge-lsla" "$destdir/usr/local/bin/edge-lsla-field" "$environment" "$destdir/var/cache/edge-lsla"
if [ -z "$destdir" ]; then run systemctl daemon-reload; fi

if [ "$purge" = yes ]; then
    say "data, configuration and user"
    remove "$destdir/var/lib/edge-lsla" "$destdir/etc/edge-lsla"
    if [ -z "$destdir" ] && id edge-lsla >/dev/null 2>&1; then run userdel edge-lsla; fi
else
    say "kept: $destdir/var/lib/edge-lsla, $destdir/etc/edge-lsla and the user edge-lsla; --purge removes them"
fi
say "done"
