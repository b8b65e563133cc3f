#!/bin/sh
# Attempt 2 of the run brave-fox (r1).

# What the run's shells execute. The number of the item goes to `phase` first; nothing
# stands around an item, so that `set -e`, traps and `exec` work as in any script.
case "${1-}" in
setup | commands) __dstack_phase='/home/me/.dstack/runs/r1/2/phase' ;;
esac
case "${1-}" in
setup)
set --

echo 'setup 1             ' 1<>"$__dstack_phase" || :
eval 'pip install -r requirements.txt'
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
eval '# only a comment'
case $? in 0) ;; *) exit ;; esac

echo 'commands 3          ' 1<>"$__dstack_phase" || :
eval 'cat <<X
$HOME
X'
case $? in 0) ;; *) exit ;; esac

exit 0
;;
esac

job_name='r1-2'
job_folder='/home/me/.dstack/runs/r1/2'
job_phase='/home/me/.dstack/runs/r1/2/phase'
job_code='/home/me/.dstack/runs/r1/code/sub'
job_env='/home/me/.dstack/runs/r1/env'
job_envs='/home/me/.dstack/envs'
job_python='3.11'
job_interpreter='/usr/bin/python3.11'
job_uv='/opt/bin/uv'
job_setup='yes'
job_max_duration='3600'
job_guard=''
job_memory='1073741824'
job_cpu='1500'
job_cgroup_root='/sys/fs/cgroup'

job_environment() {
    export PATH='/usr/bin:/bin'
    export HOME='/home/me'
    export VIRTUAL_ENV="$job_env"
    export PATH="$job_env/bin:$PATH"
    export DSTACK_RUN_NAME='brave-fox'
    export DSTACK_RUN_ID='r1'
    export DSTACK_ATTEMPT='2'
    export DSTACK_WORKING_DIR='/home/me/.dstack/runs/r1/code/sub'
    export PYTHONUNBUFFERED='1'
    . '/home/me/.dstack/runs/r1/2/env'
    rm -f '/home/me/.dstack/runs/r1/2/env'
    export PATH='/bin/my:'"${PATH-}"
    export TOKEN='a'\''b '"${__dstack_v1}"
    export EMPTY=''
    command export UID='7' 2>/dev/null || :
    export TAKEN="${__dstack_v2}"
    unset __dstack_v1 __dstack_v2
}

job_cache() {
    "$1" '/home/me/.dstack/cache/k1/data' '/home/me/.dstack/runs/r1/code/sub/data'
    "$1" '/home/me''/.cache/x' ''
    "$1" '/mnt/big' ''
    :
}

# the rest
