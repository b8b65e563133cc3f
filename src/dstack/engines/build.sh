# ---- a build: which files it reads and what it leaves, and how a run starts from it ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh
#
# Needs, beside a POSIX find, touch, sed and xargs: find -print0 -anewer -cnewer, touch -h, xargs -0.

find_find() { # -> $find: with its path, since a shell may have one of its own that knows less
    for find in /usr/bin/find /bin/find /usr/local/bin/find; do
        [ ! -x "$find" ] || return 0
    done
    find='find'
}

mark_files() { # before the stage: every access time goes behind everything that is to come
    [ -n "${job_build-}" ] || return 0
    ref=$job_folder/build.ref probe=$job_folder/build.probe
    find_find
    mkdir -p "$probe" && echo probe >"$probe/file"
    # A folder is listed before it is touched itself: so finding the names is not seen later.
    (
        cd "$job_folder_code" || exit
        "$find" . -type d -print0 >"$job_folder/build.folders" || exit
        "$find" . ! -type d -print0 >"$job_folder/build.files" || exit
        "$find" . "$probe" -depth -exec touch -h -a -t 200001010000 {} + || exit
        : >"$ref"
        "$find" "$ref" -anewer "$ref" -cnewer "$ref"
    ) || fail "a build needs GNU's find and touch to tell what it reads: install findutils and coreutils"
    # Time stamps have a granularity: the stage begins when a new one differs from that of `ref`.
    until [ -n "$("$find" "$probe/tick" -newer "$ref" 2>/dev/null)" ]; do : >"$probe/tick"; done
    read -r _ <"$probe/file"
    set -- "$probe"/*
    used=$("$find" "$probe" "$probe/file" -prune -anewer "$ref")
    [ "$used" = "$probe
$probe/file" ] || : >"$job_folder/build.whole"
}

gather_build() { # after the stage
    [ -n "${job_build-}" ] || return 0
    if [ "$code" = 0 ] && [ ! -e "$job_folder/stopped" ]; then
        if ! list_files || ! keep_result; then
            phase 'environment 0       '
            # Said by `judge` where nothing else was: on a full disk it cannot be written down.
            # shellcheck disable=SC2034
            unkept='what the build left cannot be kept: the disk may be full'
            code=125
        fi
    fi
    drop_result
}

list_files() {
    find_find
    ref=$job_folder/build.ref
    # The first one sees which folders were listed, before it lists them itself.
    (
        cd "$job_folder_code" || exit
        "$find" . -anewer "$ref" -print0 >"$job_folder/build.read" || exit
        "$find" . -cnewer "$ref" -print0 >"$job_folder/build.changed" || exit
        "$find" . -type d -print0 >"$job_folder/build.folders-after" || exit
        "$find" . ! -type d -print0 >"$job_folder/build.files-after"
    )
}

lay_build() { # what the build left goes over the fresh code, once in a run
    [ -n "${job_build_from-}" ] && [ ! -e "$job_run/laid" ] || return 0
    [ -e "$job_build_from/build.json" ] || fail "the build that the run starts from is not there any more"
    if [ -s "$job_build_from/gone" ]; then
        (cd "$job_folder_code" && xargs -0 rm -rf -- <"$job_build_from/gone") ||
            fail "what the build deleted cannot be deleted"
    fi
    if [ -d "$job_build_from/files" ]; then
        # Copies, not links: what a run writes into them must not reach the build.
        cp -a --reflink=auto "$job_build_from/files/." "$job_folder_code" 2>/dev/null ||
            cp -Rp "$job_build_from/files/." "$job_folder_code" ||
            fail "what the build left cannot be copied to $job_folder_code"
    fi
    : >"$job_run/laid"
}
