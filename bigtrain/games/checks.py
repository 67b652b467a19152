"""What players, schedule and batches must have in common: errors before any work starts."""

from __future__ import annotations

from collections.abc import Mapping

from bigtrain.networks import Discriminator, Generator
from bigtrain.networks.base import Network
from bigtrain.regularizers import Regularizer
from bigtrain.schedules import Schedule


def check_kinds(generator: Network, discriminator: Network) -> None:
    for name, network, kind in (("generator", generator, Generator), ("discriminator", discriminator, Discriminator)):
        if not isinstance(network, kind):
            raise ValueError(f"{name}.network makes a {type(network).__name__}, which is not a {kind.__name__}")


def check_players(generator: Generator, discriminator: Discriminator) -> None:
    for name in ("resolution", "image_channels", "num_classes"):
        of_generator, of_discriminator = getattr(generator, name), getattr(discriminator, name)
        if of_generator != of_discriminator:
            raise ValueError(
                f"{name} must be the same for both players: it is {of_generator} for the generator and "
                f"{of_discriminator} for the discriminator"
            )


#: The discriminators that can be asked for an auxiliary classifier.
CLASSIFYING = (
    "DCGANDiscriminator",
    "ProgressiveDiscriminator",
    "SAGANDiscriminator",
    "SNGANDiscriminator",
    "WGANGPDiscriminator",
)


def check_classifier(game: str, classifies: bool, discriminator: Discriminator) -> None:
    """A discriminator must say what its game makes use of."""
    name = type(discriminator).__name__
    if discriminator.classifies and not classifies:
        raise ValueError(
            f"discriminator.network (={name}, conditioning classifier) also says the class, which {game} makes no use "
            "of: take AuxiliaryClassifierGame, or another conditioning"
        )
    if classifies and not discriminator.num_classes:
        raise ValueError(
            f"num_classes (=0) must be at least 1 for {game}, for both players; without classes take AdversarialGame"
        )
    if classifies and not discriminator.classifies:
        raise ValueError(
            f"discriminator.network (={name}) must say the class for {game}: set its conditioning to classifier (of "
            f"{', '.join(CLASSIFYING)}), or take AdversarialGame"
        )


def check_classifier_weights(real_weight: float, fake_weight: float, generator_weight: float) -> None:
    weights = {"real_weight": real_weight, "fake_weight": fake_weight, "generator_weight": generator_weight}
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"{name} (={weight}) must not be negative")
    if not real_weight + fake_weight:
        raise ValueError(
            "real_weight (=0) or fake_weight (=0) must be greater than 0: else the classifier learns nothing"
        )


def check_compiled(compiled: bool, regularizers: list[Regularizer]) -> None:
    """A compiled discriminator can be differentiated once."""
    twice = [regularizer.name for regularizer in regularizers if regularizer.of_gradients]
    if compiled and twice:
        raise ValueError(
            f"discriminator.compile (=true) is not for {', '.join(twice)}, which differentiates twice: use "
            "ApproximateR1, or set compile to false"
        )


def check_schedule(schedule: Schedule, generator: Generator, discriminator: Discriminator) -> None:
    for network in (generator, discriminator):
        name, own = type(network).__name__, network.resolution
        if network.progressive and max(schedule.resolutions) > own:
            raise ValueError(f"the schedule's resolutions {schedule.resolutions} go beyond those of {name} (={own})")
        if not network.progressive and schedule.resolutions != [own]:
            raise ValueError(f"{name} does not grow: the schedule's resolutions {schedule.resolutions} must be [{own}]")


def check_batches(schedule: Schedule, accumulation: int, group: int, world: int = 1) -> None:
    """Each rank must have equal parts of every batch, and the discriminator's groups must lie in them whole."""
    if accumulation < 1:
        raise ValueError(f"accumulation (={accumulation}) must be at least 1")
    for phase in schedule.phases:
        of = accumulation * world
        if phase.batch_size % of:
            ranks = "" if world == 1 else f" times the number of processes (={world})"
            raise ValueError(
                f"batch_size (={phase.batch_size}) at {phase.resolution}² must be a multiple of accumulation "
                f"(={accumulation}){ranks}; nearest: {_multiples(phase.batch_size, of)}"
            )
        part = phase.batch_size // of
        if part % group and (part > group or world > 1):
            name = "batch_size / accumulation" + ("" if world == 1 else " / processes")
            raise ValueError(
                f"{name} (={part}) at {phase.resolution}² must be a multiple of the "
                f"discriminator's stddev_group (={group}); nearest: {_multiples(part, group)}"
            )


def _multiples(value: int, of: int) -> str:
    """The multiples next to a value, for a message."""
    return " or ".join(str(m) for m in (value // of * of, (value // of + 1) * of) if m)


Shapes = Mapping[str, tuple[int, ...]]


def difference(there: Shapes, here: Shapes) -> str | None:
    """The first of a network's tensors that is missing, left over or of another shape; None if there is none."""
    wrong = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if not wrong:
        return None
    found, expected = (shapes.get(wrong[0], "missing") for shapes in (there, here))
    return f"{wrong[0]} is {found} in it and {expected} here ({len(wrong)} such tensors)"
