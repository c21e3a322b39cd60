#!/bin/sh
# Keeps what a revision costs on a spanflame server, and compares a later one with it; for builds that cannot run both
# revisions in turn. That is the better way where it can be had, since machines and their neighbours differ by the hour.
#
#   baseline.sh keep 'build/bench'             on the main branch: records ten runs and sends them under their revision
#   baseline.sh compare 1a2b3c4 'build/bench'  on a branch: records ten runs and compares them with those of 1a2b3c4
#
# SERVER is the server's URL. If it wants a token, that is in SPANFLAME_CHECK_TOKEN.
set -eu

: "${SERVER:=http://127.0.0.1:19090}" "${SERVICE:=bench}" "${RUNS:=10}" "${FREQUENCY:=997}" "${SPANFLAME:=sudo spanflame}"

# record DIR COMMAND: one profile a run.
record() {
    run=0
    while [ "$run" -lt "$RUNS" ]; do
        run=$((run + 1))
        # shellcheck disable=SC2086 # both are commands with arguments
        $SPANFLAME record --frequency "$FREQUENCY" --duration 10m -o "$1/run-$run.pb.gz" -- $2
    done
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
case "${1:-}" in
keep)
    git_sha=$(git rev-parse HEAD)
    record "$folder" "$2"
    for profile in "$folder"/*.pb.gz; do
        curl --silent --show-error --fail-with-body \
            ${SPANFLAME_CHECK_TOKEN:+--header "Authorization: Bearer $SPANFLAME_CHECK_TOKEN"} \
            --data-binary "@$profile" "$SERVER/api/v1/profiles?service=$SERVICE&git_sha=$git_sha"
        echo
    done
    ;;
compare)
    record "$folder" "$3"
    spanflame=${SPANFLAME#sudo }
    $spanflame check compare --base "$SERVER/?service=$SERVICE&git_sha=$2" --new "$folder" \
        --report markdown=check.md --report junit=check.xml --report json=check.json
    ;;
*)
    echo "usage: baseline.sh keep COMMAND | compare REVISION COMMAND" >&2
    exit 2
    ;;
esac
