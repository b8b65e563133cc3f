# ---- what nvidia-smi says; where a driver is in trouble it may never answer ----
# shellcheck shell=sh disable=SC2034 # whoever calls it uses what is assigned here
#
# `--help-query-gpu`, `--help-query-compute-apps`: all of these are there since drivers of 2012.
# Numbers are those of the PCI bus, and stay as they are when a GPU is lost. `pstate` is asked for
# because the memory of a GPU that has to be reset may still be told.
nvidia_gpus=--query-gpu=index,name,uuid,memory.total,memory.used,pstate
nvidia_processes=--query-compute-apps=gpu_uuid,pid

ask_nvidia() { # $1 a file for the answer, $2 what is asked -> $nvidia_pid, for await_nvidia
    # In a session of its own and without the job's mark: one that cannot be killed, as it waits for
    # its driver, must not be taken for what a job has left. No child of this shell either, which
    # would wait for it at some time, or say that it was killed.
    nvidia_session=''
    ! command -v setsid >/dev/null || nvidia_session=setsid
    nvidia_pid=$(
        DSTACK_JOB='' $nvidia_session nvidia-smi "$2" --format=csv,noheader,nounits \
            >"$1" 2>&1 </dev/null &
        echo "$!"
    )
    nvidia_tries=0
}

await_nvidia() { # $1 a process of ask_nvidia; false: not even ten seconds after the last one began
    until nvidia_ended "$1"; do
        if [ "$nvidia_tries" -ge 200 ]; then
            kill -KILL "$1" 2>/dev/null
            return 1
        fi
        if sleep 0.05 2>/dev/null; then nvidia_tries=$((nvidia_tries + 1)); else
            sleep 1
            nvidia_tries=$((nvidia_tries + 20))
        fi
    done
}

nvidia_ended() { # $1 a process: it is gone, or a zombie
    { read -r nvidia_stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    case ${nvidia_stat##*) } in Z* | X*) return 0 ;; esac
    return 1
}
