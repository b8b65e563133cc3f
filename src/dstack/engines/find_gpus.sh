# What nvidia-smi says of the GPUs, a line each (nvidia.sh), or why it says nothing.
# shellcheck shell=sh disable=SC2154 # what nvidia.sh defines stands above

find_gpus() {
    command -v nvidia-smi >/dev/null && answer=$(mktemp) || return 0
    ask_nvidia "$answer" "$nvidia_gpus"
    await_nvidia "$nvidia_pid" || echo 'nvidia-smi does not answer' >"$answer"
    cat "$answer"
    rm -f "$answer"
}
