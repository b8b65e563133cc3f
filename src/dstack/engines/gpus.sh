# ---- GPUs: a job has those that no other job of this dstack folder has, whoever started it ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above; what is called, in job.sh
#
# GPUS/NUMBER is a link to "KEEPER JOB": whose the GPU is for as long as that keeper lives, or
# anything that bears the job's mark. GPUS/lock is a link to the keeper that chooses now.

claim_gpus() { # -> $gpus: "0,1", $job_gpus_least to $job_gpus_most of those in $job_gpus
    keeper_name=$(readlink "$job_folder/pid")
    mkdir -p "$job_gpu_folder" || fail "$job_gpu_folder cannot be made"
    # Before anybody has to wait for us.
    rank_gpus
    lock_gpus
    gpus='' count=0 there=0
    for gpu in $ranked; do
        there=$((there + 1))
        [ "$count" -lt "$job_gpus_most" ] || continue
        gpu_is_free "$gpu" || continue
        ln -s "$keeper_name $job_name" "$job_gpu_folder/$gpu" || continue
        gpus="$gpus$gpu
" count=$((count + 1))
    done
    rm -f "$job_gpu_folder/lock"
    if [ "$count" -lt "$job_gpus_least" ]; then
        release_gpus
        : >"$job_folder/no_capacity"
        # No output of the run: it may wait so for hours, one attempt after the other.
        echo "the run asks for $job_gpus_least of $there GPUs, and $count are free now" \
            >"$job_folder/detail"
        exit 125
    fi
    [ -z "$gpus" ] || gpus=$(printf %s "$gpus" | sort -n)
    say_shared
    gpus=$(echo "$gpus" | tr '\n' ,) gpus=${gpus%,}
}

# -- those on which nobody else computes come first: other users' programs have no link here --

rank_gpus() { # -> $ranked: $job_gpus in the order in which they are taken, $ranks: "RANK MIB GPU" lines
    ranked=$job_gpus ranks=''
    command -v nvidia-smi >/dev/null || return 0
    # The memory in use is told in a container, too; of processes nvidia-smi knows more, where it may.
    ask_nvidia "$job_folder/gpus" "$nvidia_gpus"
    first=$nvidia_pid
    ask_nvidia "$job_folder/gpu_processes" "$nvidia_processes"
    if ! await_nvidia "$nvidia_pid"; then
        : >"$job_folder/gpu_processes"
        note_hung "$nvidia_pid"
    fi
    if ! await_nvidia "$first"; then
        note_hung "$first"
        return 0
    fi
    grep -q '^[0-9]' "$job_folder/gpus" || return 0
    ranks=$(for gpu in $job_gpus; do rank_gpu "$gpu"; done | sort -k1,1n -k2,2n -k3,3n)
    ranked=$(echo "$ranks" | while read -r _ _ gpu; do echo "$gpu"; done)
}

note_hung() { # $1 a process that was killed, and may not end before its driver lets it (find_hung)
    started "$1"
    [ -z "$start" ] || echo "$1:$start:${keeper_name##*:}" >>"$job_folder/hung"
}

rank_gpu() { # $1 its number
    row=$(gpu_row "$1")
    case $row in
    '' | *'is lost]'* | *'requires reset]'*)
        echo "3 0 $1"
        return
        ;;
    esac
    row=${row%, *} mib=${row##*, } row=${row%, *} total=${row##*, } row=${row%, *}
    # What is no number stands in brackets: that is how a driver says that it does not tell.
    case $mib in '' | *[!0-9]*) mib=0 ;; esac
    case $total in '' | *[!0-9]*) total=0 ;; esac
    if grep -q "^${row##*, }, [0-9]" "$job_folder/gpu_processes"; then
        echo "2 $mib $1"
    # Drivers count up to a gigabyte of a large GPU for themselves, and 256 MB of a small one.
    elif [ "$mib" -gt 256 ] && [ $((mib * 20)) -ge "$total" ]; then
        echo "1 $mib $1"
    else
        echo "0 0 $1"
    fi
}

gpu_row() { # $1 its number: "NAME, UUID, TOTAL, USED, PSTATE", sizes in MiB
    sed -n "s/^$1, //p" "$job_folder/gpus" | tr -d '\r'
}

say_shared() { # nobody else can be asked to let go of a GPU: so the run has it all the same
    shared=$(
        echo "$ranks" | while read -r rank mib gpu; do
            case "
$gpus
" in *"
$gpu
"*) ;; *) continue ;; esac
            case $rank:$mib in
            [12]:0) printf ', %s' "$gpu" ;;
            [12]:*) printf ', %s (%s MB used)' "$gpu" "$mib" ;;
            esac
        done
    )
    [ -z "$shared" ] || echo "the run shares these GPUs with others: ${shared#, }" >"$job_folder/note"
}

cuda_devices() { # -> $devices: as CUDA finds them
    devices=$gpus
    # Its numbers are nvidia-smi's as long as all GPUs work: a lost one has none there. Programs
    # that take them for numbers (DeepSpeed, vLLM) are why they are numbers wherever that is right.
    grep -qs -e '^Unable to' -e 'is lost]' -e 'requires reset]' "$job_folder/gpus" || return 0
    devices=$(
        rest=$gpus,
        while [ -n "$rest" ]; do
            gpu_row "${rest%%,*}" | sed -n 's/.*\(GPU-[-0-9a-f]*\),.*/\1/p'
            rest=${rest#*,}
        done | tr '\n' ,
    )
    devices=${devices%,}
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
    [ -z "$(marked "${holder##* }")" ] || return 1
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
