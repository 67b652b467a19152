"""The configurations of configs/, as they are read: their headers, what they are made of, and narrow copies of them."""

from __future__ import annotations

import copy
import functools
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import ArgumentParser

from bigtrain.cli.configuration import as_dict, make_parser, parse
from bigtrain.networks.base import Network
from bigtrain.networks.cost import Cost, cost
from bigtrain.schedules import Schedule
from tests.runs import ROOT

T = TypeVar("T")
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
PLAYERS = ("generator", "discriminator")


def path_of(recipe: str) -> Path:
    return ROOT / "configs" / f"{recipe}.yaml"


def header(recipe: str) -> dict[str, str]:
    """The fields of the comment that a configuration begins with, and its first line as the title; lines are kept."""
    lines = []
    for line in path_of(recipe).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[2:])
    fields, name = {"title": lines[0]}, ""
    for line in lines[2:]:
        name = line[:12].strip() or name
        fields[name] = f"{fields[name]}\n{line[12:]}" if name in fields else line[12:]
    return fields


def commands(text: str) -> list[list[str]]:
    """The words of the calls of bigtrain in a field, with what starts its processes; a backslash continues a line."""
    found = re.findall(r"(?:srun |torchrun |bigtrain )[^\n()]*", re.sub(r"\\\n\s*", "", text))
    return [words for words in map(shlex.split, found) if len(words) > 1]


def processes(words: list[str]) -> int:
    """How many the command starts: by srun or torchrun, or as many as the configuration and its overrides say."""
    launcher, arguments = words[: words.index("bigtrain")], words[words.index("bigtrain") + 2 :]
    options = dict(pairwise(launcher))
    if launcher:
        by_node = options.get("--ntasks-per-node") or options["--nproc-per-node"]
        return int(options.get("--nodes") or options["--nnodes"]) * int(by_node)
    compute = parse(make_parser(), arguments).compute
    return max(1, compute.devices) * max(1, compute.num_nodes)


@functools.cache
def plain(recipe: str) -> dict[str, Any]:
    """The whole configuration, parsed, with all its defaults."""
    parser = make_parser()
    return as_dict(parser, parse(parser, ["--config", str(path_of(recipe))]))


def make(kind: type[T], given: dict[str, Any]) -> T:
    """What a part of the configuration makes."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(kind, "made")
    return parser.instantiate(parser.parse_object({"made": given})).made


@functools.cache
def schedule_of(recipe: str) -> Schedule:
    return make(Schedule, plain(recipe)["schedule"])


@functools.cache
def networks(recipe: str) -> list[Network]:
    """Generator and discriminator at their full size, on the meta device."""
    players = plain(recipe)["game"]["init_args"]
    with torch.device("meta"):
        return [make(Network, players[name]["init_args"]["network"]) for name in PLAYERS]


@functools.cache
def costs(recipe: str) -> dict[str, Cost]:
    return {name: cost(network) for name, network in zip(PLAYERS, networks(recipe), strict=True)}


#: Bounds of the arguments of networks.
NARROW = {"resolution": 32, "width": 8, "fmap_base": 64, "fmap_max": 8, "latent_dim": 16, "shared_dim": 8}
STEPS = 3


def reduced(recipe: str) -> dict[str, Any]:
    """The same with narrow networks up to 32², small batches and few steps; all else is as it was."""
    small, whole = copy.deepcopy(plain(recipe)), schedule_of(recipe)
    game, schedule = small["game"]["init_args"], small["schedule"]["init_args"]
    arguments = [game[name]["init_args"]["network"]["init_args"] for name in PLAYERS]
    for network in arguments:
        shrunk = network["resolution"] / min(NARROW["resolution"], network["resolution"])
        if "attention" in network:
            network["attention"] = sorted({max(8, int(at / shrunk)) for at in network["attention"]})
        network.update({key: min(bound, network[key]) for key, bound in NARROW.items() if key in network})
    game["accumulation"] = max(2, game["accumulation"])
    schedule["batch_size"] = 2 * networks(recipe)[1].batch_group * game["accumulation"]
    step = schedule["batch_size"] * schedule["d_steps_per_g_step"] / 1000
    schedule["total_kimg"] = STEPS * step
    if "resolutions" in schedule:
        schedule["resolutions"] = [each for each in schedule["resolutions"] if each <= NARROW["resolution"]]
        schedule["transition_kimg"] = schedule["stabilize_kimg"] = step
        schedule["total_kimg"] = (2 * len(schedule["resolutions"]) - 1) * step
    else:
        schedule["resolution"] = arguments[0]["resolution"]
    shorten(game, schedule["total_kimg"] / whole.total_images * 1000)
    by_step = step * 1000 / whole.phases[-1].images_per_step  # so that the average's weight in a step stays
    game["ema_half_life_kimg"] = plain(recipe)["game"]["init_args"]["ema_half_life_kimg"] * by_step
    return small


def shorten(node: Any, by: float) -> None:
    """Brings everything that is said in kimg to the length of the training."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if str(key).endswith("_kimg"):
            node[key] = value * by
        shorten(value, by)
