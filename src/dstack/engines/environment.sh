# ---- the environment: cache folders, Python; the same for every job ----
# shellcheck shell=sh disable=SC2154 # job_... are assigned above, in each job

link_caches() {
    job_cache cache_folder
}

cache_folder() { # $1 the kept folder, $2 where the job sees it (empty: the same place)
    if [ -n "$2" ]; then
        # A link that leads nowhere is ours, from before dstack's folder was moved.
        if [ -L "$2" ]; then if [ -d "$2" ]; then return 0; else rm -f "$2"; fi; fi
        if [ -d "$2" ]; then
            # What the code brought along is where a new cache begins.
            new=$1.$$
            [ -d "$1" ] || { mkdir -p "${1%/*}" && cp -Rp "$2" "$new"; } || fail "the cache folder $1 cannot be made"
            [ -d "$1" ] || mv "$new" "$1"
            rm -rf "$2" "$new"
        fi
    fi
    [ -d "$1" ] || mkdir -p "$1" || fail "the cache folder $1 cannot be made"
    [ -n "$2" ] || return 0
    [ -d "${2%/*}" ] || mkdir -p "${2%/*}"
    ln -s "$1" "$2" || fail "the cache folder $2 cannot be linked"
}

make_environment() {
    [ -n "$job_python" ] || return 0
    # A link to the environment's absolute path: it leads nowhere when dstack's folder was moved.
    [ -e "$job_env/.dstack-made" ] && return 0
    phase 'environment 0      '
    if [ -n "${job_build_from-}" ]; then
        build_environment
        return
    fi
    python=$job_interpreter
    [ -n "$python" ] || fetch_python
    [ -x "$python" ] || fail "Python $job_python is no longer at $python"
    make_template
    [ ! -e "$job_env" ] || rm -rf "$job_env"
    cp -a "$template/env" "$job_env" 2>/dev/null || {
        # A newer uv had the template made anew just now.
        rm -rf "$job_env"
        make_template
        cp -a "$template/env" "$job_env" || fail "the environment $job_env cannot be made"
    }
    pip_scripts
    ln -s "$job_env/pyvenv.cfg" "$job_env/.dstack-made"
}

build_environment() { # the one that the build made, as links: what installs packages replaces files
    [ ! -e "$job_env" ] || rm -rf "$job_env"
    mv "$job_build_from/spare" "$job_env" 2>/dev/null ||
        cp -al "$job_build_from/env" "$job_env" 2>/dev/null || {
        rm -rf "$job_env"
        cp -a "$job_build_from/env" "$job_env" || fail "the environment $job_env cannot be made"
    }
    [ -x "$job_env/bin/python" ] || fail "Python $job_python is no longer where the build had it"
    rename_environment || fail "the environment $job_env cannot be made"
    : >"$job_env/.dstack-made"
}

rename_environment() { # scripts and editable packages name the folder that the build was made in
    set --
    while read -r file; do
        [ -z "$file" ] || set -- "$@" "$file"
    done <<EOF
$(
        find "$job_env/bin" -type f -exec grep -lIF "$job_build_old/" {} +
        grep -lIF "$job_build_old/" "$job_env"/lib/python*/site-packages/*.pth \
            "$job_env"/lib/python*/site-packages/*.egg-link \
            "$job_env"/lib/python*/site-packages/__editable__* 2>/dev/null
    )
EOF
    [ $# = 0 ] && return
    sed --in-place "$job_build_rename" "$@" 2>/dev/null && return
    for file; do
        cp -p "$file" "$file.new" && sed "$job_build_rename" "$file" >"$file.new" &&
            mv "$file.new" "$file" || return
    done
}

pip_scripts() { # into the copied ones, which are executable
    case $job_env in
    # The kernel takes neither blanks nor more than 127 bytes: the shell starts Python then.
    *[[:space:]]* | ????????????????????????????????????????????????????????????????????????????????????????????????????*)
        start="#!/bin/sh
'''exec' \"\${0%/*}/python\" \"\$0\" \"\$@\"
' '''" ;;
    *) start="#!$job_env/bin/python" ;;
    esac
    # They are empty so far. With ">" ext4 would write each to the disk at once (auto_da_alloc).
    for script in "$job_env"/bin/pip*; do
        [ ! -f "$script" ] || printf '%s\n' "$start" 'import sys' \
            'from pip._internal.cli.main import main' 'sys.exit(main())' >>"$script"
    done
}

quietly() { # what making the environment prints is shown only when it fails
    if "$@" >"$job_folder/making" 2>&1; then return 0; fi
    return 1
}

show_making() {
    while read -r line || [ -n "$line" ]; do echo "$line"; done <"$job_folder/making"
}

fetch_python() {
    if ! quietly "$job_uv" python install --no-config "$job_python"; then
        show_making
        there=
        [ -r "$job_folder/find_python.sh" ] && there=$(sh "$job_folder/find_python.sh" | versions)
        fail "Python $job_python is not on this machine and uv could not fetch it; there is ${there:-none}"
    fi
    python=$("$job_uv" python find --no-config --no-project --managed-python "$job_python")
}

versions() { # "3.11 /path" lines -> "3.10, 3.11"
    all=
    while read -r version _; do
        case ", $all, " in *", $version, "*) ;; *) all="${all:+$all, }$version" ;; esac
    done
    echo "$all"
}

make_template() { # once for each interpreter: an environment with pip, which runs then copy
    key=
    rest=$python
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        key="$key$part%"
        case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    done
    template=$job_envs/$key
    template_is_made && return 0
    aside=$template.$$
    rm -rf "$aside"
    mkdir -p "$aside" || fail "$job_envs cannot be written"
    quietly "$job_uv" venv --no-project --no-config --relocatable --python "$python" "$aside/env" ||
        quietly "$python" -m venv --without-pip "$aside/env" || {
        show_making
        fail "the environment of Python $job_python cannot be made"
    }
    lib=$(echo "$aside"/env/lib/python*/site-packages)
    install_pip
    # The copies are made for good where they lie: scripts in them need no detour.
    grep -v '^relocatable' "$aside/env/pyvenv.cfg" >"$aside/cfg" && mv "$aside/cfg" "$aside/env/pyvenv.cfg"
    echo "$template/pip" >"$lib/dstack_pip.pth"
    for name in pip pip3 "pip$job_python"; do
        : >"$aside/env/bin/$name"
        chmod 755 "$aside/env/bin/$name"
    done
    ln -sf "$job_uv" "$aside/env/bin/uv"
    rm -f "$aside"/env/bin/*.bat "$aside"/env/bin/activate.[npx]*
    ln -s "$template/env/pyvenv.cfg" "$aside/place"
    echo "$job_uv" >"$aside/made"
    # Two at once make the same thing: the one that comes second is not needed, and what is there
    # may just be copied by a third. (`mv` to a folder that came meanwhile would put it inside.)
    if ! template_is_made; then
        [ ! -e "$template" ] || mv "$template" "$template.old.$$"
        mv "$aside" "$template" 2>/dev/null
        rm -rf "${template:?}/${aside##*/}"
    fi
    rm -rf "$template.old.$$" "$aside"
    template_is_made || fail "$job_envs cannot be written"
}

template_is_made() { # whether it is whole, where it was made, and leads to the uv that we have
    [ -x "$template/env/bin/python" ] && [ -e "$template/place" ] &&
        { read -r uv <"$template/made"; } 2>/dev/null && [ "$uv" = "$job_uv" ]
}

install_pip() { # the one that comes with the interpreter; from the package index where none does
    wheels=$("$python" -c 'import ensurepip,os;print(os.path.join(os.path.dirname(ensurepip.__file__),"_bundled"))' 2>/dev/null)
    for from in "--no-index --find-links=$wheels" "--no-index --find-links=/usr/share/python-wheels" ""; do
        # shellcheck disable=SC2086
        quietly "$job_uv" pip install --no-deps --python "$aside/env/bin/python" \
            --target "$aside/pip" $from pip && break
    done
    [ -d "$aside/pip/pip" ] || {
        show_making
        fail "pip for Python $job_python cannot be installed"
    }
    # What pip imports is compiled by its first use; all of it now would cost a second.
    rm -rf "$aside/pip/bin"
}
