# ---- a container: where the job runs, and how it is found and ended ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh
#
# The commands write into the log themselves, and box.sh, which is the first process in there, notes
# in box/state how they ended. So whatever happens to the engine's client, and to the container once
# they have ended, loses nothing.

# -- what the engine says --

is_gone() { # whether the engine's last answer was that there is no such container
    grep -qi -e 'no such' -e 'no container with' "$job_folder/asked"
}

read_state() { # -> $state (empty, begun, ended), $box_code, $box_oom, as box.sh notes them
    state='' box_code='' box_oom=''
    { read -r state box_code box_oom <"$job_folder/box/state"; } 2>/dev/null
}

look() { # -> $seen: running, ended (then $box_code and $box_oom), created or gone
    seen=
    while [ -z "$seen" ]; do
        found=$(job_client container inspect --format \
            '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' "$job_box" 2>"$job_folder/asked")
        case $found in
        created* | configured* | initialized*) seen=created ;;
        exited* | stopped* | dead*) seen=ended ;;
        running* | paused*) seen=running ;;
        ?*) pause ;;
        *) if is_gone; then seen=gone; else not_answering; fi ;;
        esac
    done
    [ ! -e "$job_folder/unknown" ] || rm -f "$job_folder/unknown"
    found=${found#* }
}

not_answering() { # what is not known is not finished; it is asked again until somebody answers
    [ -e "$job_folder/unknown" ] || cp "$job_folder/asked" "$job_folder/unknown"
    sleep 1
}

remove_container() { # false when the engine does not answer
    job_remove "$job_box" >/dev/null 2>"$job_folder/asked" || is_gone ||
        grep -q 'already in progress' "$job_folder/asked"
}

# -- before it runs --

own_words() { # what the client said becomes the run's output; the engine's reader makes it a sentence
    cat "$job_folder/$1"
    echo "@$1" >"$job_folder/detail"
    exit 125
}

know_image() { # -> $image_...; false when the image is not there
    job_client image inspect --format "$job_facts" "$job_image" \
        >"$job_folder/box/image" 2>"$job_folder/asked" || return 1
    # shellcheck disable=SC1091
    . "$job_folder/box/image"
}

know_base() { # no commit takes an entrypoint away: what the image's own command is, its base says
    own_id=$image_id own_digest=$image_digest
    {
        cat "$job_build_from/base"
        echo "image_id=$own_id image_digest=$own_digest"
    } >"$job_folder/box/image"
    # shellcheck disable=SC1091
    . "$job_folder/box/image"
}

ready_image() {
    if [ "$job_pull" = always ]; then
        pull_image
        know_image || own_words asked
    elif [ -s "$job_folder/box/image" ]; then
        # Whoever wrote this folder has asked already.
        # shellcheck disable=SC1091
        . "$job_folder/box/image"
    elif ! know_image; then
        pull_image
        know_image || own_words asked
    fi
    [ -z "${job_build_from-}" ] || know_base
    [ ! -e "$job_folder/auth" ] || rm -rf "$job_folder/auth"
    echo "$image_id ${image_digest:--}" >"$job_folder/image"
    know_platform
    [ "$image_platform" = "$platform" ] ||
        fail "the image $job_image is for $image_platform, and this machine is $platform"
}

know_platform() { # -> $platform, as images name it
    # The file is there from Linux 6.1 on; each program not started is a millisecond.
    { read -r machine </proc/sys/kernel/arch; } 2>/dev/null || machine=$(uname -m)
    case $machine in
    x86_64 | amd64) platform=linux/amd64 ;;
    aarch64 | arm64) platform=linux/arm64 ;;
    armv7* | armv6*) platform=linux/arm ;;
    i?86) platform=linux/386 ;;
    loongarch64) platform=linux/loong64 ;;
    *) platform=linux/$machine ;;
    esac
}

know_own() { # -> $own: who we are
    { while read -r key _ own _; do [ "$key" != Uid: ] || return 0; done </proc/self/status; } 2>/dev/null
    own=$(id -u)
}

pull_image() {
    if [ -n "${job_build_from-}" ] && grep -qi -e 'no such' -e 'not known' "$job_folder/asked"; then
        fail "the image of the build ($job_image) is not there any more: make it again with --force-build"
    fi
    [ -n "$job_pull" ] || own_words asked
    phase 'environment 1       '
    # The client may need a context of the user's to find its engine.
    [ ! -d "$job_folder/auth" ] ||
        ln -s "${DOCKER_CONFIG:-${HOME-}/.docker}/contexts" "$job_folder/auth/contexts" 2>/dev/null
    job_pull_image >"$job_folder/pull" 2>&1 &
    echo "$!" >"$job_folder/pulling"
    wait "$!"
    pulled=$?
    rm -f "$job_folder/pulling"
    [ ! -e "$job_folder/stop" ] || give_up
    phase 'environment 0       '
    [ "$pulled" = 0 ] || own_words pull
}

know_user() { # -> $box_uid, $box_gid, $box_home: of the image's user; what is not known is empty
    box_uid='' box_gid='' box_home=
    case $image_user in
    '' | root | root:* | 0 | 0:*)
        box_uid=0 box_gid=0 box_home=/root
        image_env find_home
        ;;
    *)
        known=$job_images/${image_id#*:}
        [ -s "$known" ] || ask_user
        { read -r box_uid && read -r box_gid && read -r box_home; } <"$known"
        ;;
    esac
    [ -z "$job_home" ] || box_home=$job_home
}

find_home() {
    for pair in "$@"; do
        case $pair in HOME=/*) box_home=${pair#HOME=} ;; esac
    done
}

ask_user() { # the image itself, once
    mkdir -p "$job_images"
    # shellcheck disable=SC2016
    job_client run --rm --network none --pull never --name "$job_box-user" --entrypoint sh "$job_image" \
        -c 'id -u; id -g; echo "${HOME:-/}"' >"$known.$$" 2>/dev/null || {
        uid=${image_user%%:*} gid=${image_user#*:}
        case $uid$gid in *[!0-9]*) uid='' gid='' ;; esac
        printf '%s\n' "$uid" "$gid" / >"$known.$$"
    }
    mv "$known.$$" "$known"
}

give() { # $@ files and folders: the image's user may use them
    know_own
    if [ "$box_uid" = "$own" ] && [ "$box_uid" = 0 ]; then
        :
    elif [ "$own" = 0 ] && [ -n "$box_uid" ]; then
        chown -R "$box_uid:$box_gid" "$@"
    elif [ "$box_uid" != 0 ]; then
        # Nobody else gets at them: dstack's folder, above, is the user's alone.
        chmod -R a+rwX "$@"
    fi
}

cache_folder() { # $1 the kept folder, $2 where the code has it, or empty
    if [ ! -d "$1" ]; then
        mkdir -p "${1%/*}" || fail "the cache folder $1 cannot be made"
        if [ -n "$2" ] && [ -d "$2" ] && [ ! -L "$2" ]; then
            # What the code brought along is where a new cache begins.
            cp -Rp "$2" "$1.$$" && mv "$1.$$" "$1"
        else
            mkdir "$1"
        fi
        [ -d "$1" ] || fail "the cache folder $1 cannot be made"
        give "$1"
    fi
    [ -z "$2" ] || [ -d "$2" ] || mkdir -p "$2" || fail "the cache folder $2 cannot be made"
}

# -- while it runs --

stages() { # the engine's client; its exit code
    ready_image
    know_user
    lay_build
    job_cache cache_folder
    [ -d "$job_code" ] || fail "the folder $job_code is not there"
    give "$job_folder_code" "$job_folder/box" "$job_folder/log"
    [ ! -e "$job_folder/stop" ] || give_up
    mark_files
    : >"$job_folder/container"
    # shellcheck disable=SC2046 # one word or none
    job_container $(removal) --entrypoint sh "$job_image" /.dstack/box.sh box >"$job_folder/client" 2>&1
    code=$?
    read_state
    [ -n "$state" ] || ! lacks_shell || run_without_shell
    [ -n "$state" ] || [ "$code" = 0 ] || [ "$code" -gt 128 ] || own_words client
    exit "$code"
}

removal() { # the option that has the engine remove the container, where that may be known now
    [ -z "${job_build-}" ] || return 0 # what a build made is taken from it first
    [ -z "$job_removal" ] && [ ! -e "$job_folder/passing" ] || echo --rm
}

lacks_shell() { # as the two init programs and the runtimes say it
    # shellcheck disable=SC2016
    grep -q -e 'exec sh failed' -e 'failed to exec pid1' -e '"sh": executable file' \
        -e '`sh` not found' "$job_folder/client"
}

run_without_shell() { # the client hands on what is printed: nobody in there could
    [ -n "$job_direct" ] ||
        fail "the image $job_image has no shell (neither bash nor sh) that could run the commands"
    remove_container
    write_environment
    echo 'direct              ' 1<>"$job_folder/box/state"
    phase 'commands 1          '
    : >"$job_folder/box/running"
    job_run_direct 2>&1
    code=$?
    rm -f "$job_folder/box/env.list"
    if [ "$code" = 125 ]; then
        phase 'environment 0       '
        fail "the container could not be started (its output says why)"
    fi
    exit "$code"
}

write_environment() { # NAME=VALUE lines, for the engine's client
    (
        umask 077
        : >"$job_folder/box/env.list"
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=$box_home
        image_env take_over
        job_environment
        for name in $job_names; do
            eval "value=\${$name-}"
            case $value in *"
"*) fail "the variable $name has several lines, which an image without a shell cannot be given" ;; esac
            printf '%s=%s\n' "$name" "$value"
        done >"$job_folder/box/env.list"
    ) || exit 125
}

take_over() {
    for pair in "$@"; do
        case ${pair%%=*} in
        *[!A-Za-z0-9_]* | [0-9]*) ;;
        *) export "${pair?}" ;;
        esac
    done
}

# -- what the keeper asks of a sandbox --

open_sandbox() {
    recall_sandbox
}

recall_sandbox() {
    now=${now-0}
}

settle() { # wait for the container's own end, whatever became of the client; -> $code
    read_state
    seen=
    case $state in
    ended) # 128 and above may be the client's own death as well
        if [ "$code" != "$box_code" ] || [ "$code" -ge 128 ]; then
            wait_for_end
        elif [ -n "$(removal)" ]; then
            seen=gone
        fi
        ;;
    '') # stopped before, or not started: then there may be a container all the same
        if [ ! -e "$job_folder/container" ]; then
            seen=gone
        elif [ ! -e "$job_folder/detail" ]; then
            wait_for_end
        fi
        ;;
    *) wait_for_end ;;
    esac
    drop_timer
    [ "$state" != ended ] || code=$box_code
    [ -n "${job_build-}" ] || drop_container
    [ ! -e "$job_folder/auth" ] || rm -rf "$job_folder/auth"
    for file in "$job_folder/box/env" "$job_folder/box/env.list"; do
        [ ! -e "$file" ] || rm -f "$file"
    done
}

drop_container() {
    until [ "$seen" = gone ] || remove_container; do not_answering; done
    [ ! -e "$job_folder/unknown" ] || rm -f "$job_folder/unknown"
}

wait_for_end() {
    clock
    end=$((now + 3000))
    while :; do
        look
        case $seen in
        running)
            # It ends with the container, or when somebody ends it; then the container is looked at.
            job_client wait "$job_box" >/dev/null 2>&1 || sleep 0.2
            continue
            ;;
        gone)
            # The daemon may still be about to make what a client that was killed had asked for.
            read_state
            if [ -n "$state" ] || is_free || [ "$now" -ge "$end" ]; then break; fi
            pause
            continue
            ;;
        esac
        break
    done
    read_state
    if [ "$state" != ended ]; then judge_container; fi
}

# shellcheck disable=SC2034 # `judge` of job.sh uses what is found out
judge_container() { # it did not say how it ended -> $state, $box_code, $box_oom or $lost
    [ "$seen" != ended ] || [ "${found##* }" != true ] || box_oom=oom
    case $state:$seen:$box_oom in
    direct:ended:* | begun:ended:oom)
        state=ended box_code=${found%% *}
        echo "ended $box_code $box_oom  " 1<>"$job_folder/box/state"
        ;;
    direct:created:*) ;; # it could not be started; the client said why
    begun:ended:*) code=137 lost='its container was killed from outside' ;;
    begun:* | direct:*) code=137 lost='its container was removed' ;;
    *)
        code=137 lost="the client of the engine ($job_engine) was killed before the container was there"
        ;;
    esac
}

out_of_memory() {
    read_state
    [ "$box_oom" = oom ]
}

members() { # -> $members: what there is to be ended: the container, or the client that pulls
    members=
    read_state
    case $state in
    begun | direct) members=$job_box ;;
    '') [ ! -e "$job_folder/pulling" ] || members=pull ;;
    esac
}

ask_members() { # SIGTERM to every process: the engine's own `stop` tells the first one only
    [ "$members" != pull ] || { end_pull && return; }
    job_client exec --user 0 "$job_box" sh -c 'kill -s TERM -- -1; kill -s CONT -- -1' >/dev/null 2>&1 ||
        job_client kill --signal TERM "$job_box" >/dev/null 2>&1
}

kill_members() {
    [ "$members" != pull ] || { end_pull && return; }
    job_client kill "$job_box" >/dev/null 2>&1 || sleep 0.5
}

end_pull() {
    { read -r pid <"$job_folder/pulling"; } 2>/dev/null || return 0
    [ -z "$(marked "$job_name" "$pid")" ] || kill "$pid"
} 2>/dev/null

end_members() { # false when the engine does not answer
    end_pull
    [ ! -e "$job_folder/auth" ] || rm -rf "$job_folder/auth"
    await_commit || return 1
    # Who might still have a container made, first.
    end_left
    remove_made || return 1
    # A build whose keeper died has failed, whatever it was about to keep.
    [ -z "${job_build-}" ] || drop_image
}

await_commit() { # it goes on without its client: so that must end by itself; false: not yet
    [ -e "$job_folder/commit" ] || return 0
    clock
    end=$((now + 1000))
    while is_committing; do
        [ "$now" -lt "$end" ] || return 1
        pause
    done
}

is_committing() {
    for file in $(marked "$job_name"); do
        ! grep -qs -e "$job_build_image" "${file%/environ}/cmdline" || return 0
    done
    return 1
}

drop_image() { # of a build; also one that Docker is still making though its client was killed
    clock
    end=$((now + 1000))
    until job_client image rm "$job_build_image" >/dev/null 2>&1; do
        if [ ! -e "$job_folder/commit" ] || commit_answered || [ "$now" -ge "$end" ]; then break; fi
        pause
    done
}

commit_answered() { # whether the client said what became of it; Podman's is who makes the image
    [ "$job_engine" != docker ] || [ -e "$job_folder/answered" ]
}

end_left() { # what the keeper left on this machine: its shells, its timer, and a client
    clock
    end=$((now + 1000)) own=
    { read -r own </proc/$$/comm; } 2>/dev/null
    while :; do
        found=
        for file in $(marked "$job_name"); do
            file=${file#/proc/} pid=${file%/environ}
            [ "$pid" != $$ ] || continue
            found=yes comm=
            { read -r comm <"/proc/$pid/comm"; } 2>/dev/null
            case $job_engine:$comm in
            podman:sh | podman:sleep | podman:"$own") ;;
            podman:*)
                # Podman's client makes the container itself, with others' help. Killed in the
                # middle they would leave a network namespace that nobody knows of; it ends when
                # the container does.
                [ "$now" -ge "$end" ] || continue
                ;;
            esac
            kill -KILL "$pid" 2>/dev/null
        done
        # A shell may have started another one meanwhile.
        if [ -z "$found" ] || [ "$now" -ge "$end" ]; then break; fi
        [ "$job_engine" = docker ] || remove_container
        pause
    done
}

remove_made() { # false when the engine does not answer; also what the engine is just making
    clock
    end=$((now + 3000))
    while :; do
        remove_container || return 1
        if is_free || [ "$now" -ge "$end" ]; then return 0; fi
        pause
    done
}

is_free() { # whether nothing of the job's name is there, nor being made
    [ "$job_engine" = docker ] && [ -e "$job_folder/container" ] || return 0
    # The name is taken from the first moment on, and long before the container can be removed.
    if job_client create --pull never --name "$job_box" --network none "$job_image" true \
        >/dev/null 2>"$job_folder/asked"; then
        remove_container
        return 0
    fi
    ! grep -q 'already in use' "$job_folder/asked"
}

after_restart() {
    end_members
}

recall_code() { # what box.sh noted outlives the keeper
    read_state
    [ "$state" = ended ] || return 1
    code=$box_code
}

keep_result() { # of a build: an image, with the configuration that its base had
    read -r image_id _ <"$job_folder/image" || return
    set --
    while read -r key value; do
        case $key$value in
        ENTRYPOINTnull | CMDnull) value='[]' ;;
        WORKDIR) value=/ ;;
        esac
        set -- "$@" --change "$key $value"
    done <<EOF
$(job_client image inspect --format 'ENTRYPOINT {{json .Config.Entrypoint}}
CMD {{json .Config.Cmd}}
WORKDIR {{.Config.WorkingDir}}' "$image_id")
EOF
    job_client commit "$@" "$job_box" "$job_build_image" >"$job_folder/commit" 2>&1
    committed "$?" || return
    sizes=$(job_client image inspect --format '{{.Size}}' "$job_build_image" "$image_id")
    echo "$job_build_image $((${sizes%%
*} - ${sizes##*
}))" >"$job_folder/built"
}

committed() { # $1 what the client exited with; false, and `detail` says why, where there is no image
    [ "$1" -gt 128 ] || : >"$job_folder/answered"
    [ "$1" != 0 ] || return 0
    if [ "$1" -le 128 ]; then
        echo '@commit' >"$job_folder/detail"
        return 1
    fi
    # Its death does not end what Docker was told to do.
    clock
    end=$((now + 1000))
    until job_client image inspect "$job_build_image" >/dev/null 2>&1; do
        if commit_answered || [ "$now" -ge "$end" ]; then
            echo "the client of the engine ($job_engine) was killed while it made the image" \
                >"$job_folder/detail"
            return 1
        fi
        pause
    done
}

drop_result() { # the container of a build is kept until now
    drop_container
}

close_sandbox() {
    :
}
