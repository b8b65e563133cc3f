# ---- processes of this machine: where the job runs, and how all of it is found and ended ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh

# -- cgroups: to find every process of the job, and to limit it --

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
    close_sandbox
    exit "$code"
}

out_of_memory() { # whether the limit had a process killed (cgroup-v2.rst, memcg v1 oom_control)
    [ -n "$memory" ] && [ -r "$memory" ] || return 1
    while read -r key value; do
        [ "$key" = oom_kill ] && [ "$value" -gt 0 ] && return 0
    done <"$memory"
    return 1
}

# -- everything the job started --

members() { # -> $members: pids, without the keeper, this shell and the guard
    members=
    if [ -n "$cgroup" ] && [ -r "$cgroup/cgroup.procs" ]; then
        while read -r pid; do
            [ "$pid" = $$ ] || members="$members $pid"
        done <"$cgroup/cgroup.procs"
        [ "$1" = all ] || return 0
    elif [ "$1" = quick ] && [ "$keeper" = $$ ] && [ -n "${DSTACK_SUBREAPER-}" ] &&
        [ -r "/proc/$$/task/$$/children" ]; then
        # Orphans come to the keeper: without children there is nothing left.
        await_children || return 0
    fi
    scan
}

await_children() { # false when none of the keeper's lives; the timer, when told to, ends in a moment
    turns=0 before=none
    while [ "$turns" -lt 40 ]; do
        turns=$((turns + 1)) children='' living=''
        read -r children <"/proc/$$/task/$$/children"
        for child in $children; do
            { read -r stat <"/proc/$child/stat"; } 2>/dev/null || continue
            # Those of the shell that this one was before are nobody's to wait for.
            case ${stat##*) } in [ZX]" "*) ;; *) living=yes ;; esac
        done
        # One that ended since the list was read has left its own children to us: what holds is a
        # list that is the same one after all in it were seen to have ended.
        if [ -z "$living" ] && [ "$children" = "$before" ]; then return 1; fi
        before=$children
        [ -z "$living" ] || before=none
    done
}

scan() { # by mark, by where they print, by the keeper's session, and the tree below all these
    found=" $members "
    if [ -d /proc/self ]; then
        for file in $(marked "$job_name"); do
            file=${file#/proc/}
            found="$found${file%/environ} "
        done
        find_printing
    fi
    processes
    # Orphans come to the keeper where it adopts them; the guard may be one, and is for all jobs.
    find_guard
    find_hung
    # Who waits for the keeper on another machine (channel.sh) has its environment, and ends with it.
    parent=
    [ "$keeper" != $$ ] || parent=$PPID
    members='' grown=1
    while [ -n "$grown" ]; do
        grown=
        while read -r pid ppid sid state; do
            case $state in Z* | X*) continue ;; esac
            case $pid in "" | "$$" | "$keeper" | "$guard" | "$parent") continue ;; esac
            case " $members $hung " in *" $pid "*) continue ;; esac
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

find_printing() { # those of $found may have emptied their environment, or written over it
    place=$(cd -P "$job_folder" && pwd -P) || return 0
    # Only where each leads: to look at the file itself could take for ever, on a dead server's disk.
    while read -r line; do
        case $line in *" -> $place/log")
            line=${line#* /proc/}
            found="$found${line%%/*} "
            ;;
        esac
    done <<-EOF
		$(ls -ln /proc/[0-9]*/fd/[12])
	EOF
} 2>/dev/null

find_hung() { # -> $hung: what dstack itself asked, and cannot end (gpus.sh): nobody may wait for it
    hung=
    while read -r asked; do
        ! is_alive "$asked" || hung="$hung ${asked%%:*}"
    done <"$job_folder/hung"
} 2>/dev/null

processes() { # -> $table: lines of "pid ppid session state"
    table=
    if [ ! -d /proc/self ]; then
        table=$(ps -A -o pid= -o ppid= -o sess= -o state=)
        return
    fi
    # By number, so parents mostly come before their children: a shell that is told to end first has
    # nothing to say of what it waits for. The names come by the alphabet.
    of_1='' of_2='' of_3='' of_4='' of_5='' of_6='' of_7=''
    for file in /proc/[0-9]*/stat; do
        # A process has any name it likes, one with a line break, too.
        { { read -r stat && while read -r more; do stat="$stat $more"; done; } <"$file"; } \
            2>/dev/null || continue
        pid=${stat%% *}
        set -f
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        set +f
        case $pid$2$4 in *[!0-9]*) continue ;; esac
        # What is in the names of other processes must not be read as a command.
        eval "of_${#pid}=\"\${of_${#pid}}\$pid \$2 \$4 \$1
\""
    done
    table=$of_1$of_2$of_3$of_4$of_5$of_6$of_7
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

# -- what the keeper asks of a sandbox --

open_sandbox() {
    memory=''
    track
    [ -n "$cgroup" ] || adopt_orphans
    limited=yes
    limit || limited=
    echo "$cgroup
$memory
$cgroups" >"$job_folder/cgroups"
}

recall_sandbox() {
    cgroup='' memory='' cgroups=''
    { { read -r cgroup && read -r memory && read -r cgroups; } <"$job_folder/cgroups"; } 2>/dev/null || {
        # The keeper died before it could write down what it may have made, or while it did.
        track
        limit
    }
    return 0
}

settle() {
    drop_timer
    end_members 2 quick
}

after_restart() { # the machine was restarted: nothing of the job is left
    :
}

recall_code() { # without its keeper nobody knows how a process ended
    return 1
}

keep_result() { # of a build: its environment and its files are taken as they lie
    :
}

drop_result() {
    :
}

close_sandbox() {
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

stages() { # the job itself, in a shell of its own
    for made in $cgroups; do echo 0 >"$made/cgroup.procs"; done
    [ -n "$limited" ] || fail 'the limits of memory and cpu cannot be set on this machine'
    unset DSTACK_SUBREAPER OLDPWD
    lay_build
    make_environment
    link_caches
    mark_files
    cd "$job_code" || fail "the folder $job_code is not there"
    for shell in /bin/bash /usr/bin/bash /usr/local/bin/bash; do
        [ -x "$shell" ] && break
    done
    [ -x "$shell" ] || shell=$(command -v bash) || shell=/bin/sh
    if [ -n "${job_gpus-}" ]; then
        cuda_devices
        # What the user sets wins. The order is that of nvidia-smi, whose numbers these are.
        export CUDA_VISIBLE_DEVICES="$devices" CUDA_DEVICE_ORDER=PCI_BUS_ID
    fi
    job_environment
    if [ -n "$job_setup" ] && [ ! -e "$job_env/.dstack-setup-done" ]; then
        "$shell" "$job_folder/job.sh" setup || exit
        [ -d "$job_env" ] || mkdir "$job_env"
        : >"$job_env/.dstack-setup-done"
    fi
    : >"$job_folder/running"
    exec "$shell" "$job_folder/job.sh" commands
}
