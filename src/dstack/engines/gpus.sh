# ---- GPUs: a job has those that no other job of this dstack folder has, whoever started it ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh
#
# GPUS/NUMBER is a link to "KEEPER JOB": whose the GPU is for as long as that keeper lives, or
# anything that bears the job's mark. GPUS/lock is a link to the keeper that chooses now.

claim_gpus() { # -> $gpus: "0,1", $job_gpus_least to $job_gpus_most of those in $job_gpus
    keeper_name=$(readlink "$job_folder/pid")
    mkdir -p "$job_gpu_folder" || fail "$job_gpu_folder cannot be made"
    lock_gpus
    gpus='' count=0 there=0
    for gpu in $job_gpus; do
        there=$((there + 1))
        [ "$count" -lt "$job_gpus_most" ] || continue
        gpu_is_free "$gpu" || continue
        ln -s "$keeper_name $job_name" "$job_gpu_folder/$gpu" || continue
        gpus=${gpus:+$gpus,}$gpu count=$((count + 1))
    done
    rm -f "$job_gpu_folder/lock"
    [ "$count" -lt "$job_gpus_least" ] || return 0
    release_gpus
    : >"$job_folder/no_capacity"
    # No output of the run: it may wait so for hours, one attempt after the other.
    echo "the run asks for $job_gpus_least of $there GPUs, and $count are free now" >"$job_folder/detail"
    exit 125
}

lock_gpus() {
    until ln -s "$keeper_name" "$job_gpu_folder/lock" 2>/dev/null; do
        holder=$(readlink "$job_gpu_folder/lock") || continue
        # Of two that take it away from a dead one, one has something to move.
        is_alive "$holder" || mv "$job_gpu_folder/lock" "$job_gpu_folder/lock.$$" 2>/dev/null
        rm -f "$job_gpu_folder/lock.$$"
        pause
    done
}

gpu_is_free() { # $1 its number; what a dead keeper left is taken away
    holder=$(readlink "$job_gpu_folder/$1") || return 0
    [ "${holder##* }" != "$job_name" ] || { rm -f "$job_gpu_folder/$1" && return; }
    ! is_alive "${holder%% *}" || return 1
    [ -z "$(find_marked "${holder##* }")" ] || return 1
    rm -f "$job_gpu_folder/$1"
}

release_gpus() {
    for gpu in $job_gpus; do
        holder=$(readlink "$job_gpu_folder/$gpu") || continue
        [ "${holder##* }" != "$job_name" ] || rm -f "$job_gpu_folder/$gpu"
    done
}

gpu_devices() { # as Podman wants them
    rest=$gpus,
    while [ -n "$rest" ]; do
        printf ' --device nvidia.com/gpu=%s' "${rest%%,*}"
        rest=${rest#*,}
    done
}
