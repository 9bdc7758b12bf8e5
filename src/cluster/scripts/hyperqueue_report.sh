
if [ -e "$submission/cancelled" ]; then
    exit 0
fi
"$nanorun" status "$results"
"$nanorun" report "$results"
