
number=$((${1:-0} + ${SLURM_ARRAY_TASK_ID:-0}))
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
else
    job=$SLURM_JOB_ID
fi
node=${SLURMD_NODENAME:-$(hostname)}
events=$submission/events/$number

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
say() { printf '%s %s\n' "$(now)" "$*"; }
# What becomes of the unit, a line each, for this script and for `nanorun status`.
note() { printf '%s %s\n' "$(now)" "$*" >>"$events"; }
noted() { grep -q -- " $1 " "$events" 2>/dev/null; }
times() { grep -c -- " $1 " "$events" 2>/dev/null; }

say "job $job (unit $number), restart ${SLURM_RESTART_COUNT:-0}, on $node, nanorun $nanorun"

# A file server may show new files half a minute late.
for pause in 0 1 2 4 8 16 30; do
    sleep "$pause"
    [ -r "$submission/submission.toml" ] && break
done
if ! [ -r "$submission/submission.toml" ]; then
    say "error: $node has no $submission: results have to be on a file system that every node shares"
    exit 2
fi
if ! note "start job $job on $node restart ${SLURM_RESTART_COUNT:-0}"; then
    say "error: $events cannot be written from $node: results have to be writable from every node"
    exit 2
fi
if [ -e "$submission/cancelled" ]; then
    say "cancelled: $submission was cancelled by nanorun cancel"
    exit 0
fi
