# $1 is a script of a submission, $2 its SHA-256: what is called is what was submitted, read once.
for pause in 0 1 2 4 8 16 30; do
    sleep "$pause"
    [ -r "$1" ] && break
done
if ! script=$(cat -- "$1" && echo .); then
    echo "error: $(hostname) has no $1: results have to be on a file system that every node shares"
    exit 2
fi
script=${script%.}
found=$(printf %s "$script" | sha256sum)
if [ "${found%% *}" != "$2" ]; then
    echo "error: $1 is not what was submitted: it has SHA-256 ${found%% *}, expected $2"
    exit 2
fi
# For the jobs that this one submits.
export NANORUN_LOAD=$BASH_EXECUTION_STRING NANORUN_SCRIPT=$2
exec bash -c "$script" "$1"
