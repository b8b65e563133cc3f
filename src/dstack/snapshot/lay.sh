# One project's code on this machine, as another machine sends it.
# shellcheck shell=sh
#
#   sh -c ... sh FOLDER look TARGET      says what is there: `laid`, `tree ID`, `have PART` each
#   sh -c ... sh FOLDER lay TREE TARGET  makes `files` that tree of what arrived, and copies it
#
# FOLDER/files, tree    the last tree that was laid out, and its id, which is not there meanwhile
# FOLDER/staging/       what arrived of the next one:
#     PART/files, piece, done     a few of its files, or a piece of a large one; `done` when whole
#     gone, order, folders        what goes first, which parts follow, which folders are empty
#     assemble.sh                 how large files are made of their pieces
#     ready                       all of it is there, and it is this tree
# FOLDER/lock           the process that is at it
#
# Needs cp, rm, mv, ln, readlink, xargs, head and tail.

lock() { # one at a time; one that was killed holds it no longer
    until ln -s "$$" lock 2>/dev/null; do
        other=$(readlink lock) || continue
        is_at_it "$other" || rm -f lock
        sleep 0.05 2>/dev/null || sleep 1
    done
    trap 'rm -f lock' EXIT
}

is_at_it() { # $1 pid: whether it is one of us, and not another that got its number
    kill -0 "$1" 2>/dev/null || return 1
    [ ! -d /proc/self ] || [ "$(readlink "/proc/$1/cwd")" = "$(pwd -P)" ]
}

copy() { # $1 folder's content into $2: links where they can be, since the parts are deleted
    cp -al "$1/." "$2" 2>/dev/null || cp -a "$1/." "$2" 2>/dev/null || cp -Rp "$1/." "$2"
}

settle() { # make `files` the tree that all is there of; going on where one was killed
    [ -e staging/ready ] || return 0
    if [ -s staging/assemble.sh ] && [ ! -e staging/assembled ]; then
        # shellcheck disable=SC1091 # it came with the parts
        (set -e && . ./staging/assemble.sh) || exit 1
        : >staging/assembled || exit 1
    fi
    rm -f tree
    [ ! -e staging/fresh ] || rm -rf files staging/fresh
    [ -d files ] || mkdir files || exit 1
    if [ -s staging/gone ]; then
        (cd files && xargs -0 rm -rf -- <../staging/gone) || exit 1
    fi
    while read -r part; do
        copy "staging/$part/files" files || exit 1
    done <staging/order
    if [ -s staging/folders ]; then
        (cd files && xargs -0 mkdir -p -- <../staging/folders) || exit 1
    fi
    mv staging/ready tree || exit 1
    # Renamed first: of what is half deleted nothing may pass for a part that is there.
    mv staging "over-$$" && rm -rf over-*
}

# shellcheck disable=SC2094 # it is only read
read_tree() { # -> $tree; false when there is none
    tree=
    read -r tree <tree
} 2>/dev/null

look() { # $1 target
    [ ! -d "$1" ] || echo laid # the empty name is nowhere
    read_tree && echo "tree $tree"
    for done in staging/*/done; do
        [ ! -e "$done" ] || { done=${done%/done} && echo "have ${done##*/}"; }
    done
}

lay() { # $1 tree, $2 target
    read_tree
    [ "$tree" = "$1" ] || { echo "the code is not there" >&2 && exit 3; }
    [ ! -d "$2" ] || return 0
    rm -rf "$2".tmp-*
    mkdir -p "${2%/*}" || exit 1
    cp -a --reflink=auto files "$2.tmp-$$" 2>/dev/null || {
        rm -rf "$2.tmp-$$"
        cp -Rp files "$2.tmp-$$" || { rm -rf "$2.tmp-$$" && exit 1; }
    }
    mv "$2.tmp-$$" "$2"
}

# What is dstack's own is nobody else's; what is in it is as it was in the folder.
umask 077
[ -d "$1" ] || mkdir -p "$1" || exit 1
umask 022
cd "$1" || exit 1
shift
lock
settle
"$@"
