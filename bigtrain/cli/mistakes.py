"""One clear line out of the many that jsonargparse says about a mistake in a configuration."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from pydoc import locate

from jsonargparse import ArgumentParser

from bigtrain.games import Game
from bigtrain.networks import Discriminator, Generator
from bigtrain.networks.base import Network
from bigtrain.objectives import Objective
from bigtrain.regularizers import Regularizer
from bigtrain.schedules import LearningRate, Schedule

#: What the classes at a configuration's keys derive from.
BASES: dict[str, type] = {
    "schedule": Schedule,
    "game": Game,
    "network": Network,
    "objective": Objective,
    "regularizers": Regularizer,
    "learning_rate": LearningRate,
}


def root_mistake(error: BaseException) -> BaseException:
    """The first `ValueError` in a chain of errors, each raised while another one was handled."""
    mistake, cause = error, error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ValueError):
            mistake = cause
        cause = cause.__cause__ or cause.__context__
    return mistake


def explain(message: str, parser: ArgumentParser) -> str:
    """Name, what is wrong, and what is valid, in one line."""
    for pattern, tell in _PATTERNS:
        found = re.search(pattern, message)
        if found:
            return tell(found, message, parser)
    return " ".join(message.split())


def _plain(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    return f"--config: {' '.join(message[found.start() :].split())}"


def _unknown_argument(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    return _unknown(found["key"], {key for key in _keys(parser) if "." in key} or _keys(parser))


def _unknown_option(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    """An option of a class, or of the configuration itself."""
    classes = re.findall(r"class_path '([^']+)'", message[: found.start()])
    classes += re.findall(r"class_path='([^']+)'", message[found.end() :].split("\n", maxsplit=1)[0])
    option = found["key"].split(".")[0]
    if not classes:
        return _unknown(option, {key.split(".")[0] for key in _keys(parser)})
    parameters = inspect.signature(locate(classes[-1])).parameters  # type: ignore[arg-type]
    return f"{_path(message, found)}{_unknown(option, parameters)} (of {classes[-1].rpartition('.')[2]})"


def _unknown_class(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    path = _path(message, found)
    base = BASES.get(path.rstrip(".").rpartition(".")[2])
    return f"{path}class_path: there is no class {found['value']!r} for it" + (
        "" if base is None else _choices(found["value"].rpartition(".")[2], _subclasses(base))
    )


def _wrong_type(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    wanted = re.sub(r"<class '([^']+)'>|typing\.", lambda m: m[1] or "", found["type"])
    return f"{_path(message, found).rstrip('.')} (={found['value']}) must be of type {wanted}"


def _union(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    wanted = " or ".join(re.findall(r"<class '([^']+)'>", found["type"])).replace("NoneType", "null")
    value = found["value"].split(". Got value")[0]
    hint = " (null of a class's argument has to be given in a --config file)" if value == "None" else ""
    return f"{_path(message, found).rstrip('.')} (={value}) must be of type {wanted}{hint}"


def _missing(found: re.Match[str], message: str, parser: ArgumentParser) -> str:
    return f"{found['key'].strip()}: needed, but not given; use --config FILE (see configs/)"


def _unknown(key: str, valid: Iterable[str]) -> str:
    return f"{key} is unknown" + _choices(key, valid)


def _choices(key: str, valid: Iterable[str]) -> str:
    names = sorted(set(valid) - {"self", "help"})
    close = difflib.get_close_matches(key, names, n=1)
    return (f"; did you mean {close[0]}?" if close else ";") + f" valid: {', '.join(names)}"


def _path(message: str, found: re.Match[str]) -> str:
    """The keys under which the mistake was found, with a dot behind."""
    keys = re.findall(r'Parser key "([^"]+)"', message[: found.start()])
    return "".join(f"{key}." for key in keys)


def _keys(parser: ArgumentParser) -> set[str]:
    hidden = ("print_", "data.schedule", "data.seed")
    return {
        key for action in parser._actions if not (key := action.dest).endswith("help") and not key.startswith(hidden)
    }


def _subclasses(base: type) -> list[str]:
    """Names of the concrete classes that derive from it."""
    children: list[type] = base.__subclasses__()
    found = [name for child in children for name in (child.__name__, *_subclasses(child))]
    abstract = {cls.__name__ for cls in (Generator, Discriminator)}
    return [name for name in found if name not in abstract]


#: What jsonargparse says, and who makes a line of it; the first that fits.
_PATTERNS = (
    (r"(?P<value>File does not exist: .*)", _plain),
    (r"(?P<value>Problems parsing config: .*)", _plain),
    (r"unrecognized arguments: --(?P<key>[^\s=]+)", _unknown_argument),
    (r"Option '(?P<key>[^']+)' is not accepted", _unknown_option),
    (r"has no attribute '(?P<value>[^']+)'", _unknown_class),
    (r"No module named '[^']+'\. Got value: Namespace\(class_path='(?P<value>[^']+)'", _unknown_class),
    (r"Expected a dot import path string: (?P<value>\S+)", _unknown_class),
    (r"Expected '(?P<value>[^']+)' to be a subclass", _unknown_class),
    (r"Expected a (?P<type>.+?)\. Got value: (?P<value>[^\n]*?)(\. Got value|\n|$)", _wrong_type),
    (
        r"Subtypes: \[(?P<type>[^\n]+)\]\s+Errors:(\s+- Expected a [^\n]+)+\s+Given [^\n]+\s+"
        r"Given value: (?P<value>.*)",
        _union,
    ),
    (r"the following arguments are required: (?P<key>.+)", _missing),
    (r'Key "(?P<key>[^"]+)" is required', _missing),
)
