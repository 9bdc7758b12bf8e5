
# A job that this one submitted, for `nanorun cancel` and the job that reports: a file of its own, whole or not there.
note_job() { printf '%s %s %s\n' "$1" "$2" "$3" >"$submission/jobs/.$1" && mv "$submission/jobs/.$1" "$submission/jobs/$1"; }
