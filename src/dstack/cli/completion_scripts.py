"""The completion scripts: one walk over the words before the cursor, written for each shell.

Each walk finds the command (`at`: `secrets set`), the next argument's place (from 1), and the
option that waits for its value, then looks them up in tables made from the parser.

What `dstack __complete` prints is never given to something that expands it (`compgen -W` would run
a `$(...)` in a profile's name).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .completion import Command, Word

_BASH = r"""
_dstack() {
    local cur=${COMP_WORDS[COMP_CWORD]} at= place=1 pending= ended= kind=any
    local i word subs flags valued
    COMPREPLY=()
    __dstack_table ''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == [=:] ]]; then # bash breaks words at these: what follows belongs to the last
            [[ $pending ]] && continue
            ((++i < COMP_CWORD)) || return 0
        elif [[ $pending ]]; then pending=
        elif [[ $ended ]]; then ((place++))
        elif [[ $word == -- ]]; then ended=1
        elif [[ $word == -* ]]; then [[ " $valued " == *" $word "* ]] && pending=$word
        elif [[ " $subs " == *" $word "* ]]; then
            at="${at:+$at }$word" place=1
            __dstack_table "$at"
        else ((place++))
        fi
    done
    if [[ $pending ]]; then
        [[ $cur == = ]] && cur=
        __dstack_kind "$at $pending"
    elif [[ ! $ended && $cur == -* ]]; then kind="words $flags"
    elif [[ $subs ]]; then kind="words $subs"
    else __dstack_kind "$at $place"
    fi
    case $kind in
    any) ;;
    words*)
        while IFS= read -r word; do COMPREPLY+=("$word"); done \
            < <(compgen -W "${kind#words }" -- "$cur")
        ;;
    files) compopt -o default 2>/dev/null || COMPREPLY=() ;;
    folders) compopt -o dirnames 2>/dev/null || COMPREPLY=() ;;
    *)
        while IFS= read -r word; do [[ $word == "$cur"* ]] && COMPREPLY+=("$word"); done \
            < <("${COMP_WORDS[0]}" __complete "$kind" -- "$cur" 2>/dev/null)
        ;;
    esac
    return 0
}
complete -F _dstack dstack
"""

_ZSH = r"""
_dstack() {
    local cur=${words[CURRENT]} at= place=1 pending= ended= word kind=any
    local -a subs flags valued found
    local -i i
    __dstack_table ''
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        if [[ -n $pending ]]; then pending=
        elif [[ -n $ended ]]; then ((place++))
        elif [[ $word == -- ]]; then ended=1
        elif [[ $word == -* ]]; then ((${valued[(Ie)$word]})) && pending=$word
        elif ((${subs[(I)${(b)word}:*]})); then
            at="${at:+$at }$word" place=1
            __dstack_table "$at"
        else ((place++))
        fi
    done
    if [[ -z $pending && -z $ended && $cur == --*=* ]]; then
        pending=${cur%%=*}
        compset -P 1 '*='
    fi
    if [[ -n $pending ]]; then __dstack_kind "$at $pending"
    elif [[ -z $ended && $cur == -* ]]; then _describe -o option flags; return
    elif ((${#subs})); then _describe command subs; return
    else __dstack_kind "$at $place"
    fi
    case $kind in
    (any) _message 'a value' ;;
    (words*) compadd -- ${=kind#words } ;;
    (files) _files ;;
    (folders) _files -/ ;;
    (*)
        found=("${(@f)$(command ${(Q)words[1]} __complete $kind -- "${(Q)PREFIX}" 2>/dev/null)}")
        compadd -- ${found:#}
        ;;
    esac
}
(($+functions[compdef])) || { autoload -Uz compinit && compinit; }
if [[ ${funcstack[1]} == _dstack ]]; then _dstack "$@"; else compdef _dstack dstack; fi
"""

_FISH = r"""
function __dstack_is
    set -l at ''
    set -l place 1
    set -l pending 0
    set -l ended 0
    set -l before (commandline -opc)
    set -e before[1]
    for word in $before
        if test $pending = 1
            set pending 0
        else if test $ended = 1
            set place (math $place + 1)
        else if test "$word" = --
            set ended 1
        else if string match -q -- '-*' "$word"
            contains -- "$at $word" $__dstack_valued; and set pending 1
        else if contains -- (string trim -- "$at $word") $__dstack_commands
            set at (string trim -- "$at $word")
            set place 1
        else
            set place (math $place + 1)
        end
    end
    test "$at" = "$argv[1]"; or return 1
    set -q argv[2]; or return 0
    test "$argv[2]" = $place; and return 0
    set -q argv[3]; and test $place -ge $argv[2]
end
function __dstack_names
    # The token before the cursor may be `--option=beginning`.
    set -l beginning (string replace -r -- '^--[^=]*=' '' (commandline -ct))
    dstack __complete $argv[1] -- "$beginning" 2>/dev/null
end
complete -c dstack -f
"""


def _quoted(text: str) -> str:
    """One word for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    """One word for fish, where a backslash in quotes is special too."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def bash(root: Command) -> str:
    """For bash 4 and later."""

    def row(command: Command) -> str:
        subs = " ".join(child.path[-1] for child in command.children)
        return f"subs={_quoted(subs)} flags={_quoted(_flags(command))} valued={_valued(command)}"

    return _tables(root, row) + _BASH.rstrip("\n")


def zsh(root: Command) -> str:
    """For zsh 5; it works both as a file `_dstack` in `fpath` and with `eval`."""

    def row(command: Command) -> str:
        subs = " ".join(_quoted(f"{child.path[-1]}:{child.help}") for child in command.children)
        flags = " ".join(
            _quoted(f"{flag}:{option.help}") for option in command.options for flag in option.flags
        )
        valued = _valued(command).strip("'")
        return f"subs=({subs}) flags=({flags}) valued=({valued})"

    return "#compdef dstack\n" + _tables(root, row) + _ZSH.rstrip("\n")


def fish(root: Command) -> str:
    """For fish 3."""
    commands = [" ".join(command.path) for command in root.walk() if command.path]
    valued = [
        f"{' '.join(command.path)} {flag}"
        for command in root.walk()
        for option in command.options
        if option.kind != "none"
        for flag in option.flags
    ]
    lines = [
        "set -g __dstack_commands " + " ".join(map(_fish_quoted, commands)),
        "set -g __dstack_valued " + " ".join(map(_fish_quoted, valued)),
        _FISH.strip("\n"),
    ]
    for command in root.walk():
        lines.extend(_fish_lines(command))
    return "\n".join(lines)


def _tables(root: Command, row: Callable[[Command], str]) -> str:
    lines = ["__dstack_table() {", "    case $1 in"]
    lines += [f"    {_quoted(' '.join(c.path))}) {row(c)} ;;" for c in root.walk()]
    lines += ["    esac", "}", "__dstack_kind() {", "    case $1 in"]
    for command in root.walk():
        lines += [f"    {pattern}) kind={_quoted(kind)} ;;" for pattern, kind in _kinds(command)]
    return "\n".join([*lines, "    *) kind=any ;;", "    esac", "}"])


def _kinds(command: Command) -> Iterator[tuple[str, str]]:
    """`case` patterns over `COMMAND OPTION` and `COMMAND PLACE`, and the kind that each means."""
    at = " ".join(command.path)
    for option in command.options:
        if option.kind != "none":
            patterns = "|".join(_quoted(f"{at} {flag}") for flag in option.flags)
            yield patterns, _kind(option)
    for place, word in enumerate(command.places, 1):
        last = word.many and place == len(command.places)
        yield _quoted(f"{at} ") + "[0-9]*" if last else _quoted(f"{at} {place}"), _kind(word)


def _kind(word: Word) -> str:
    return " ".join(["words", *word.choices]) if word.kind == "words" else word.kind


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options for flag in option.flags)


def _valued(command: Command) -> str:
    options = (option for option in command.options if option.kind != "none")
    return _quoted(" ".join(flag for option in options for flag in option.flags))


def _fish_lines(command: Command) -> Iterator[str]:
    at = _fish_quoted(" ".join(command.path))
    here = _fish_quoted(f"__dstack_is {at}")
    for child in command.children:
        yield f"complete -c dstack -n {here} -a {child.path[-1]} -d {_fish_quoted(child.help)}"
    for option in command.options:
        flags = " ".join(
            f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
        )
        value = "" if option.kind == "none" else " " + _fish_value(option)
        yield f"complete -c dstack -n {here} {flags}{value} -d {_fish_quoted(option.help)}"
    for place, word in enumerate(command.places, 1):
        there = _fish_quoted(f"__dstack_is {at} {place}" + (" +" if word.many else ""))
        if word.kind != "any":
            yield f"complete -c dstack -n {there} {_fish_value(word).replace('-r ', '')}"


def _fish_value(word: Word) -> str:
    if word.kind == "files":
        return "-r -F"
    if word.kind == "any":
        return "-x"
    if word.kind == "words":
        return f"-x -a {_fish_quoted(' '.join(word.choices))}"
    if word.kind == "folders":
        return "-x -a '(__fish_complete_directories (commandline -ct))'"
    return f"-x -a '(__dstack_names {word.kind})'"
