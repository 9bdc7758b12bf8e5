
"$nanorun" work "$submission" --unit "$number" "${options[@]}"
code=$?
if [ "$code" -eq 3 ] && ! grep -q -- ' final ' "$events"; then
    note "retry job $job once more on $node"
    "$nanorun" work "$submission" --unit "$number" "${options[@]}"
    code=$?
fi
case $code in
0) ;; # The worker has written down that it is done.
130) note "stopped job $job on $node" ;;
*) note "failed job $job on $node with exit code $code" ;;
esac
exit "$code"
