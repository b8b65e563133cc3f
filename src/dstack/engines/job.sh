# From here on the file is the same for every job.
#
# shellcheck shell=sh disable=SC2154 # what is referenced here is assigned above, in each job
#
#   sh job.sh        the keeper: runs the job, waits for its end, writes `exit`
#   sh job.sh stop   does what `stop` says ("REASON SECONDS"): SIGTERM to everything that the job
#                    started, SIGKILL after that many seconds
#   sh job.sh end    for a job whose keeper died: ends what it left, writes `exit`
#   sh job.sh probe  whether this host lets us limit memory and cpu
#
# Needs a POSIX sh, ln, readlink, mv, cp, mkdir, rmdir, rm, sleep, and grep where there are no
# cgroups.

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

# ---- cgroups: to find every process of the job, and to limit it ----

own_cgroup() { # $1 mount, $2 controller or "" (version 2) -> $parent, empty: not ours to use
    parent=
    while IFS=: read -r _ controllers path; do
        case ,$controllers, in *",$2,"*) parent=$1${path%/} ;; esac
    done </proc/self/cgroup
    # Inside a container the path may be the host's, and the mount is our own cgroup.
    [ -d "$parent" ] || parent=$1
    [ -w "$parent" ] && [ -w "$parent/cgroup.procs" ] || parent=
}

add_cgroup() { # $1 mount, $2 controller: one more for the job; false where it cannot be made
    own_cgroup "$1" "$2"
    [ -n "$parent" ] || return 1
    mkdir "$parent/dstack-$job_name" 2>/dev/null
    [ -d "$parent/dstack-$job_name" ] || return 1
    made=$parent/dstack-$job_name
    cgroups="$cgroups $made"
}

track() { # -> $cgroup: what holds every process of the job; empty where there is none
    cgroup='' cgroups=''
    [ -r /proc/self/cgroup ] || return 0
    root=$job_cgroup_root
    if [ -e "$root/cgroup.controllers" ]; then
        add_cgroup "$root" "" && cgroup=$made
    elif [ -e "$root/unified/cgroup.controllers" ]; then
        add_cgroup "$root/unified" "" && cgroup=$made
    else
        for kind in pids freezer memory; do
            [ -d "$root/$kind" ] && add_cgroup "$root/$kind" "$kind" && cgroup=$made && break
        done
    fi
}

set_limit() { # $1 value, $2 file
    { echo "$1" >"$2"; } 2>/dev/null
}

limit() { # memory and cpu; false where the host does not let us
    [ -n "$job_memory$job_cpu" ] || return 0
    root=$job_cgroup_root
    if [ -e "$root/cgroup.controllers" ]; then
        limit_v2
        return
    fi
    if [ -n "$job_memory" ]; then
        add_cgroup "$root/memory" memory || return 1
        memory=$made/memory.oom_control
        set_limit "$job_memory" "$made/memory.limit_in_bytes" || return 1
        set_limit "$job_memory" "$made/memory.memsw.limit_in_bytes"
    fi
    if [ -n "$job_cpu" ]; then
        add_cgroup "$root/cpu" cpu || return 1
        set_limit 100000 "$made/cpu.cfs_period_us"
        set_limit "${job_cpu}00" "$made/cpu.cfs_quota_us" || return 1
    fi
}

limit_v2() {
    # Only the root may hold processes and hand controllers down, so its child is the place.
    [ -n "$cgroup" ] && rmdir "$cgroup"
    cgroup=$root/dstack-$job_name cgroups=" $root/dstack-$job_name"
    set_limit '+memory +cpu' "$root/cgroup.subtree_control"
    mkdir "$cgroup" 2>/dev/null
    memory=$cgroup/memory.events
    if [ -n "$job_memory" ]; then
        set_limit "$job_memory" "$cgroup/memory.max" || return 1
        set_limit 0 "$cgroup/memory.swap.max"
    fi
    if [ -n "$job_cpu" ]; then
        set_limit "${job_cpu}00 100000" "$cgroup/cpu.max" || return 1
    fi
    return 0
}

probe() {
    job_name=probe-$$ job_cgroup_root=/sys/fs/cgroup job_memory=67108864 job_cpu=1000
    track
    limit
    code=$?
    drop_cgroups
    exit "$code"
}

out_of_memory() { # whether the limit had a process killed (cgroup-v2.rst, memcg v1 oom_control)
    [ -n "$memory" ] && [ -r "$memory" ] || return 1
    while read -r key value; do
        [ "$key" = oom_kill ] && [ "$value" -gt 0 ] && return 0
    done <"$memory"
    return 1
}

# ---- everything the job started ----

members() { # -> $members: pids, without the keeper, its timer and this shell
    members=
    if [ -n "$cgroup" ] && [ -r "$cgroup/cgroup.procs" ]; then
        while read -r pid; do
            [ "$pid" = $$ ] || members="$members $pid"
        done <"$cgroup/cgroup.procs"
        [ "$1" = all ] || return 0
    elif [ "$1" = quick ] && [ -n "${DSTACK_SUBREAPER-}" ] && [ -r "/proc/$$/task/$$/children" ]; then
        # Orphans come to the keeper: without children there is nothing left.
        children=
        read -r children <"/proc/$$/task/$$/children"
        [ -n "$children" ] || return 0
    fi
    scan
}

scan() { # by the mark in the environment, the keeper's session, and the tree below both
    found=" $members "
    if [ -d /proc/self ]; then
        # shellcheck disable=SC2013 # process ids, not lines
        for file in $(grep -lsF "DSTACK_JOB=:$job_name:" /proc/[0-9]*/environ); do
            file=${file#/proc/}
            found="$found${file%/environ} "
        done
    fi
    processes
    members='' grown=1
    while [ -n "$grown" ]; do
        grown=
        while read -r pid ppid sid state; do
            case $state in Z* | X*) continue ;; esac
            case $pid in "" | "$$" | "$keeper") continue ;; esac
            case " $members " in *" $pid "*) continue ;; esac
            if [ "$sid" = "$keeper" ] || [ "$ppid" = "$keeper" ]; then
                :
            else
                case "$found" in *" $pid "*) ;; *)
                    case " $members " in *" $ppid "*) ;; *) continue ;; esac ;;
                esac
            fi
            members="$members $pid" grown=1
        done <<-EOF
			$table
		EOF
    done
}

processes() { # -> $table: lines of "pid ppid session state"
    table=
    if [ ! -d /proc/self ]; then
        table=$(ps -A -o pid= -o ppid= -o sess= -o state=)
        return
    fi
    for file in /proc/[0-9]*/stat; do
        { read -r stat <"$file"; } 2>/dev/null || continue
        pid=${stat%% *}
        set -f
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        set +f
        table="$table$pid $2 $4 $1
"
    done
}

signal_members() { # $1 signal
    # shellcheck disable=SC2086
    [ -z "$members" ] || kill "-$1" $members 2>/dev/null
}

end_members() { # $1 seconds from SIGTERM to SIGKILL, $2 how to look for them
    members "$2"
    [ -n "$members" ] || return 0
    clock
    last=$((now + $1 * 100))
    [ "$1" = 0 ] || ask_members
    while [ -n "$members" ]; do
        [ "$now" -lt "$last" ] || kill_members
        pause
        members "$2"
    done
}

ask_members() {
    signal_members TERM
    signal_members CONT
}

kill_members() {
    [ ! -e "$cgroup/cgroup.kill" ] || set_limit 1 "$cgroup/cgroup.kill"
    signal_members KILL
}

clock() { # -> $now: hundredths of a second since some moment, whatever the wall clock does
    if read -r up _ <"/proc/uptime"; then now=${up%.*}${up#*.}; else now=$((${now-0} + 5)); fi
} 2>/dev/null

pause() {
    sleep 0.05 2>/dev/null || sleep 1
    clock
}

# ---- the stages ----

phase() { # fixed width and in place: it works on a full disk, and a reader never sees half of it
    echo "$1" 1<>"$job_folder/phase"
}

fail() { # $1 a sentence for people
    echo "$1" >"$job_folder/detail"
    echo "dstack: $1"
    exit 125
}

stages() { # the job itself, in a shell of its own
    for made in $cgroups; do echo 0 >"$made/cgroup.procs"; done
    unset DSTACK_SUBREAPER OLDPWD
    make_environment
    link_caches
    cd "$job_code" || fail "the folder $job_code is not there"
    for shell in /bin/bash /usr/bin/bash /usr/local/bin/bash; do
        [ -x "$shell" ] && break
    done
    [ -x "$shell" ] || shell=$(command -v bash) || shell=/bin/sh
    job_environment
    if [ -n "$job_setup" ] && [ ! -e "$job_env/.dstack-setup-done" ]; then
        "$shell" "$job_folder/job.sh" setup || exit
        [ -d "$job_env" ] || mkdir "$job_env"
        : >"$job_env/.dstack-setup-done"
    fi
    : >"$job_folder/running"
    exec "$shell" "$job_folder/job.sh" commands
}

# ---- the keeper ----

read_stop() { # -> $stop_reason, $stop_grace
    read -r stop_reason stop_grace <"$job_folder/stop"
} 2>/dev/null

set_timer() { # -> $timer: a shell that waits, then stops the job
    [ -n "$job_max_duration" ] || return 0
    (
        # "$!" is set with the fork itself: no moment in which the sleep would be left behind.
        # SIGKILL, since a shell that has only just forked still swallows what it has a trap for.
        trap '[ -z "$!" ] || kill -KILL "$!"; exit' TERM
        sleep "$job_max_duration" &
        wait "$!"
        [ -e "$job_folder/stop" ] || echo 'max_duration 10' >"$job_folder/stop"
        exec /bin/sh "$job_folder/job.sh" stop
    ) </dev/null >/dev/null 2>&1 &
    timer=$!
}

stop() { # one at a time; the one at it reads again what `stop` says
    keeper=$(readlink "$job_folder/pid") || exit 0
    identify
    until ln -s "$identity" "$job_folder/stopping" 2>/dev/null; do
        other=$(readlink "$job_folder/stopping") || exit 0
        is_alive "$other" && exit 0
        rm -f "$job_folder/stopping"
    done
    identity=$keeper keeper=${keeper%%:*} told='' last=0
    read_cgroups
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

read_cgroups() {
    cgroup='' memory='' cgroups=''
    if [ -e "$job_folder/cgroups" ]; then
        { read -r cgroup && read -r memory && read -r cgroups; } <"$job_folder/cgroups"
    else
        # The keeper died before it could write down what it may have made.
        track
        limit
    fi
    return 0
}

judge() { # -> $reason, $signal, $stage, $index, $oom from $code, `phase` and `stop`
    stage='' index='' oom=false signal='' detail=''
    { read -r stage index <"$job_folder/phase"; } 2>/dev/null
    [ "$code" -gt 128 ] && [ "$code" -le 192 ] && signal=$((code - 128))
    out_of_memory && oom=true
    if [ -e "$job_folder/stopped" ] && read_stop; then
        reason=$stop_reason
        [ "$reason" = max_duration ] && code=124
    elif [ "$code" = 0 ]; then
        reason=completed
    elif [ "$stage" = environment ]; then
        # What `exec` leaves for anything but a missing program; Linux takes 128 KiB a value.
        [ "$code" != 126 ] || detail='the shell cannot be started: a value in env may be too long'
        reason=start_failed code=125
        { read -r detail <"$job_folder/detail"; } 2>/dev/null
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

drop_cgroups() {
    # A process that was killed just now may hold its group for a moment after it left the list.
    for made in $cgroups; do
        tries=0
        while [ -d "$made" ] && ! rmdir "$made" 2>/dev/null && [ "$tries" -lt 100 ]; do
            tries=$((tries + 1))
            sleep 0.05 2>/dev/null || sleep 1
        done
    done
}

adopt_orphans() { # without a cgroup: have the kernel give the job's orphans to the keeper
    [ -z "${DSTACK_SUBREAPER-}" ] && [ -d /proc/self ] && command -v perl >/dev/null || return 0
    case $(uname -m) in
    x86_64) call=157 ;;
    aarch64 | riscv64 | loongarch64) call=167 ;;
    *) return 0 ;;
    esac
    # prctl(PR_SET_CHILD_SUBREAPER, 1); it stays over exec, prctl(2).
    DSTACK_SUBREAPER=1 exec perl -e 'syscall(shift, 36, 1, 0, 0, 0); exec @ARGV' \
        "$call" /bin/sh "$job_folder/job.sh"
}

keep() {
    identify
    if ! ln -s "$identity" "$job_folder/pid" 2>/dev/null; then
        [ "$(readlink "$job_folder/pid")" = "$identity" ] || exit 0
    fi
    keeper=$$ timer='' memory=''
    track
    [ -n "$cgroup" ] || adopt_orphans
    limited=yes
    limit || limited=
    echo "$cgroup
$memory
$cgroups" >"$job_folder/cgroups"
    # Before the traps, or it might swallow the signal that ends it.
    set_timer
    # Handled rather than ignored: what is ignored would be so in the job, too. And the job does
    # not run with `&`: that would make it ignore SIGINT.
    trap : HUP INT QUIT TERM USR1 USR2
    {
        (
            [ ! -e "$job_folder/stop" ] || give_up
            [ -n "$limited" ] || fail 'the limits of memory and cpu cannot be set on this machine'
            stages
        ) >>"$job_folder/log" 2>&1 </dev/null
        code=$?
    } 2>/dev/null
    [ -z "$timer" ] || kill "$timer" 2>/dev/null
    end_members 2 quick
    # A second start may have come too late for its values to be read.
    [ ! -e "$job_folder/env" ] || rm -f "$job_folder/env"
    judge
    # Once `exit` is there nobody comes to clean up any more.
    drop_cgroups
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
    keeper='' code=137 ended=killed
    read_cgroups
    if [ "${identity##*:}" = "$boot" ]; then
        keeper=${identity%%:*}
        end_members 0 all
    elif [ -z "$identity" ]; then
        # The folder is gone. Its keeper may live, and is ended with the others: it bears the mark.
        end_members 0 all
    else
        ended=host_restarted
    fi
    if [ ! -d "$job_folder" ]; then
        drop_cgroups
        exit 0
    fi
    rm -f "$job_folder/env"
    if [ ! -e "$job_folder/exit" ]; then
        [ ! -e "$job_folder/stop" ] || : >"$job_folder/stopped"
        judge
        [ -e "$job_folder/stopped" ] || reason=$ended code=137 detail=''
        drop_cgroups
        write_exit
    fi
    drop_cgroups
}

case ${1-keep} in
keep) keep ;;
stop) stop ;;
end) end ;;
probe) probe ;;
*)
    echo 'usage: sh job.sh [stop | end | probe]' >&2
    exit 2
    ;;
esac
