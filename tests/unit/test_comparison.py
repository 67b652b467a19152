"""Scores of several sources beside each other: the table says what was measured, the plot draws what the table says."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from bigtrain.cli.comparison import Entry, kind_of, minutes_of, plot, table
from bigtrain.evaluation.protocol import Protocol, Score

PROTOCOL = Protocol(
    "tf1", "classifier", "abc", 0.9, "none", "uint8", 1, 10, 70, 0, 50, "m", None, None, True, None, 0, None
)


def score(metric, value, truncation=None, std=None, per_class=None):
    return Score(metric, value, std, 50, 70, 12.5, truncation, PROTOCOL, per_class)


def entry(name="runs/a", minutes=(9.5, 18.25)):
    scores = [
        score("fid50_full", 3.0),
        score("is50", 6.0, std=0.25),
        score("recognition50", 0.8, per_class=[0.9, None, 0.7]),
        *(score("fid50_full", value, at) for at, value in ((1.0, 2.5), (0.2, 9.0))),
        *(score("is50", value, at, std=0.1) for at, value in ((1.0, 6.5), (0.2, 7.25))),
    ]
    return Entry(name, scores, ["boot", "bag", "coat"], minutes)


def cells(text):
    head, rule, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    assert set(rule) == {"---"}
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("metric", "kind"), [("fid50k_full", "fid"), ("is1234", "is"), ("recognition10k", "recognition")]
)
def test_kinds(metric, kind):
    assert kind_of(metric) == kind


def test_the_table_has_a_row_a_source_and_what_the_sweep_found():
    plain = Entry("pictures", [replace(score("fid50_full", 4.0), kimg=None)], [], None)
    swept, other = cells(table([entry(), plain]))
    assert swept == {
        "": "runs/a",
        "kimg": "12.5",
        "minutes (CPU)": "9.5 (18.2)",
        "fid50_full": "3.000",
        "is50": "6.000 ± 0.250",
        "recognition50": "0.800",
        "worst class": "coat 0.700",
        "lowest FID (truncation)": "2.500 (1)",
        "highest IS (truncation)": "7.250 (0.2)",
    }
    assert {name: text for name, text in other.items() if text} == {"": "pictures", "fid50_full": "4.000"}


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_plot_is_a_picture_with_a_curve_of_each_source(ending):
    content = plot([entry("runs/first"), entry("runs/second")], ending)
    if ending == ".png":
        assert Image.open(io.BytesIO(content)).width == 1500
    else:
        assert content.count(b"runs/first") >= 1
        assert content != plot([entry("runs/first")], ending)


def test_a_plot_needs_a_sweep():
    with pytest.raises(ValueError, match="two thresholds"):
        plot([replace(entry(), scores=entry().scores[:3])], ".png")


def test_minutes_are_those_of_the_runs_record(tmp_path):
    assert minutes_of(str(tmp_path)) is None
    lines = ['{"images_seen": 1}', *['{"images_seen": 2, "seconds": 90, "cpu_seconds": 150}'] * 2]
    (tmp_path / "throughput.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert minutes_of(str(tmp_path)) == (3.0, 5.0)
    assert minutes_of("s3://bucket/run") is None
