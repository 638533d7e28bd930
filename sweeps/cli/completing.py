"""Completion of words in bash, zsh and fish: click's, with what carsweep knows: sweeps, settings and their values.

A key press must be answered at once. So sweeps are found by the names of their files, and only settings load pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class, get_completion_class

from carcls.catalog import FAMILIES

if TYPE_CHECKING:
    from sweeps.spec.settings import Setting

# Words, each with what it means.
Words = Iterator[tuple[str, str]]
VARIABLE = "_CARSWEEP_COMPLETE"
_INTO = ("search", "config", "fixed")
_PARTED = re.compile(r"[=:]")


@add_completion_class
class KeysInBash(BashComplete):
    """Bash parts words at ``=`` and ``:``, and completes what follows the last of them."""

    # No blank after a key, whose value comes next.
    source_template = BashComplete.source_template.replace(
        "    return 0\n", "    [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace\n    return 0\n"
    )
    _before = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        """Put words together that bash has parted."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in (*args, incomplete):
            is_part = words and (word in ("=", ":") or words[-1][-1:] in ("=", ":"))
            words[-1:] = [words[-1] + word] if is_part else [*words[-1:], word]
        *args, incomplete = words
        said = incomplete.partition("=")[2] if incomplete.startswith("--") else incomplete
        self._before = max((found.end() for found in _PARTED.finditer(said)), default=0)
        return args, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Leave out what bash has already."""
        return f"{item.type},{item.value[self._before :]}"


@add_completion_class
class KeysInZsh(ZshComplete):
    """Zsh puts a blank after each word, but not after a key, whose value comes next."""

    source_template = ZshComplete.source_template.replace(
        'if [[ "$type" == "plain" ]]; then',
        'if [[ "$key" == *[=.] ]]; then\n'
        "            compadd -U -S '' -V unsorted -- \"$key\"\n"
        '        elif [[ "$type" == "plain" ]]; then',
        1,
    )


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete carsweep's words.

    \b
    bash:  eval "$(carsweep completion bash)"   in ~/.bashrc
    zsh:   eval "$(carsweep completion zsh)"    in ~/.zshrc, after compinit
    fish:  carsweep completion fish | source    in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "carsweep", VARIABLE).source())


def complete(kind: str, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Return the words of a kind (see ``Known``) that begin as ``incomplete`` does, each with its help."""
    words = {"sweep": _sweeps, "setting": _settings, "key": _keys, "experiment": _experiments}[kind]
    return [
        CompletionItem(word, help=about or None)
        for word, about in words(ctx, incomplete)
        if word.startswith(incomplete)
    ]


def _sweeps(ctx: click.Context, _: str) -> Words:
    """Yield the sweeps and jobs under ``--out``, the last begun first, but for those that stand there already."""
    out = Path(ctx.params.get("out") or "runs").expanduser()
    files = [file for name in ("sweep.json", "job.json", "spec.yaml") for file in out.glob(f"*/{name}")]
    given = [word for value in ctx.params.values() for word in (value if isinstance(value, tuple) else [value])]
    names = [file.parent.name for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)]
    yield from ((name, "") for name in dict.fromkeys(names) if name not in given)


def _experiments(ctx: click.Context, _: str) -> Words:
    from sweeps.spec.documented import EXPERIMENTS

    family = ctx.params.get("family")
    yield from ((one.name, "") for one in EXPERIMENTS if family in (None, one.family))


def _keys(ctx: click.Context, incomplete: str) -> Words:
    """Yield what ``carsweep explain`` knows."""
    from sweeps.spec.objectives import QUANTITIES

    yield from ((word.removesuffix("="), about) for word, about in _settings(ctx, incomplete))
    yield from _experiments(ctx, incomplete)
    yield from ((one.name, one.about) for one in QUANTITIES)


def _settings(ctx: click.Context, incomplete: str) -> Words:
    """Yield what ``KEY=VALUE`` may go on with: keys of the family that is run, or values of the key that is there."""
    from sweeps.spec.settings import settings, settings_about

    families = [ctx.command.name] if ctx.command.name in FAMILIES else [*FAMILIES]
    known = [setting for setting in settings().values() if any(family in setting.families for family in families)]
    key, sign, _ = incomplete.partition("=")
    section, *inside = key.split(".")
    if sign:
        yield from (
            (f"{key}={value}", "") for setting in settings_about(key)[:1] for value in _values(setting, section)
        )
    elif section not in _INTO or not inside:
        yield from ((f"{one.path}=", _help(one)) for one in known if one.values != "a mapping")
        yield from ((f"{section}.", "") for section in _INTO)
    elif len(inside) == 1:
        yield from ((f"{section}.{one.path}=", _help(one)) for one in known if one.part == "trial")
        yield from ((f"{section}.{one.path}.", "") for one in known if one.path == inside[0] and section == "search")
    else:
        yield from ((f"{section}.{inside[0]}.{end}=", "") for end in ("low", "high", "log", "step", "when"))


def _help(setting: Setting) -> str:
    return re.split(r"[,.:;] ", setting.meaning)[0].removesuffix(".")


def _values(setting: Setting, section: str) -> Iterator[str]:
    """Yield values of a setting that can be typed: its choices, or of a number what families have and search."""
    from sweeps.spec.yaml_text import write_value

    choices = [choice for choice in setting.choices if " " not in choice]
    if section == "search":
        yield from ("null", f"[{','.join(choices)}]") if choices else ("null",)
        return
    found = setting.families.values()
    domains = [one.search for one in found if one.search]
    ends = chain.from_iterable(one if isinstance(one, list) else (one["low"], one["high"]) for one in domains)
    numbers = [write_value(value) for value in (*(one.default for one in found), *ends)]
    is_list = setting.values.startswith("a list")
    yield from dict.fromkeys(f"[{value}]" if is_list else value for value in choices or numbers if " " not in value)
