
"$nanorun" work "$submission" --unit "$number" "${options[@]}" </dev/null
code=$?
goes_on=
case $code in
0) ;; # The worker has written down that it is done.
130) note "stopped job $job on $node" ;;
3)
    # The worker itself writes `final` where another try would come to the same.
    if noted retry || noted final || [ -e "$submission/cancelled" ]; then
        note "failed job $job on $node"
    else
        note "retry job $job elsewhere than on $node"
        if new=$(again) && is_number "$new"; then
            note_job "$new" 0 retry
            goes_on=yes
            say "failed on $node: job $new tries once more elsewhere"
        else
            say "failed on $node: job $job tries once more here, as no other job can be submitted from here"
            "$nanorun" work "$submission" --unit "$number" "${options[@]}" </dev/null
            code=$?
            [ "$code" -eq 0 ] || note "failed job $job on $node with exit code $code"
        fi
    fi
    ;;
*) note "failed job $job on $node with exit code $code" ;;
esac

# HyperQueue has jobs that wait for others to go well, and none that waits for them to end however they do. So whoever is the
# last to end has the report made; two that end at once may both be, which does no harm.
if [ -z "$goes_on" ] && [ ! -e "$submission/cancelled" ]; then
    mkdir -p "$submission/ended/$number"
    if [ "$(ls "$submission/ended" | wc -l)" -ge "$units" ] && mkdir "$submission/reported" 2>/dev/null; then
        if new=$(another "$submission/report.sh" "$report" --name="$name-report" --stdout="$logs/report_%{JOB_ID}.log" \
            --stderr="$logs/report_%{JOB_ID}.log.err") && is_number "$new"; then
            note_job "$new" - report
            say "all jobs have ended: job $new reports"
        else
            bash -c "$NANORUN_LOAD" nanorun "$submission/report.sh" "$report"
        fi
    fi
fi
exit "$code"
