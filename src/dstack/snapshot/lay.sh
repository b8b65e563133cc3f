# One project's code on this machine, as another machine sends it.
# shellcheck shell=sh
#
#   sh -c ... sh FOLDER look TARGET      says what is there: `laid`, `tree ID`, `have PART` each
#   sh -c ... sh FOLDER lay TREE TARGET  makes `files` that tree of what arrived, and copies it
#
# FOLDER/files, tree    the last tree that was laid out, and its id, which is not there meanwhile
# FOLDER/spare, spare.tree      a copy of it that the next run takes
# FOLDER/staging/       what arrived of the next one:
#     PART/files, piece, done     a few of its files, or a piece of a large one; `done` when whole
#     gone, order, folders        what goes first, which parts follow, which folders are empty
#     assemble.sh                 how large files are made of their pieces
#     fresh                       it does not follow on what is there
#     ready                       all of it is there, and it is this tree
# FOLDER/lock           the process that is at it, and with what
#
# Needs cp, rm, mv, ln, readlink, xargs, du and dd.

PATIENCE=200   # turns of 0.05 s that a spare may need still, when it is waited for
LARGEST=250000 # kilobytes; a larger spare would take more disk than it saves time

lock() { # $1 what for; one at a time; false when it is not needed
    turns=0
    until ln -s "$me $1" lock 2>/dev/null; do
        other=$(readlink lock) || continue
        if ! is_at_it "${other%% *}"; then
            # One that was killed holds it no longer; one that just ended has let go of it, and then
            # it may be another's by now.
            [ "$(readlink lock)" != "$other" ] || rm -f lock
        elif [ "${other#* }" = spare ]; then
            # It reads what it copies, as `look` does.
            [ "$1" != look ] || [ -e staging/ready ] || return 1
            # Who needs a copy has it sooner when this one is made to its end than by one anew.
            [ "$1" = spare ] || { [ "$turns" -lt "$PATIENCE" ] && [ ! -e staging/fresh ]; } ||
                kill "${other%% *}" 2>/dev/null
        fi
        turns=$((turns + 1))
        sleep 0.05 2>/dev/null || sleep 1
    done
    trap 'rm -f lock' EXIT
}

is_at_it() { # $1 pid: whether it is one of us, and not another that got its number
    kill -0 "$1" 2>/dev/null || return 1
    [ ! -d /proc/self ] || [ "$(readlink "/proc/$1/cwd")" = "$(pwd -P)" ]
}

read_tree() { # $1 file -> $tree; false when there is none
    tree=
    read -r tree <"$1"
} 2>/dev/null

link() { # $1 folder's content into $2, as links where they can be
    cp -al "$1/." "$2" 2>/dev/null || copy "$1" "$2"
}

copy() { # $1 folder's content into $2
    cp -a --reflink=auto "$1/." "$2" 2>/dev/null || cp -Rp "$1/." "$2"
}

settle() { # make `files` the tree that all is there of; going on where one was killed
    if [ ! -e staging/ready ]; then
        # One that was killed has left these of a tree that is laid: links to what is in `files`.
        [ ! -e staging/assembled ] || rm -rf staging/large staging/assembled || exit 1
        return
    fi
    if [ -s staging/assemble.sh ] && [ ! -e staging/assembled ]; then
        # shellcheck disable=SC1091 # it came with the parts
        (. ./staging/assemble.sh) || exit 1
        : >staging/assembled || exit 1
    fi
    if [ -e staging/fresh ]; then
        rm -f tree spare.tree
        rm -rf files spare staging/fresh
    fi
    read_tree staging/ready
    new=$tree
    # The spare first: it is a copy, while `files` may share the parts, which are deleted then.
    if read_tree tree && old=$tree && read_tree spare.tree && [ "$tree" = "$old" ]; then
        rm -f spare.tree
        if change spare copy; then echo "$new" >spare.tree; else rm -rf spare; fi
    fi
    rm -f tree
    change files link || exit 1
    mv staging/ready tree || exit 1
    # Deleted while nobody waits; of what is half deleted nothing may pass for a part that is there.
    mv staging "over-$$"
}

change() { # $1 folder, $2 how: make it the new tree
    [ -d "$1" ] || mkdir "$1" || return
    if [ -s staging/gone ]; then
        (cd "$1" && xargs -0 rm -rf -- <../staging/gone) || return
    fi
    while read -r part; do
        "$2" "staging/$part/files" "$1" || return
    done <staging/order
    if [ -s staging/folders ]; then
        (cd "$1" && xargs -0 mkdir -p -- <../staging/folders) || return
    fi
}

look() { # $1 target, empty where it cannot be there
    [ ! -d "$1" ] || echo laid
    read_tree tree && echo "tree $tree"
    for done in staging/*/done; do
        [ ! -e "$done" ] || { done=${done%/done} && echo "have ${done##*/}"; }
    done
}

lay() { # $1 tree, $2 target
    read_tree tree
    [ "$tree" = "$1" ] || { echo "the code is not there" >&2 && exit 3; }
    [ ! -d "$2" ] || return 0
    rm -rf "$2".tmp-*
    mkdir -p "${2%/*}" || exit 1
    if read_tree spare.tree && [ "$tree" = "$1" ] && rm -f spare.tree && mv spare "$2"; then
        :
    else
        { mkdir "$2.tmp-$$" && copy files "$2.tmp-$$"; } || { rm -rf "$2.tmp-$$" && exit 1; }
        mv "$2.tmp-$$" "$2" || exit 1
    fi
    # Redirected for good, not for one command: else a copy of our output would stay open, and
    # whoever waits for its end would wait for the spare.
    (
        exec </dev/null >/dev/null 2>&1
        me=$(exec sh -c 'echo "$PPID"') # here $$ is another's
        lock spare && leave_spare && tidy
    ) &
}

leave_spare() { # while nobody waits; with the lock, so that nobody changes what is copied
    trap 'kill "$!"; wait "$!"; exit' TERM
    ! read_tree spare.tree && read_tree tree || return 0
    rm -rf spare
    size=$(du -sk files)
    [ "${size%%[!0-9]*}" -le "$LARGEST" ] && mkdir spare || return 0
    cp -a --reflink=auto files/. spare 2>/dev/null &
    wait "$!" || {
        cp -Rp files/. spare &
        wait "$!" || return 0
    }
    echo "$tree" >spare.tree
}

tidy() { # delete what was made use of; for that no lock is needed
    trap - EXIT TERM
    rm -f lock
    rm -rf over-*
}

# What is dstack's own is nobody else's; what is in it is as it was in the folder.
umask 077
[ -d "$1" ] || mkdir -p "$1" || exit 1
umask 022
cd "$1" || exit 1
shift
me=$$
! lock "$1" || settle
"$@"
