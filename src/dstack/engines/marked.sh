# ---- which processes bear a mark ----
# shellcheck shell=sh disable=SC3013 # dash and busybox have -ef

find_marked() { # $1 a mark, then files of /proc -> those that hold it
    look_for=$1
    shift
    find_grep
    "$grep" "-ls${zero}F" "$look_for" "$@"
}

# busybox's grep looks no further than to the first zero byte, unless it knows -z. A shell of
# busybox's may prefer its own grep to another one, which a path tells from it without a process.
find_grep() { # -> $grep, $zero
    for grep in /usr/bin/grep /bin/grep; do
        [ -x "$grep" ] || continue
        if [ "$grep" -ef /bin/busybox ] || [ "$grep" -ef /usr/bin/busybox ]; then break; fi
        zero=
        return
    done
    grep=grep zero=z
    echo x | grep -qzF x 2>/dev/null || zero=
}
