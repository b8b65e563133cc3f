# From here on the file is the same for every job. It runs in the container, as its first process.
# shellcheck shell=sh disable=SC2154 # job_... are assigned above, in each job
#
#   sh box.sh box   runs the job, and notes in `state` that it began, and how it ended
#
# Needs a POSIX sh and what the image has: rm, where there are values to be read; sleep, to let what
# the commands left behind end by itself.

note() { # in place and of one width: it works on a full disk, and a reader never sees half of it
    echo "$1" 1<>/.dstack/state
}

out_of_memory() { # whether the limit had a process killed: cgroup-v2.rst, memcg v1 oom_control
    for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
        [ -r "$file" ] || continue
        while read -r key value; do
            [ "$key" = oom_kill ] && [ "$value" -gt 0 ] && return 0
        done <"$file"
    done
    return 1
}

stages() { # in a shell of its own, whose traps are as those of any shell
    shell=$(command -v bash) || shell='sh'
    job_environment
    [ -z "$job_setup" ] || "$shell" /.dstack/box.sh setup || exit
    : >/.dstack/running
    job_commands
}

own_command() { # the image's own entrypoint and command
    # shellcheck disable=SC1091
    . /.dstack/image
    echo 'commands 1          ' 1<>/.dstack/phase
    image_argv exec
    echo "dstack: the image has no command of its own: add commands to the task file"
    exit 127
}

others() { # whether anything is left but the engine's init and this shell
    for entry in /proc/[0-9]*; do
        case ${entry#/proc/} in 1 | "$$") ;; *) return 0 ;; esac
    done
    return 1
}

let_others_end() { # as the keeper does it for processes: SIGTERM, and two seconds
    others || return 0
    kill -TERM -1 2>/dev/null
    tries=0
    while others && [ "$tries" -lt 40 ]; do
        tries=$((tries + 1))
        sleep 0.05 2>/dev/null || return 0
    done
}

box() {
    exec >>/.dstack/log 2>&1 </dev/null
    note 'begun               '
    # What the engine's init takes for "pass signals on to all"; the commands need not know.
    unset TINI_KILL_PROCESS_GROUP
    # Handled, so that this shell outlives a signal to all and can say how the others ended.
    trap : HUP INT QUIT TERM USR1 USR2
    code=0
    # A shell says on stderr which signal ended a child: not in the run's output.
    {
        (
            cd "$job_box_code" || exit 125
            unset OLDPWD
            stages
        ) 2>&1
        code=$?
    } 2>/dev/null
    let_others_end
    oom=
    out_of_memory && oom=oom
    note "ended $code $oom "
    exit "$code"
}

[ "${1-}" != box ] || box
