#!/bin/sh
# Attempt 2 of the run brave-fox (r1): what the container does.

# What the run's shells execute. The number of the item goes to `phase` first; nothing
# stands around an item, so that `set -e`, traps and `exec` work as in any script.
case "${1-}" in
setup | commands) __dstack_phase='/.dstack/phase' ;;
esac
case "${1-}" in
esac

job_box_code='/workflow'
job_setup=''

job_environment() {
    export DSTACK_RUN_NAME='brave-fox'
    export DSTACK_RUN_ID='r1'
    export DSTACK_ATTEMPT='2'
    export DSTACK_WORKING_DIR='/workflow'
    export PYTHONUNBUFFERED='1'
}

job_commands() {
    echo 'commands 1          ' 1<>/.dstack/phase
    own_command
}

# the rest
