"""Verbs with subcommands: `vision3d reproduce EXPERIMENT`."""

from collections.abc import Callable, Mapping, Sequence

from vision3d.cli.app import UsageError
from vision3d.core.errors import nearest_names


def menu(
    verb: str, word: str, intro: str, rows: Mapping[str, str], choose: Callable[[str, Sequence[str]], int | None]
) -> Callable[[Sequence[str]], int | None]:
    """The `run` function of such a verb.

    Args:
        verb: The part before the subcommand, such as `reproduce`.
        word: Placeholder of the subcommand, such as EXPERIMENT.
        intro: Description of the verb.
        rows: Name -> description.
        choose: Runs a subcommand with the remaining arguments.
    """
    kind = word.lower()

    def run(arguments: Sequence[str]) -> int | None:
        if not arguments or arguments[0] in ("-h", "--help"):
            width = max(map(len, rows))
            lines = "\n".join(f"  {name:{width}}  {text}" for name, text in rows.items())
            print(
                f"usage: vision3d {verb} {word} [OPTIONS]\n\n{intro}\n\n"
                f"{kind}s (vision3d {verb} {word} --help lists their options):\n{lines}\n\n"
                "options:\n  -h, --help  show this text"
            )
            return 0 if arguments else 2
        name, rest = arguments[0], list(arguments[1:])
        if name not in rows:
            what = f"option of vision3d {verb}" if name.startswith("-") else kind
            near = nearest_names(name, rows)
            raise UsageError(f"{name}: unknown {what}; {near} (vision3d {verb} --help lists them)")
        return choose(name, rest)

    return run
