#!/bin/sh
# Attempt 2 of the run brave-fox (r1).

# What the run's shells execute. The number of the item goes to `phase` first; nothing
# stands around an item, so that `set -e`, traps and `exec` work as in any script.
case "${1-}" in
setup | commands) __dstack_phase='/home/me/.dstack/runs/r1/2/phase' ;;
esac
case "${1-}" in
commands)
set --

echo 'commands 1          ' 1<>"$__dstack_phase" || :
eval 'true'
case $? in 0) ;; *) exit ;; esac

exit 0
;;
esac

job_name='r1-2'
job_folder='/home/me/.dstack/runs/r1/2'
job_phase='/home/me/.dstack/runs/r1/2/phase'
job_code='/home/me/.dstack/runs/r1/code'
job_env='/home/me/.dstack/runs/r1/env'
job_envs='/home/me/.dstack/envs'
job_python=''
job_interpreter=''
job_uv='/opt/bin/uv'
job_setup=''
job_max_duration=''
job_guard=''
job_memory=''
job_cpu=''
job_cgroup_root='/sys/fs/cgroup'

job_environment() {
    export DSTACK_RUN_NAME='brave-fox'
    export DSTACK_RUN_ID='r1'
    export DSTACK_ATTEMPT='2'
    export DSTACK_WORKING_DIR='/home/me/.dstack/runs/r1/code'
    export PYTHONUNBUFFERED='1'
}

job_cache() {
    :
}

# the rest
