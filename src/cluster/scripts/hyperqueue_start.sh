
number=$HQ_TASK_ID
job=${HQ_JOB_ID}_$HQ_TASK_ID
node=$(hostname)
events=$submission/events/$number

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
say() { printf '%s %s\n' "$(now)" "$*"; }
note() { printf '%s %s\n' "$(now)" "$*" >>"$events"; }
noted() { grep -q -- " $1 " "$events" 2>/dev/null; }
times() { grep -c -- " $1 " "$events" 2>/dev/null; }
# Submits one more job of this submission; $1 is a script, $2 its SHA-256, what follows are options. -> its number
another() {
    local script=$1 sha256=$2
    shift 2
    timeout 60 hq --output-mode=quiet submit --cwd="$PWD" "$@" -- bash -c "$NANORUN_LOAD" nanorun "$script" "$sha256" </dev/null
}
again() { another "$submission/job.sh" "$NANORUN_SCRIPT" --array="$number" "${asks[@]}"; }
is_number() { [[ $1 =~ ^[0-9]+$ ]]; }

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

# What failed is tried on another node. HyperQueue cannot be told which one not: a task that comes to the same node again hands
# itself on, a few times, and keeps its place there for a moment so that another one's is nearer.
failed_on=$(sed -n 's/.* retry job .* elsewhere than on //p' "$events" | tail -n 1)
others=$(timeout 60 hq --output-mode=json worker list 2>/dev/null </dev/null | grep -o '"hostname": *"[^"]*"' | grep -vc "\"$node\"")
if [ "$failed_on" = "$node" ] && [ "${others:-0}" -gt 0 ] && [ "$(times passed)" -lt 3 ] && new=$(again) && is_number "$new"; then
    note_job "$new" 0 retry
    note "passed job $job on to job $new: it failed on $node"
    sleep 5
    exit 0
fi
