
number=$HQ_TASK_ID
job=${HQ_JOB_ID}_$HQ_TASK_ID
node=$(hostname)
events=$submission/events/$number

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
say() { printf '%s %s\n' "$(now)" "$*"; }
note() { printf '%s %s\n' "$(now)" "$*" >>"$events"; }

say "job $job (unit $number), instance ${HQ_INSTANCE_ID:-0}, on $node, nanorun $nanorun"

# A file server may show new files half a minute late.
for pause in 0 1 2 4 8 16 30; do
    sleep "$pause"
    [ -r "$submission/submission.toml" ] && break
done
if ! [ -r "$submission/submission.toml" ]; then
    say "error: $node has no $submission: results have to be on a file system that every node shares"
    exit 2
fi
if ! note "start job $job on $node restart ${HQ_INSTANCE_ID:-0}"; then
    say "error: $events cannot be written from $node: results have to be writable from every node"
    exit 2
fi
if [ -e "$submission/cancelled" ]; then
    say "cancelled: $submission was cancelled by nanorun cancel"
    exit 0
fi
