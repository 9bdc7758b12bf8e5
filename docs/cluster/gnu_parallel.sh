#!/bin/bash
# An experiment by GNU parallel, on this machine or over ssh: a job a unit.
#
#   docs/cluster/gnu_parallel.sh experiments/quickstart.toml                 here, two at a time
#   JOBS=1 docs/cluster/gnu_parallel.sh m.toml --sshlogin a,b --workdir .     one on each of two machines that share this directory
set -u
manifest=$1
shift
units=$(nanorun plan "$manifest" --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["cluster"]["units"]))')

one() {
    tried=
    while :; do
        nanorun work "$1" --unit "$2"
        code=$?
        case $code in
        # Failed: once more.
        3) [ -z "$tried" ] || return 3; tried=yes ;;
        # Done; never again; or saved because somebody asked: then the same command goes on from there.
        *) return "$code" ;;
        esac
    done
}
export -f one

seq 0 $((units - 1)) | parallel --jobs "${JOBS:-2}" --line-buffer --tag "$@" one "$manifest" {}
nanorun report "$manifest"
