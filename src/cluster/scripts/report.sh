
if [ -e "$submission/cancelled" ]; then
    exit 0
fi

# What failed is tried once more elsewhere, by jobs that nobody knew of when this one was told what to wait for.
retries=
for file in "$submission"/jobs/*; do
    read -r id _ what <"$file" && [ "$what" = retry ] && retries=$retries,$id
done
if [ -n "$retries" ]; then
    open=$(timeout 60 squeue -h -o %F -j "${retries#,}" 2>/dev/null | while read -r id _; do echo ":$id"; done | sort -u | tr -d '\n')
    if [ -n "$open" ] && new=$(timeout 60 sbatch --parsable --dependency="afterany$open" --chdir="$PWD" --output="$log" "$0"); then
        note_job "${new%%;*}" - report
        printf '%s\n' "what failed is tried once more by ${open#:}: job ${new%%;*} reports after that"
        exit 0
    fi
fi

"$nanorun" status "$results"
"$nanorun" report "$results"
