#!/bin/sh
# Attempt 2 of the run brave-fox (r1), in a container.



job_name='r1-2'
job_folder='/home/me/.dstack/runs/r1/2'
job_phase='/home/me/.dstack/runs/r1/2/box/phase'
job_code='/home/me/.dstack/runs/r1/code'
job_folder_code='/home/me/.dstack/runs/r1/code'
job_max_duration=''
job_guard=''
job_engine='podman'
job_box='dstack-r1-2'
job_image='busybox'
job_images='/home/me/.dstack/images'
job_removal='yes'
job_pull='missing'
job_home=''
job_facts='image_id={{.Id}}
image_digest={{with .RepoDigests}}'\''{{join (split (index . 0) "'\''") "'\''\\'\'''\''"}}'\''{{end}}
image_platform='\''{{join (split .Os "'\''") "'\''\\'\'''\''"}}'\''/'\''{{join (split .Architecture "'\''") "'\''\\'\'''\''"}}'\''
image_user='\''{{join (split .Config.User "'\''") "'\''\\'\'''\''"}}'\''
image_env() { "$@"{{range .Config.Env}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}; }
image_argv() { "$@"{{range .Config.Entrypoint}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}{{range .Config.Cmd}} '\''{{join (split . "'\''") "'\''\\'\'''\''"}}'\''{{end}}; }'
job_gpus='1'
job_gpus_least='1'
job_gpus_most='1'
job_gpu_folder=''

# The engine's own command.
job_client() {
    '/usr/bin/podman' "$@"
}

job_remove() {
    '/usr/bin/podman' rm --force --volumes --time 0 "$@"
}

job_pull_image() {
    exec '/usr/bin/podman' pull "$job_image"
}

# The one container of this job; what stands behind the options follows.
job_container() {
    job_client run --name "$job_box" \
        --pull never --init --sig-proxy=false --log-driver none --no-healthcheck \
        --security-opt label=disable \
        --label dstack=0123abcd --label dstack.run=r1 \
        $(gpu_devices) \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/code,target=/workflow' \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/2/box,target=/.dstack' \
        --mount 'type=bind,source=/home/me/.dstack/runs/r1/2/log,target=/.dstack/log' \
        --workdir '/workflow' \
        "$@"
}

job_direct=yes
job_names='DSTACK_RUN_NAME DSTACK_RUN_ID DSTACK_ATTEMPT DSTACK_WORKING_DIR PYTHONUNBUFFERED'
job_environment() {
    export DSTACK_RUN_NAME='brave-fox'
    export DSTACK_RUN_ID='r1'
    export DSTACK_ATTEMPT='2'
    export DSTACK_WORKING_DIR='/workflow'
    export PYTHONUNBUFFERED='1'
}
job_run_direct() {
    job_container --env-file "$job_folder/box/env.list" "$job_image"
}

job_cache() {
    :
}

# the rest
