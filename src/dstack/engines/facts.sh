# What a machine offers, one fact a line: its name, a space, its value; facts.py reads it. The
# arguments are dstack's folder there, and what else is asked: gpus, pythons.
# shellcheck shell=sh

# The file of a limit, from our own control group up to the root: CONTROLLER V2 V1.
limits_of() {
    while IFS=: read -r _ controllers path; do
        case ,$controllers, in
            ,,) mount=/sys/fs/cgroup file=$2 ;;
            *,"$1",*) mount=/sys/fs/cgroup/$1 file=$3 ;;
            *) continue ;;
        esac
        path=${path%/}
        while :; do
            [ ! -r "$mount$path/$file" ] || echo "$mount$path/$file"
            [ -n "$path" ] || break
            path=${path%/*}
        done
    done </proc/self/cgroup 2>/dev/null
}

say_limit() { # $1 a name, then files of one line each: without a process of its own for each
    limit=$1
    shift
    for file; do
        line=
        { read -r line <"$file"; } 2>/dev/null
        limit="$limit $line"
    done
    echo "$limit"
}

root=$1
asked=" $* "
if count=$(nproc 2>/dev/null) || count=$(getconf _NPROCESSORS_ONLN 2>/dev/null); then
    echo "cpus $count"
else
    echo "cpus $(grep -c ^processor /proc/cpuinfo)"
fi
limits_of cpu cpu.max cpu.cfs_quota_us | while read -r file; do
    case $file in
        */cpu.max) say_limit quota "$file" ;;
        *) say_limit quota "$file" "${file%quota_us}period_us" ;;
    esac
done
while read -r name amount _; do
    [ "$name" != MemTotal: ] || echo "memory $((amount * 1024))"
done 2>/dev/null </proc/meminfo
limits_of memory memory.max memory.limit_in_bytes | while read -r file; do
    say_limit memory "$file"
done
while [ ! -d "$root" ]; do
    root=${root%/*}
    root=${root:-/}
done
# Not in POSIX, but in GNU's and busybox's, and it does not have to know where the disk is mounted.
if free=$(stat -f -c '%a %S' "$root" 2>/dev/null); then
    echo "disk $((${free% *} * ${free#* } / 1024))"
else
    df -Pk "$root" 2>/dev/null | while read -r _ _ _ free _; do echo "disk $free"; done
fi
case $asked in
    *" gpus "*) find_gpus | while read -r line || [ -n "$line" ]; do echo "gpu $line"; done ;;
esac
case $asked in
    *" pythons "*) find_pythons | while read -r line; do echo "python $line"; done ;;
esac
