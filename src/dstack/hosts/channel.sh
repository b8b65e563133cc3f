# shellcheck shell=sh
# Answers the requests of one dstack process on a host. Each request is shell text that arrives on
# stdin and calls one of these functions; each answer ends with a line that `finish` prints. $d_n is
# a word drawn by lot for this channel: where it stands in the output, we printed it. All variables
# begin with d_, so that no variable of the login session is touched.
# Needs a POSIX shell and its usual companions; busybox's are enough.

: "${d_n:?}"
d_umask=$(umask)
umask 077
d_bad='' d_watchers='' d_setsid='' d_launched=0

mark() { printf '%s %s\n' "$d_n" "$*"; }
finish() { mark end "$1"; }

# report CODE TEXT: the answer of what is only done, and says nothing unless it fails.
report() {
    if [ "$1" != 0 ]; then
        # shellcheck disable=SC2034 # requests look at it
        d_bad=1
        mark error "$2"
    fi
    finish "$1"
}

# find_uv: where it is.
find_uv() {
    for d_path in "$(command -v uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$d_root/bin/uv"; do
        case $d_path in
            /*) [ ! -x "$d_path" ] || { printf '%s' "$d_path"; return; } ;;
        esac
    done
}

# hello ROOT [ALL]: who and where we are. ROOT is absolute, or below the home folder. With ALL also
# what stays as it is, and is asked once.
hello() {
    # shellcheck disable=SC2088 # as it was written in config.yml
    case $1 in
        '~') d_root=$HOME ;;
        '~/'*) d_root=$HOME/${1#??} ;;
        /*) d_root=$1 ;;
        *) d_root=$HOME/$1 ;;
    esac
    d_ended=$d_root/ended
    if [ -e "$d_root" ]; then
        if [ ! -d "$d_root" ]; then
            mark error "$d_root is not a folder"
        elif [ ! -O "$d_root" ]; then
            mark error "$d_root belongs to another user"
        else
            chmod 700 "$d_root"
        fi
    else
        # Also where a home is not mounted.
        d_above=$d_root
        until [ -e "${d_above:=/}" ]; do d_above=${d_above%/*}; done
        [ -w "$d_above" ] || mark error "$d_root cannot be made: $d_above cannot be written to"
    fi
    mark root
    printf %s "$d_root"
    mark home
    printf %s "$HOME"
    mark uid
    id -u
    mark system
    uname -sm
    mark boot
    { IFS= read -r d_line </proc/sys/kernel/random/boot_id && printf %s "$d_line"; } 2>/dev/null
    mark gzip
    command -v gzip
    mark tar
    command -v tar
    mark uv
    find_uv
    if [ -n "${2-}" ]; then
        mark aes
        grep -m 1 -ow aes /proc/cpuinfo 2>/dev/null
    fi
    mark env
    env
    finish 0
}

# gone PATH: whether nothing is there; what is only hidden from us does not count as gone.
gone() {
    d_above=$1
    while d_above=${d_above%/*} && [ -n "$d_above" ]; do
        if [ -e "$d_above" ]; then
            [ ! -d "$d_above" ] || [ -x "$d_above" ]
            return
        fi
    done
}

# look PATH...: what each is and holds, then the times of those that are there.
look() {
    d_left=$#
    while [ "$d_left" -gt 0 ]; do
        d_path=$1
        shift
        d_left=$((d_left - 1))
        if [ -L "$d_path" ]; then
            mark link
            readlink "$d_path"
        elif [ -d "$d_path" ]; then
            mark folder
        elif [ -r "$d_path" ]; then
            mark file
            # Files of /proc vanish with their process, also between two lines here.
            head -c 65536 "$d_path" 2>/dev/null ||
                { [ -e "$d_path" ] && mark error "cannot be read"; }
        elif [ -e "$d_path" ] || ! gone "$d_path"; then
            mark error "Permission denied"
            continue
        else
            mark missing
            continue
        fi
        set -- "$@" "$d_path"
    done
    if [ $# -gt 0 ]; then
        mark times
        stat -c '%.9Y %n' "$@" 2>/dev/null
    fi
    finish 0
}

# living PID...: their lines of /proc, those that have one.
living() {
    for d_pid; do
        set -- "$@" "/proc/$d_pid/stat"
        shift
    done
    mark stats
    cat "$@" 2>/dev/null
    finish 0
}

# keepers LINK...: what each names, then the lines of /proc of those processes.
keepers() {
    mark keepers
    d_left=$#
    while [ "$d_left" -gt 0 ]; do
        d_path=$1
        shift
        d_left=$((d_left - 1))
        d_link=$(readlink "$d_path" 2>/dev/null)
        printf '%s\n' "$d_link"
        case ${d_link%%:*} in
            '' | *[!0-9]*) ;;
            *) set -- "$@" "/proc/${d_link%%:*}/stat" ;;
        esac
    done
    mark stats
    [ $# = 0 ] || cat "$@" 2>/dev/null
}

# is_same PID STARTED: whether that very process lives.
is_same() {
    if [ -z "$2" ]; then
        kill -0 "$1" 2>/dev/null
        return
    fi
    { IFS= read -r d_line <"/proc/$1/stat"; } 2>/dev/null || return 1
    d_started=$2
    # shellcheck disable=SC2086 # numbers, and a letter
    set -- ${d_line##*) }
    case $1 in Z | X) return 1 ;; esac
    [ "${20}" = "$d_started" ]
}

# strike PID STARTED NUMBER: signal it.
strike() {
    is_same "$1" "$2" && kill "-$3" "$1" 2>/dev/null
    finish $?
}

# names FOLDER: what lies in it, each name ended by a zero byte.
names() {
    if { [ -d "$1" ] && [ ! -r "$1" ]; } || { [ ! -e "$1" ] && ! gone "$1"; }; then
        mark error "Permission denied"
        finish 1
        return
    fi
    mark names
    for d_entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        if [ -e "$d_entry" ] || [ -L "$d_entry" ]; then
            printf '%s\0' "${d_entry##*/}"
        fi
    done
    finish 0
}

# erase PATH: delete it and all that is in it, also where folders are locked.
erase() {
    rm -rf "$1" 2>/dev/null && return
    chmod -R u+rwx "$1" 2>/dev/null
    rm -rf "$1"
}

# place FOLDER NAME... -- NAME...: move what was written aside to its place; of the names behind the
# double hyphen what is there already stays as it is.
place() {
    d_folder=$1 d_aside=$1/.new$$
    shift
    while [ "$1" != -- ]; do
        set -- "$@" "$d_aside/$1"
        shift
    done
    shift
    d_left=$#
    for d_name; do
        case $d_name in
            */*) set -- "$@" "$d_name" ;;
            *)
                # A link never replaces: of two that write at once, the first one stays.
                ln "$d_aside/$d_name" "$d_folder/$d_name" 2>/dev/null ||
                    [ -e "$d_folder/$d_name" ] ||
                    ln "$d_aside/$d_name" "$d_folder/$d_name" || return
                ;;
        esac
    done
    shift "$d_left"
    [ $# = 0 ] || mv -f "$@" "$d_folder/" || return
    rm -rf "$d_aside"
}

# Starts a job and keeps a FIFO open for as long as that lives: whoever reads the FIFO is told by the
# kernel when it ends, however that comes. It waits in the foreground, for `&` would make the job
# deaf for SIGINT and SIGQUIT.
# shellcheck disable=SC2016 # another shell's
d_holder='
# A shell says of a killed child what nobody asked for.
exec 9<>"$1" 8>&2 2>/dev/null
(exec 2>&8 8>&- 9>&- /bin/sh -c "
    echo \$\$ >\"\$1.id\"
    mv -f \"\$1\" \"\$2/\$\$\"
    echo \$\$ >\"\$1.pid\"
    umask \"\$3\"
    shift 3
    exec \"\$@\"
" sh "$@")
{ read -r pid <"$1.id"; } 2>/dev/null && rm -f "$1.id" "$2/$pid"
'

# launch OUTPUT ARGV...: start it in a session of its own; its pid. Runs in a subshell that has the
# job's environment already.
launch() {
    exec 4>&1 </dev/null >>"$1" 2>&1
    shift
    d_fifo=$d_ended/.$$.$d_launched
    mkdir -p "$d_ended"
    rm -f "$d_fifo" "$d_fifo.pid"
    mkfifo "$d_fifo" "$d_fifo.pid"
    [ "$d_setsid" = no ] || set -- setsid "$@"
    set -- sh "$d_fifo" "$d_ended" "$d_umask" "$@"
    if [ "$d_setsid" = fork ]; then
        setsid -f /bin/sh -c "$d_holder" "$@" 4>&-
    else
        /bin/sh -c "$d_holder" "$@" 4>&- &
    fi
    read -r d_pid <"$d_fifo.pid"
    rm -f "$d_fifo.pid"
    printf '%s' "$d_pid" >&4
}

prepare_launch() { : >>"$1"; }

# find_setsid: what `launch` needs to know, found out once.
find_setsid() {
    d_launched=$((d_launched + 1))
    if [ -z "$d_setsid" ]; then
        if setsid -f true 2>/dev/null; then
            d_setsid=fork
        elif command -v setsid >/dev/null; then
            d_setsid=yes
        else
            d_setsid=no
        fi
    fi
}

# beat: say now and then that we are here. When nobody is there any more, and nobody told us, this
# is what makes `sshd` find out, and our input end: else we would stay for hours.
beat() {
    (
        trap 'kill "$d_pid" 2>/dev/null; exit' TERM
        # A signal can come at a bad moment: then this ends with the next beat.
        while kill -0 $$; do
            sleep "$1" >/dev/null &
            d_pid=$!
            wait "$d_pid"
            mark beat
        done
    ) 2>/dev/null &
    d_watchers="$d_watchers $!"
}

# watch PID STARTED: say `ended PID` when it does. There is no other answer.
watch() {
    (
        if is_same "$1" "$2" && [ -p "$d_ended/$1" ]; then
            read -r d_line <"$d_ended/$1"
        fi
        # Who keeps the FIFO open may itself have been killed.
        while is_same "$1" "$2"; do sleep 1; done
        mark ended "$1"
    ) 2>/dev/null &
    d_watchers="$d_watchers $!"
}

# unwatch: end what waits in the background. The pids may be others' by now: they must be children.
unwatch() {
    for d_pid in $d_watchers; do
        { IFS= read -r d_line <"/proc/$d_pid/stat"; } 2>/dev/null || continue
        d_line=${d_line##*) ?}
        d_line=${d_line# }
        [ "${d_line%% *}" != $$ ] || kill "$d_pid" 2>/dev/null
    done
    d_watchers=
}
trap unwatch EXIT
# Who answers when nobody listens any more ends in order, too.
trap 'exit 1' HUP PIPE
