"""`assay completion bash|zsh`: a script that completes verbs and flags, made from the parsers.

The words stand in the script, so no key press waits for an import. Programs whose extra is not
installed are completed by their name alone. zsh reads the same script by its bashcompinit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

SHELLS = ("bash", "zsh")
_SCRIPT = """\
_assay_words() {{
    case "$1" in
{cases}
    esac
}}
_assay() {{
    local path="" word index
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${{path:+$path }}${{COMP_WORDS[index]}}"
        if [ -n "$(_assay_words "$word")" ]; then path="$word"; fi
    done
    COMPREPLY=($(compgen -W "$(_assay_words "$path")" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _assay assay
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def script(shell: str, parsers: Mapping[str, argparse.ArgumentParser | None]) -> str:
    """The script for one of SHELLS. `parsers`: by the verb of `assay`; "" is its own."""
    own = parsers.get("")
    words = dict(_words("", own)) if own is not None else {}
    others = sorted(name for name in parsers if name)
    words[""] = " ".join([words.get("", ""), *others]).strip()
    for name in others:
        parser = parsers[name]
        if parser is not None:
            words |= _words(name, parser)
    cases = "\n".join(f'    "{path}") echo "{line}" ;;' for path, line in words.items() if line)
    return (_ZSH if shell == "zsh" else "") + _SCRIPT.format(cases=cases)


def _words(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """What may follow each sequence of verbs that begins with `path`."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    verbs: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            verbs |= action.choices
    yield path, " ".join([*verbs, *(flag for flag in flags if flag.startswith("--"))])
    for verb, below in verbs.items():
        yield from _words(f"{path} {verb}".strip(), below)
