# What nvidia-smi says of the GPUs, a line each (nvidia.sh), or why it says nothing.
# shellcheck shell=sh disable=SC2154 # what nvidia.sh defines stands above

find_gpus() {
    command -v nvidia-smi >/dev/null || return 0
    # A machine whose disk is full still has its GPUs.
    answer=$(mktemp 2>&1) || {
        echo "nvidia-smi cannot be asked: $answer"
        return
    }
    ask_nvidia "$answer" "$nvidia_gpus"
    await_nvidia "$nvidia_pid" || echo 'nvidia-smi does not answer' >"$answer"
    if [ -s "$answer" ]; then cat "$answer"; else echo "nvidia-smi said nothing (is ${answer%/*} full?)"; fi
    rm -f "$answer"
}
