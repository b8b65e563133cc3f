# How a large file is made of an old version, which is stdin, and of what was sent.
# shellcheck shell=sh
#
# It goes through the old one once, forward. dd is what reads as many bytes as it was told, and not
# some more, in every set of tools; it skips without reading. The numbers are divided already: there
# are shells that count to 2^31 only.

keep() { # $1 megabytes, $2 bytes: copy them
    [ "$1" = 0 ] || read_on "bs=1048576" "count=$1" || return
    [ "$2" = 0 ] || read_on "bs=$2" "count=1"
}

skip() { # $1 megabytes, $2 bytes: leave them out
    [ "$1" = 0 ] || read_on "bs=1048576" "skip=$1" "count=0" || return
    [ "$2" = 0 ] || read_on "bs=$2" "skip=1" "count=0"
}

read_on() { # dd's arguments; what it says is of interest only when it failed
    { said=$(dd "$@" 2>&1 >&3); } 3>&1 || { echo "$said" >&2 && return 1; }
}

