"""`bigtrain evaluate train-extractor`: a classifier of the shards' own labels, to measure by."""

from __future__ import annotations

from collections.abc import Sequence

from bigtrain.cli.arguments import Parser
from bigtrain.cli.reference import reference_shards


def run(arguments: Sequence[str]) -> int:
    """Trains the classifier unless it is there already, and says how good it is and where it is kept."""
    options = _parser().parse_args(arguments)
    if options.to and not options.to.endswith(".safetensors"):
        raise ValueError(f"--to (={options.to}) must end in .safetensors")

    from bigtrain.callbacks.scoring import Scorer  # noqa: PLC0415 (torch: only when there is something to do)
    from bigtrain.callbacks.scoring_base import Measurement  # noqa: PLC0415
    from bigtrain.sampling.outputs import place_of  # noqa: PLC0415

    shards, resolution = reference_shards(options.shards, None, options.resolution)
    if shards.num_classes < 2:
        raise ValueError(f"SHARDS {options.shards!r} have no labels to train a classifier on")
    scorer = Scorer(shards, resolution, Measurement("classifier"))
    made = scorer.classifier()
    card = made.card
    print(f"{made.name}: {card.holdout_accuracy:.4f} of the held-out images recognised, of {card.num_classes} classes")
    print(f"trained on nine tenths of {card.num_images} images of {resolution} pixels")
    if options.to:
        made.save(*place_of(options.to))
        print(f"kept as {options.to}")
    else:
        for storage in scorer.places.holding(scorer.classifier_key):
            print(f"kept as {storage.locate(scorer.classifier_key)}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="bigtrain evaluate train-extractor",
        description="Trains a classifier on labelled shards, the same one each time: `bigtrain evaluate --extractor "
        "classifier` measures by the one beside the shards, `--extractor FILE.safetensors` by any.",
    )
    parser.add_argument("shards", metavar="SHARDS", help="of labelled images; a path or URL")
    parser.add_argument("--to", metavar="FILE.safetensors", help="where it is kept too; a path or URL")
    parser.add_argument("--resolution", type=int, help="of the images (default the largest stored one)")
    return parser
