# Where the app of a run listens, and whether it is the run's own; ways.py reads what is printed:
# "at ADDRESS", "foreign NAME PID" (who else listens there, where that can be seen), or nothing.
# "unseen": this machine does not show it. The arguments are
#   process PORT JOB FOLDER   the job's name and folder: its processes share the machine's ports
#   shared PORT PID ID        a container without a network of its own: its first process and id
#   inside PORT PID ID LOCAL  a container's first process and id; LOCAL is empty where an app that
#                             listens on the container's own 127.0.0.1 is not reached
# PORT is four hexadecimal digits.
# Needs marked.sh before it.
# shellcheck shell=sh disable=SC2010,SC2012 # a folder of open files has numbers for names
#
# proc_net_tcp.rst: a line a socket, those that listen (state 0A) first; the address in hexadecimal,
# each word of it in the machine's own byte order; the eighth column is the owner's uid, the tenth
# the socket's inode. There may be a hundred thousand connections behind: they are not read.

listeners() { # $1 the folder of the tables -> lines "ADDRESS UID INODE"
    for table in tcp tcp6; do
        sed -n "1d; / 0A /!q; s/^ *[0-9]*: \([0-9A-F]*\):$port [0-9A-F:]* 0A [0-9A-F:]* [0-9A-F:]* \
[0-9A-F]* *\([0-9]*\) *[0-9]* \([0-9]*\).*/\1 \2 \3/p" "$1/$table" 2>/dev/null
    done
}

loopback() { # $1 an address of a table -> $address by which 127.0.0.1 or ::1 reach it; empty: not
    address=
    case $1 in
    00000000 | 0100007F | 7F000001) address=127.0.0.1 ;;
    0000000000000000FFFF00000100007F | 00000000000000000000FFFF7F000001) address=127.0.0.1 ;;
    00000000000000000000000000000000) address=::1 ;;
    00000000000000000000000001000000 | 00000000000000000000000000000001) address=::1 ;;
    esac
}

# -- a process of the machine: also other people's, and other runs', listen there --

process() { # $1 the job's name, $2 its folder
    file=environ mark="DSTACK_JOB=:$1:" first=$(readlink "$2/pid") cgroup=''
    began=${first#*:} first=${first%%:*}
    began=${began%%:*}
    { read -r cgroup <"$2/cgroups"; } 2>/dev/null
    judge
}

shared() { # $1 the first process, $2 what its control group is called after
    file=cgroup mark=$2 first=$1 began='' cgroup=''
    judge
}

judge() { # whether who listens bears the $mark in its /proc/PID/$file, is in $cgroup, or below $first
    if [ ! -r /proc/net/tcp ]; then
        echo 'at 127.0.0.1'
        return
    fi
    found=$(listeners /proc/net)
    [ -n "$found" ] || return 0
    members='' foreign='' own=$(id -u)
    while read -r local uid inode; do
        loopback "$local"
        [ -n "$address" ] || continue
        [ -n "$members" ] || find_members
        if is_own; then
            echo "at $address"
            return
        fi
        foreign="foreign $holder"
    done <<EOF_FOUND
$found
EOF_FOUND
    echo "$foreign"
}

find_members() { # -> $members: the folders of the job's processes, as far as they are easily found
    members=$(find_marked "$mark" /proc/[0-9]*/"$file" | sed "s|$file\$|fd|")
    [ -z "$cgroup" ] ||
        members="$members $(sed 's|.*|/proc/&/fd|' "$cgroup/cgroup.procs" 2>/dev/null)"
    members="$members /proc/$first/fd"
}

is_own() { # whether the socket $inode of $uid is the job's -> $holder: "NAME PID" if it is not
    holder=
    # shellcheck disable=SC2086
    ! ls -l $members 2>/dev/null | grep -qF "socket:[$inode]" || return 0
    if [ "$uid" = 0 ] && is_published; then return 0; fi
    # Into other people's processes only root may look.
    if [ "$uid" != "$own" ] && [ "$own" != 0 ]; then
        has_user
        return
    fi
    # One who has cleared its environment, or does not let us read it.
    pid=$(ls -l /proc/[0-9]*/fd 2>/dev/null |
        sed -n -e 's|^/proc/\([0-9]*\)/fd:$|\1|; t keep' -e "/socket:\[$inode\]/{ x; p; q; }; b" \
            -e ': keep' -e h)
    if [ -z "$pid" ]; then
        # Nobody whom we may look into; we may into all of our own but those that forbid it.
        [ "$uid" = "$own" ]
        return
    fi
    descends "$pid" && return
    { read -r holder <"/proc/$pid/comm"; } 2>/dev/null
    holder="$holder $pid"
    return 1
}

has_user() { # whether something below $first is $uid's, as what the commands do by `sudo` is
    blank='[[:space:]]'
    # shellcheck disable=SC2013 # names of files
    for status in $(grep -ls "^Uid:$blank*[0-9]*$blank*$uid$blank" /proc/[0-9]*/status); do
        status=${status#/proc/}
        descends "${status%/status}" && return
    done
    return 1
}

is_published() { # whether Docker leads the port into a container, and has only since the job began
    # Its proxy is root's, and nobody's child: of `docker run -p` in a job nothing else is left.
    [ -n "$began" ] || return 1
    for proxy in /proc/[0-9]*; do
        name=
        { read -r name <"$proxy/comm"; } 2>/dev/null
        [ "$name" = docker-proxy ] || continue
        tr '\0' ' ' <"$proxy/cmdline" 2>/dev/null | grep -q -e "-host-port $((0x$port)) " || continue
        is_later "$proxy" && return
    done
    return 1
}

is_later() { # $1 a process: it began after the job
    { read -r stat <"$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ "${20}" -ge "$began" ]
}

descends() { # $1 a process: it is in the session of $first, or below it
    above=$1
    while [ "$above" -gt 1 ]; do
        { read -r stat <"/proc/$above/stat"; } 2>/dev/null || return 1
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        [ "$4" != "$first" ] && [ "$2" != "$first" ] || return 0
        above=$2
    done
    return 1
}

# -- a container: nobody but the run listens in there --

inside() { # $1 its first process, $2 its id, $3 not empty: its own 127.0.0.1 is reached
    # The engine may be of another machine, where other processes have these numbers.
    if ! grep -qsF "$2" "/proc/$1/cgroup" || [ ! -r "/proc/$1/net/tcp" ]; then
        echo unseen
        return
    fi
    listeners "/proc/$1/net" | while read -r local _; do
        case $local in
        0100007F | 7F000001 | 0000000000000000FFFF00000100007F | 00000000000000000000FFFF7F000001 | \
            00000000000000000000000001000000 | 00000000000000000000000000000001)
            [ -n "$3" ] || continue
            ;;
        esac
        echo at
        break
    done
}

kind=$1 port=$2
shift 2
"$kind" "$@"
