#!/bin/sh
# Attempt 2 of the run brave-fox (r1): what the container does.

# What the run's shells execute. The number of the item goes to `phase` first; nothing
# stands around an item, so that `set -e`, traps and `exec` work as in any script.
case "${1-}" in
setup | commands) __dstack_phase='/.dstack/phase' ;;
esac
case "${1-}" in
setup)
set --

echo 'setup 1             ' 1<>"$__dstack_phase" || :
eval 'pip install x'
case $? in 0) ;; *) exit ;; esac

exit 0
;;
commands)
set --

echo 'commands 1          ' 1<>"$__dstack_phase" || :
eval 'echo '\''it'\'''\''s'\''
'
case $? in 0) ;; *) exit ;; esac

echo 'commands 2          ' 1<>"$__dstack_phase" || :
eval 'exit 3'
case $? in 0) ;; *) exit ;; esac

exit 0
;;
esac

job_box_code='/workflow/sub'
job_setup='yes'

job_environment() {
    export HOME='/home/x'
    export DSTACK_RUN_NAME='brave-fox'
    export DSTACK_RUN_ID='r1'
    export DSTACK_ATTEMPT='2'
    export DSTACK_WORKING_DIR='/workflow/sub'
    export PYTHONUNBUFFERED='1'
    . '/.dstack/env'
    rm -f '/.dstack/env'
    export PATH='/bin/my:'"${PATH-}"
    export TOKEN='a'\''b '"${__dstack_v1}"
    unset __dstack_v1
}

job_commands() {
    exec /bin/bash -i -c 'set -- commands; . /.dstack/box.sh'
}

# the rest
