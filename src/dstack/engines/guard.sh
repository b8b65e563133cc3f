# ---- `max_duration`, and when what was printed ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh
# shellcheck disable=SC3013 # dash and busybox have -nt
#
# Both take somebody who lives beside the job. At first that is a timer of its own: a shell and a
# `sleep`, which hundreds of long jobs need not have each. So after half a minute it leaves a link in
# the folder `guard`, named DEADLINE.BOOT.JOB and leading to the job's folder, and the one process
# that looks at these links does what the timer would have.

timer_seconds=30 # that a timer waits itself; limits of twice as much it sees through
guard_seconds=5  # from one look of the timer's or the guard's to the next
never=3000000000 # seconds: the limit of a job that has none

set_timer() { # -> $timer: a shell that waits, then stops the job or hands over
    (
        # "$!" is set with the fork itself: no moment in which the sleep would be left behind.
        # SIGKILL, since a shell that has only just forked still swallows what it has a trap for.
        trap '[ -z "$!" ] || kill -KILL "$!"; exit' TERM
        umask 077
        clock
        rest=${job_max_duration:-$never}
        deadline=$((now + 100 * rest))
        waits=$timer_seconds
        [ "$rest" -gt $((2 * timer_seconds)) ] || waits=$rest
        rest=$((rest - waits))
        while [ "$waits" -gt 0 ]; do
            step=$guard_seconds
            [ "$step" -le "$waits" ] || step=$waits
            sleep "$step" &
            wait "$!"
            waits=$((waits - step))
            note_times "$job_folder"
        done
        if [ "$rest" -gt 0 ]; then
            hand_over "$deadline" && exit
            [ -n "$job_max_duration" ] || exit
            sleep "$rest" &
            wait "$!"
        fi
        stop_late "$job_folder"
    ) </dev/null >/dev/null 2>&1 &
    timer=$!
}

note_times() { # $@ job folders -> `log.idx` of those that printed: MILLISECONDS LENGTH, a line a look
    for folder; do
        shift
        [ -s "$folder/log" ] || continue
        [ "$folder/log.seen" -nt "$folder/log" ] && continue
        # Before the length is looked at: what is printed in between is newer than this mark.
        true >"$folder/log.seen"
        set -- "$@" "$folder/log"
    done
    [ $# -gt 0 ] || return 0
    # The time of the last byte. Only GNU's stat knows fractions of seconds.
    stat -c '%.3Y %s %n' "$@" | while read -r at size name; do
        case $at in *.*) at=${at%.*}${at#*.} ;; *) at=${at}000 ;; esac
        echo "$at $size" >>"${name%/*}/log.idx"
    done
} 2>/dev/null

drop_timer() {
    [ -n "$timer" ] || return 0
    # A timer that has handed over is gone, and its number may be another process's.
    if [ -d /proc/self ]; then
        stat=
        { read -r stat <"/proc/$timer/stat"; } 2>/dev/null
        case ${stat##*) } in ?" $$ "*) ;; *) timer= ;; esac
    fi
    [ -z "$timer" ] || kill "$timer" 2>/dev/null
    timer=
}

stop_late() { # $1 a job folder
    [ -e "$1/stop" ] || echo 'max_duration 10' >"$1/stop"
    exec /bin/sh "$1/job.sh" stop
}

hand_over() { # $1 the deadline, as `clock` counts; false when there is nobody to hand over to
    [ -d /proc/self ] || return 1
    mkdir -p "$job_guard" || return 1
    # Links of one width are sorted by their deadlines.
    ln -s "$job_folder" "$job_guard/$((1000000000000 + $1)).$boot.$job_name" || return 1
    # The guard takes its name away before its last look: either it sees the link, or we this.
    find_guard
    [ -n "$guard" ] || start_guard
}

find_guard() { # -> $guard: the process that looks after the links; empty when there is none
    guard=
    { read -r guard <"$job_guard/pid"; } 2>/dev/null
    if [ -n "$guard" ] && is_alive "$guard"; then guard=${guard%%:*}; else guard=; fi
}

start_guard() { # without the job's mark and outside of its session: it outlives the job
    set -- /bin/sh "$job_folder/job.sh" guard
    if command -v setsid >/dev/null; then
        set -- setsid "$@"
    elif command -v perl >/dev/null; then
        set -- perl -e 'use POSIX; POSIX::setsid(); exec @ARGV' "$@"
    else
        return 1
    fi
    env -i PATH="$PATH" DSTACK_HOME="${DSTACK_HOME-}" "$@" &
}

guard() {
    cd "$job_guard" || exit 0
    umask 077
    identify
    claim_guard || exit 0
    while :; do
        look_at_links
        if [ -z "$next" ]; then
            rm -f pid
            look_at_links
            if [ -z "$next" ] || ! claim_guard; then exit 0; fi
        fi
        # Not longer: another job may be due earlier than those that are known.
        next=$(((next + 99) / 100))
        [ "$next" -lt "$guard_seconds" ] || next=$guard_seconds
        sleep "$next"
    done
}

claim_guard() { # false when another one is there; a link to a whole file is made in one step
    echo "$identity" >"pid.$$"
    until ln "pid.$$" pid 2>/dev/null; do
        find_guard
        if [ -n "$guard" ] || [ ! -d . ]; then break; fi
        rm -f pid
    done
    rm -f "pid.$$"
    read -r guard <pid && [ "$guard" = "$identity" ]
} 2>/dev/null

look_at_links() { # -> $next: hundredths of a second until the next deadline; empty: no job is left
    next='' over='' alive=''
    clock
    for link in 1*.*; do
        [ -L "$link" ] || continue
        due=$((${link%%.*} - 1000000000000 - now))
        case $link in *".$boot."*) ;; *) due= ;; esac
        if [ -z "$due" ] || [ -e "$link/exit" ] || [ ! -e "$link/job.sh" ]; then
            over="$over $link"
        elif [ "$due" -le 0 ]; then
            folder=$(readlink "$link")
            (stop_late "$folder") &
            over="$over $link"
        else
            next=${next:-$due} alive="$alive $link"
        fi
    done
    # shellcheck disable=SC2086
    [ -z "$over" ] || rm -f $over
    # shellcheck disable=SC2086
    [ -z "$alive" ] || note_times $alive
}
