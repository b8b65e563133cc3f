#!/bin/sh
# The Python interpreters of this machine, one a line: "3.11.7 /path/to/python3.11".
# Where people have them: PATH, pyenv (also what is not activated), uv, Homebrew, conda.
# pyenv's shims are left out: they fail for a version that is not activated.

folders() {
    rest=$PATH:
    while [ -n "$rest" ]; do
        folder=${rest%%:*}
        rest=${rest#*:}
        case $folder in */shims | */shims/ | "") continue ;; esac
        echo "$folder"
    done
    for folder in \
        "${PYENV_ROOT:-${HOME-}/.pyenv}"/versions/*/bin \
        "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-${HOME-}/.local/share}/uv/python}"/*/bin \
        "${HOME-}"/.local/bin /usr/local/bin /usr/bin /opt/homebrew/bin \
        /opt/homebrew/opt/python@*/bin /usr/local/opt/python@*/bin \
        "${CONDA_PREFIX:-/nonexistent}/bin" \
        "${HOME-}"/miniconda3/bin "${HOME-}"/miniconda3/envs/*/bin \
        "${HOME-}"/miniforge3/bin "${HOME-}"/miniforge3/envs/*/bin /opt/conda/bin; do
        [ -d "$folder" ] && echo "$folder"
    done
}

folders | while read -r folder; do
    # An environment's interpreter would take the run into that environment.
    [ -e "${folder%/bin}/pyvenv.cfg" ] && continue
    for path in "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
        if [ ! -f "$path" ] || [ ! -x "$path" ]; then continue; fi
        name=${path##*/python}
        # pyenv and uv name the patch version in the folder: asking would take 15 ms each.
        case $folder in
        */versions/"$name".[0-9]*/bin) patch=${folder%/bin} patch=${patch##*/} ;;
        */cpython-"$name".[0-9]*/bin) patch=${folder##*/cpython-} patch=${patch%%-*} ;;
        *) patch=$name ;;
        esac
        echo "$patch $path"
    done
done
