# From here on the file is the same for every job.
#
# shellcheck shell=sh disable=SC2154 # what is referenced here is assigned above, in each job
#
#   sh job.sh        the keeper: runs the job, waits for its end, writes `exit`; of it are, each a
#                    shell of its own, `sh job.sh stages LIMITED` and `sh job.sh finish CODE TIMER`
#   sh job.sh stop   does what `stop` says ("REASON SECONDS"): SIGTERM to everything that the job
#                    started, SIGKILL after that many seconds
#   sh job.sh end    for a job whose keeper died: ends what it left, writes `exit`; exits with 3
#                    when the keeper lives, with 4 when what it left cannot be ended now
#   sh job.sh guard  stops the jobs of this folder that are over their max_duration, and notes when
#                    they print (guard.sh)
#   sh job.sh client ARGUMENTS
#                    the container engine's command, as this job calls it
#   sh job.sh probe  whether this host lets us limit memory and cpu
#
# What is above, from the sandbox that this job has (process.sh or container.sh): open_sandbox,
# stages, settle, members, ask_members, kill_members, end_members, after_restart, recall_sandbox,
# recall_code, out_of_memory, close_sandbox.
#
# Needs a POSIX sh, ln, readlink, mv, cp, mkdir, rmdir, rm, sleep, and grep where there are no
# cgroups; with GPUs also sed, sort and tr; stat with -c, or it is not known when what was printed
# while nobody watched.

PATH=/usr/bin:/bin:$PATH
export PATH
cd /

# ---- who a process is: PID:STARTTIME:BOOT, the latter two empty without /proc ----

started() { # $1 pid -> $start: in clock ticks since boot (proc(5), field 22); empty: it is gone
    start=
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    set -f
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    set +f
    case $1 in Z | X) ;; *) start=${20} ;; esac
}

identify() { # -> $identity of this shell
    started $$
    boot=
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    identity=$$:$start:$boot
}

clock() { # -> $now: hundredths of a second since some moment, whatever the wall clock does
    if read -r up _ <"/proc/uptime"; then now=${up%.*}${up#*.}; else now=$((${now-0} + 5)); fi
} 2>/dev/null

pause() {
    sleep 0.05 2>/dev/null || sleep 1
    clock
}

marked() { # $1 a job, $2 a process id, or all -> /proc/PID/environ of what bears its mark
    if [ $# = 2 ]; then set -- "$1" "/proc/$2/environ"; else set -- "$1" /proc/[0-9]*/environ; fi
    mark=DSTACK_JOB=:$1:
    shift
    find_marked "$mark" "$@"
}

# ---- the stages ----

phase() { # fixed width and in place: it works on a full disk, and a reader never sees half of it
    echo "$1" 1<>"$job_phase"
}

fail() { # $1 a sentence for people
    echo "$1" >"$job_folder/detail"
    echo "dstack: $1"
    exit 125
}

# ---- the keeper ----

read_stop() { # -> $stop_reason, $stop_grace
    read -r stop_reason stop_grace <"$job_folder/stop"
} 2>/dev/null

stop() { # one at a time; the one at it reads again what `stop` says
    keeper=$(readlink "$job_folder/pid") || exit 0
    identify
    until ln -s "$identity" "$job_folder/stopping" 2>/dev/null; do
        other=$(readlink "$job_folder/stopping") || exit 0
        is_alive "$other" && exit 0
        rm -f "$job_folder/stopping"
    done
    identity=$keeper keeper=${keeper%%:*} told='' last=0
    recall_sandbox
    clock
    while [ ! -e "$job_folder/exit" ] && is_alive "$identity"; do
        members quick
        read_stop || exit 0
        if [ -z "$told" ] && [ -n "$members" ]; then
            : >"$job_folder/stopped"
            told=yes last=$((now + stop_grace * 100))
            [ "$stop_grace" = 0 ] || ask_members
        fi
        [ "$stop_grace" != 0 ] || last=0
        [ -z "$told" ] || [ "$now" -lt "$last" ] || kill_members
        pause
    done
}

is_alive() { # $1 an identity
    boot=
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    started "${1%%:*}"
    if [ -d /proc/self ] && [ -z "$start" ]; then return 1; fi
    [ "$1" = "${1%%:*}:$start:$boot" ] && kill -0 "${1%%:*}" 2>/dev/null
}

judge() { # -> $reason, $signal, $stage, $index, $oom from $code, `phase` and `stop`
    stage='' index='' oom=false signal='' detail=''
    { read -r stage index <"$job_phase"; } 2>/dev/null
    [ "$code" -gt 128 ] && [ "$code" -le 192 ] && signal=$((code - 128))
    out_of_memory && oom=true
    if [ -e "$job_folder/stopped" ] && read_stop; then
        reason=$stop_reason
        [ "$reason" = max_duration ] && code=124
    elif [ -n "$lost" ]; then
        reason=killed detail=$lost
    elif [ "$code" = 0 ]; then
        reason=completed
    elif [ "$stage" = environment ]; then
        # What `exec` leaves for anything but a missing program; Linux takes 128 KiB a value.
        [ "$code" != 126 ] || detail='the shell cannot be started: a value in env may be too long'
        reason=start_failed code=125
        { read -r detail <"$job_folder/detail"; } 2>/dev/null
        [ -n "$detail" ] || detail=${unkept-}
        [ ! -e "$job_folder/no_capacity" ] || reason=no_capacity
    elif [ "$oom" = true ]; then
        reason=oom
    else
        reason=${stage%s}_failed
    fi
}

write_exit() {
    # Over the blanks that were written there at the start: a full disk does not matter.
    echo "code=$code
reason=$reason
signal=$signal
oom=$oom
stage=$stage
index=$index
detail=$detail
" 1<>"$job_folder/exit.new"
    mv "$job_folder/exit.new" "$job_folder/exit"
}

keep() {
    identify
    if ! ln -s "$identity" "$job_folder/pid" 2>/dev/null; then
        [ "$(readlink "$job_folder/pid")" = "$identity" ] || exit 0
    fi
    keeper=$$ timer='' limited=''
    open_sandbox
    set_timer
    # What waits for the job is a shell that has read these lines only. A job may take weeks, and
    # a shell that has read this whole file is three times as large. It stays the same process.
    # Signals are handled rather than ignored meanwhile: what is ignored would be so in the job,
    # too. And the job does not run with `&`: that would make it ignore SIGINT. The parentheses
    # keep what a shell says of a child that was killed out of the log.
    small_shell
    # shellcheck disable=SC2016,SC2086
    exec $waiter -c 'trap : HUP INT QUIT TERM USR1 USR2
exec 3>&2 2>/dev/null
(exec /bin/sh "$0/job.sh" stages "$2") >>"$0/log" 2>&1 </dev/null 3>&-
set -- "$?" "$1"
trap "" HUP INT QUIT TERM USR1 USR2
exec /bin/sh "$0/job.sh" finish "$@" 2>&3 3>&-' "$job_folder" "$timer" "$limited"
}

small_shell() { # -> $waiter: busybox's is half as large where it is linked statically
    for waiter in /bin/busybox /usr/bin/busybox; do
        if [ -x "$waiter" ] && "$waiter" sh -c : 2>/dev/null; then
            waiter="$waiter sh"
            return
        fi
    done
    waiter='/bin/sh'
}

finish() { # $1 what the stages ended with, $2 the timer
    code=$1 timer=$2 keeper=$$ lost=''
    recall_sandbox
    settle
    gather_build
    # A second start may have come too late for its values to be read.
    [ ! -e "$job_folder/env" ] || rm -f "$job_folder/env"
    judge
    # Once `exit` is there nobody comes to clean up any more.
    [ -z "${job_gpus-}" ] || release_gpus
    close_sandbox
    write_exit
    exit 0
}

give_up() { # stopped before it began
    : >"$job_folder/stopped"
    exit 143
}

end() { # the keeper is gone: end what it left, and say so where it could not
    identity=$(readlink "$job_folder/pid")
    is_alive "$identity" && exit 3
    keeper='' code=137 ended=killed lost=''
    recall_sandbox
    if [ "${identity##*:}" = "$boot" ]; then
        keeper=${identity%%:*}
        end_members 0 all || exit 4
    elif [ -z "$identity" ]; then
        # The folder is gone. Its keeper may live, and is ended with the others: it bears the mark.
        end_members 0 all || exit 4
    else
        ended=host_restarted
        after_restart || exit 4
    fi
    [ -z "${job_gpus-}" ] || release_gpus
    if [ ! -d "$job_folder" ]; then
        close_sandbox
        exit 0
    fi
    [ ! -e "$job_folder/env" ] || rm -f "$job_folder/env"
    if [ ! -e "$job_folder/exit" ]; then
        [ -z "${job_build-}" ] && recall_code && ended=
        [ ! -e "$job_folder/stop" ] || [ -z "$ended" ] || : >"$job_folder/stopped"
        judge
        [ -z "$ended" ] || [ -e "$job_folder/stopped" ] || reason=$ended code=137 detail=''
        close_sandbox
        write_exit
    fi
    close_sandbox
}

case ${1-keep} in
keep) keep ;;
stages)
    limited=${2-}
    recall_sandbox
    [ ! -e "$job_folder/stop" ] || give_up
    [ -z "${job_gpus-}" ] || claim_gpus
    stages
    ;;
finish) finish "$2" "${3-}" ;;
guard) guard ;;
stop) stop ;;
end) end ;;
probe) probe ;;
client)
    shift
    job_client "$@"
    ;;
*)
    echo 'usage: sh job.sh [stop | end | guard | probe | client ...]' >&2
    exit 2
    ;;
esac
