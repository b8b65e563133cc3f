#!/bin/sh
# Attempt 2 of the run brave-fox (r1), in a container.

export PATH='/usr/bin:/bin'
export DOCKER_HOST='unix:///x'

job_name='r1-2'
job_folder='/home/me/.dstack/runs/r1/2'
job_phase='/home/me/.dstack/runs/r1/2/box/phase'
job_code='/home/me/.dstack/runs/r1/code/sub'
job_folder_code='/home/me/.dstack/runs/r1/code'
job_max_duration='3600'
job_guard=''
job_engine='docker'
job_box='dstack-r1-2'
job_image='registry.example.com/x:1'
job_images='/home/me/.dstack/images'
job_removal=''
job_pull='always'
job_home='/home/x'
job_facts='image_id={{.Id}}
image_digest={{with .RepoDigests}}'\''{{join (split (index . 0) "'\''") "'\''\\'\'''\''"}}'\''{{end}}
image_platform='\''{{join (split .Os "'\''") "'\''\\'\'''\''"}}'\''/'\''{{join (split .Architecture "'\''") "'\''\\'\'''\''"}}'\''
image_user='\''{{join (split .Config.User "'\''") "'\''\\'\'''\''"}}'\''
image_env() { "$@"{{range .Config.Env}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}; }
image_argv() { "$@"{{range .Config.Entrypoint}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}{{range .Config.Cmd}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}; }'
job_gpus='0 2'
job_gpus_least='2'
job_gpus_most='2'
job_gpu_folder=''

# The engine's own command.
job_client() {
    '/usr/bin/docker' "$@"
}

job_remove() {
    '/usr/bin/docker' rm --force --volumes "$@"
}

job_pull_image() {
    exec '/usr/bin/docker' "--config" "$job_folder/auth" "pull" "$job_image"
}

# The one container of this job; what stands behind the options follows.
job_container() {
    job_client run --name "$job_box" \
        --pull never --init --sig-proxy=false --log-driver none --no-healthcheck \
        --security-opt label=disable \
        --label dstack=0123abcd --label dstack.run=r1 \
        --env TINI_KILL_PROCESS_GROUP=1 \
        --cpus 1.5 \
        --memory 1073741824 --memory-swap 1073741824 \
        --shm-size 1048576 \
        --gpus "\"device=$gpus\"" \
        --publish 127.0.0.1::8000 \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/code,target=/workflow' \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/2/box,target=/.dstack' \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/2/log,target=/.dstack/log' \
        --mount 'type=bind,source=/home/me/.dstack/cache/k1/data,target=/workflow/sub/data' \
        --mount 'type=bind,source=/home/me/.dstack/cache/k1/~%2F.cache%2Fx,target='"$box_home"'/.cache/x' \
        --mount 'type=bind,source=/home/me/.dstack/cache/k1/%2Fmnt%2Fbig,target=/mnt/big' \
        --mount '"type=bind","source=/home/me/.dstack/cache/k1/a,b","target=/workflow/sub/a,b"' \
        --workdir '/workflow/sub' \
        "$@"
}

job_direct=
job_names=
job_run_direct() { :; }

job_cache() {
    "$1" '/home/me/.dstack/cache/k1/data' '/home/me/.dstack/runs/r1/code/sub/data'
    "$1" '/home/me/.dstack/cache/k1/~%2F.cache%2Fx' ''
    "$1" '/home/me/.dstack/cache/k1/%2Fmnt%2Fbig' ''
    "$1" '/home/me/.dstack/cache/k1/a,b' '/home/me/.dstack/runs/r1/code/sub/a,b'
    :
}

# the rest
