
# The worker saves and ends by itself when it is asked to, so this waits for it whatever comes.
terminated=
if [ "$use_srun" = true ]; then
    # Slurm itself asks the step.
    trap 'terminated=yes' TERM
    trap ':' USR1 USR2 XCPU
    srun --ntasks=1 --mpi=none ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
        "$nanorun" work "$submission" --unit "$number" "${options[@]}" &
else
    trap 'terminated=yes; kill -TERM "$worker" 2>/dev/null' TERM
    trap 'kill -USR2 "$worker" 2>/dev/null' USR1 USR2 XCPU
    "$nanorun" work "$submission" --unit "$number" "${options[@]}" &
fi
worker=$!
while :; do
    wait "$worker"
    code=$?
    kill -0 "$worker" 2>/dev/null || break
done
# Where a signal came between, that was not the worker's own code.
wait "$worker" 2>/dev/null
last=$?
[ "$last" -eq 127 ] || code=$last

# Queued again by this script itself: never what was cancelled or preempted. Those get TERM, at about the time at which the
# worker ends.
may_go_on() {
    sleep 2
    [ -z "$terminated" ] || return 1
    [ ! -e "$submission/cancelled" ] || return 1
    timeout 60 scontrol show job -o "$job" | grep -q ' JobState=RUNNING '
}

case $code in
0) ;; # The worker has written down that it is done.
130)
    note "saved job $job on $node"
    if may_go_on; then
        before=$(times requeue)
        if [ "${before:-0}" -ge "$requeue_limit" ]; then
            note "stopped job $job after $requeue_limit times"
            say "saved; cluster.requeue_limit = $requeue_limit is reached: submit what is left, with more time for a job"
        else
            note "requeue job $job because of the time limit"
            say "saved; job $job is queued again, $((${before:-0} + 1)) of $requeue_limit times"
            timeout 60 scontrol requeue "$job" || {
                note "stopped job $job: not queued again"
                say "the scheduler did not queue it again: submit what is left"
            }
        fi
    fi
    ;;
3)
    # The worker itself writes `final` where another try would come to the same.
    if noted retry || noted final || ! may_go_on; then
        note "failed job $job on $node"
    else
        note "retry job $job elsewhere than on $node"
        unset SLURM_RESTART_COUNT
        if new=$(timeout 60 sbatch --parsable --array="$SLURM_ARRAY_TASK_ID" --exclude="$node" --chdir="$PWD" \
            --output="$log" "$0" "${1:-0}"); then
            note_job "${new%%;*}" "${1:-0}" retry
            say "failed on $node: job ${new%%;*} tries once more elsewhere"
        else
            say "failed on $node: job $job tries once more"
            timeout 60 scontrol requeue "$job" || note "failed job $job on $node"
        fi
    fi
    ;;
*)
    note "failed job $job on $node with exit code $code"
    ;;
esac
exit "$code"
