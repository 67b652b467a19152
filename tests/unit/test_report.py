"""`bigtrain report`: the page says what the records say, needs nothing beside it, and runs nothing that is in them."""

import base64
import hashlib
import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from bigtrain.cli.main import main
from bigtrain.cli.report import pictures, scores
from bigtrain.cli.report.charts import linear_ticks
from bigtrain.cli.report.curves import thinned
from bigtrain.cli.report.events import events_of
from bigtrain.cli.report.page import render
from bigtrain.cli.report.pictures import Gallery, drawn, film
from bigtrain.cli.report.run_records import RunRecords
from bigtrain.cli.report.scores import measured
from bigtrain.evaluation.metrics.path_length import PATH_METRICS
from bigtrain.evaluation.table import METRICS
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.outputs import enlarged, picture
from bigtrain.snapshots import load_snapshot
from tests.runs import tiny_config, write_config
from tests.unit.made_snapshot import made_snapshot

EVIL = "<script>alert(1)<b>"
VOID = {"meta", "img", "input", "br", "link"}


class Read(HTMLParser):
    """What a browser would find: elements, text, and the JSON of the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        place = self.open[-1] if self.open else ""
        self.inside.setdefault(place, []).append(data)
        if place not in ("script", "style"):
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def curves(self) -> dict[str, list]:
        found = [json.loads(text) for text in self.inside["script"] if text.startswith("{")]
        return {series["name"]: series["points"] for figure in found for series in figure["series"]}


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / EVIL
    config = tiny_config(digits, guard={"every_kimg": 0.064}, evaluation=None)
    path = write_config(folder.parent / "tiny.yaml", config)
    assert main(["fit", "--config", str(path), "--run", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """Of the run, to be changed."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def lines(folder, name) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def append(folder, name, *records) -> None:
    with (folder / name).open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def score(metric, value, kimg, seed=0) -> dict:
    protocol = {
        "extractor": "classifier-abc",
        "weight_hash": "abc",
        "num_fake": 60,
        "seed": seed,
        "reference": "9" * 64,
    }
    known = {"metric": metric, "value": value, "std": None, "kimg": kimg, "truncation": None, "protocol": protocol}
    return {"images_seen": round(kimg * 1000), "num_fake": 60, "num_real": 70, **known}


def test_the_page_needs_nothing_beside_it_and_runs_only_its_own_script(run):
    page = Read(render(RunRecords(run), sample=True))
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert all(address.startswith(("#", "data:image/webp;base64,")) for address in addresses)
    names = {value for _, found in page.elements for name, value in found.items() if name == "id"}
    assert {address[1:] for address in addresses if address[0] == "#"} <= names
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert all(found["alt"] for tag, found in page.elements if tag == "img")
    assert all(found.get("aria-label") or found.get("aria-hidden") for tag, found in page.elements if tag == "svg")
    (policy,) = [found["content"] for tag, found in page.elements if found.get("http-equiv")]
    scripts = [text for text in page.inside["script"] if not text.startswith("{")]
    digest = base64.b64encode(hashlib.sha256("".join(scripts).encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert sum(tag == "script" and "type" not in found for tag, found in page.elements) == 1
    assert "url(" not in "".join(page.inside["style"])
    assert "@import" not in "".join(page.inside["style"])


def test_every_number_of_the_metrics_is_a_curve_or_constant(run):
    page, records = Read(render(RunRecords(run), sample=False)), lines(run, "metrics.jsonl")
    numbers = {name for record in records for name, value in record.items() if isinstance(value, (int, float))}
    changing = {n for n in numbers if len({r[n] for r in records if n in r}) > 1} - {
        "images_seen",
        "kimg",
        "resolution",
    }
    assert {"loss_d", "loss_g", "grad_norm_d", "logit/real", "alpha"} <= changing
    assert changing <= page.curves.keys()
    for name in changing:
        assert page.curves[name] == [[r["kimg"], pytest.approx(r[name], rel=1e-5)] for r in records if name in r]
    for name in numbers - changing - {"images_seen", "kimg", "resolution"}:
        assert f"{name} {records[0][name]:g}" in page.said
    assert {"generator", "diversity", "images_per_second"} <= page.curves.keys()


def test_what_the_records_say_is_text(copy):
    append(copy, "guard.jsonl", {"images_seen": 480, "kimg": 0.48, "rollbacks": [rollback(f"{EVIL}<img src=x>")]})
    renamed = copy.rename(copy.parent / EVIL)
    page = Read(render(RunRecords(renamed), sample=True))
    assert f"{EVIL}<img src=x>" in page.said
    assert [text for text in page.inside["h1"] if text.strip()] == [EVIL]
    assert all(found["src"].startswith("data:") for tag, found in page.elements if tag == "img")


def rollback(reason) -> dict:
    return {"at": 480, "to": 320, "reason": reason, "action": "slower", "factor": 0.5}


def test_the_film_shows_what_the_training_drew(run):
    records = RunRecords(run)
    snapshot = load_snapshot(str(run))
    sampler = Sampler(snapshot.generator, 3, cycled(range(10)), place=snapshot.card.place)
    images = enlarged(sampler(range(20))[0])
    assert [tile.tobytes() for tile in drawn(records)] == [picture(image).convert("RGB").tobytes() for image in images]
    assert [frame.kimg for frame in film(records, sample=True)] == [0.16, 0.32, 0.48]


def test_without_grids_the_film_is_of_the_snapshots(copy):
    shutil.rmtree(copy / "samples")
    assert [frame.kimg for frame in film(RunRecords(copy), True)] == [
        c["images_seen"] / 1000 for c in RunRecords(copy).cards
    ]
    assert film(RunRecords(copy), False) == []


@pytest.mark.parametrize(("num_classes", "channels"), [(0, 3), (10, 1), (0, 1)])
def test_the_gallery_of_any_generator(num_classes, channels, copy):
    shutil.rmtree(copy / "snapshots")
    arguments = {"resolution": 16, "image_channels": channels, "num_classes": num_classes, "latent_dim": 6}
    made_snapshot(copy / "snapshots", arguments={**arguments, "fmap_base": 32, "fmap_max": 8})
    records = RunRecords(copy)
    gallery = Gallery(records, records.cards[-1])
    side = 32 + 1
    assert (gallery.best().width + 1, gallery.best().height + 1) == (10 * side, 6 * side)
    assert [row.name for row in gallery.by_class()] == [str(i) for i in range(num_classes)]
    assert [row.name for row in gallery.by_truncation([0.5, None])] == ["0.5", "none"]


@pytest.mark.parametrize(
    "kept", [["config.yaml"], ["metrics.jsonl"], ["config.yaml", "metrics.jsonl", "throughput.jsonl"]]
)
def test_a_run_that_has_little_yet(kept, copy, tmp_path, capsys):
    (tmp_path / "young").mkdir()
    for name in kept:
        shutil.copy(copy / name, tmp_path / "young")
    assert main(["report", str(tmp_path / "young")]) == 0
    path = tmp_path / "young" / "report.html"
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size / 1000:.0f} kB\n"
    assert "This run has not been evaluated." in Read(path.read_text()).said


def test_fit_writes_one_and_the_command_a_richer_one(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", str(tmp_path / "a.html")]) == 0
    plain, rich = ((run / "report.html").read_text(), (tmp_path / "a.html").read_text())
    assert "By class" not in Read(plain).said
    assert "By class" in Read(rich).said
    assert Read(plain).curves.keys() == Read(rich).curves.keys()
    assert len(rich) < 300_000
    assert "finished" in Read(rich).said
    assert "bigtrain fit --config" in Read(rich).said


def test_the_best_of_those_measured_alike_is_marked(copy):
    found = [score("fid60_full", 5.0, 0.16), score("fid60_full", 2.5, 0.32), score("fid60_full", 3.0, 0.48)]
    others = [score("fid60_full", 1.0, 0.48, seed=1), score("is60", 4.0, 0.32), score("c2st60", 0.5, 0.32)]
    append(copy, "evaluation.jsonl", *found, *others)
    groups = measured(RunRecords(copy).evaluation)
    assert [(one.metric, one.best and one.best["value"]) for one in groups] == [
        ("fid60_full", 2.5),
        ("fid60_full", 1.0),
        ("is60", 4.0),
        ("c2st60", None),
    ]
    page = Read(render(RunRecords(copy), sample=False))
    assert "2.5 lowest, at 0.32 kimg" in page.said
    assert "reference 999999999999" in page.said
    assert page.curves["fid60_full"] == [[0.16, 5.0], [0.32, 2.5], [0.48, 3.0]]


def test_of_every_metric_it_is_known_what_is_better():
    assert scores.LESS | scores.MORE | {"c2st"} == METRICS.keys() | PATH_METRICS.keys()
    assert not scores.LESS & scores.MORE


def test_the_best_snapshot_is_the_best_of_those_that_were_measured_alike(copy):
    """fid_infinity is no FID, and one of fewer samples is another score."""
    cards = sorted((copy / "snapshots").glob("*.json"))
    measured = [("fid60_full", 4.0), ("fid60_full", 6.0), ("fid20_full", 9.0), ("fid20_full", 8.0)]
    for path, one in zip(cards[-4:], measured, strict=True):
        found = [score("fid_infinity60_full", -1.0, 0.1), score(*one, 0.1)]
        path.write_text(json.dumps({**json.loads(path.read_text()), "scores": found}))
    assert RunRecords(copy).best_card["name"] == cards[-1].stem
    cards[-1].unlink()
    cards[-2].unlink()
    assert RunRecords(copy).best_card["name"] == cards[-4].stem


def test_a_snapshot_that_cannot_be_read_costs_only_its_pictures(copy, monkeypatch):
    shutil.rmtree(copy / "samples")
    (copy / "samples").mkdir()
    first, *_ = sorted((copy / "snapshots").glob("*.safetensors"))
    first.write_bytes(b"damaged")
    assert "<h2>Samples</h2>" in render(RunRecords(copy), sample=True)
    monkeypatch.setattr(pictures.Gallery, "best", lambda _: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")))
    assert "<h2>Samples</h2>" in render(RunRecords(copy), sample=True)


def test_truncation_curves_are_those_of_the_file(copy):
    sweep = [{**score("fid60_full", v, 0.48), "truncation": t} for t, v in ((None, 3.0), (0.5, 2.0), (1.0, 1.5))]
    (copy / "truncation.json").write_text(json.dumps([*sweep, {**sweep[0], "source": "runs/other", "value": 9}]))
    page = Read(render(RunRecords(copy), sample=True))
    assert page.curves["fid60_full"] == [[0, 2.0], [1, 1.5], [2, 3.0]]
    assert {"0.5", "1", "none"} <= {text.strip() for text in page.inside["b"]}


@pytest.mark.long
def test_truncation_curves_can_be_measured(copy):
    assert main(["report", str(copy), "--truncation", "0.5,none", "--num", "60"]) == 0
    page = Read((copy / "report.html").read_text())
    found = json.loads((copy / "truncation.json").read_text())
    values = [one["value"] for one in found if one["metric"] == "fid60_full"]
    assert page.curves["fid60_full"] == [
        [0, pytest.approx(values[0], rel=1e-5)],
        [1, pytest.approx(values[1], rel=1e-5)],
    ]
    assert {"0.5", "none"} <= {text.strip() for text in page.inside["b"]}


def test_events(copy):
    (copy / "jobs.jsonl").unlink()  # as older runs are
    start = lines(copy, "throughput.jsonl")[-1]["time"]
    after = {"images_seen": 512, "kimg": 0.512, "images_per_second": 16.0, "seconds_per_kimg": 62.5, "seconds": 2.0}
    trouble = {"data/retries": 2, "data/substitutions": 0, "data/reads": 5}
    append(copy, "throughput.jsonl", {**after, "time": start + 92, **trouble})
    looks = [("warn", "thin"), ("collapsed", "gone"), None]
    for i, finding in enumerate(looks):
        verdict = {"verdict": finding[0] if finding else "ok", "findings": {"diversity": finding} if finding else {}}
        append(copy, "guard.jsonl", {"images_seen": 490 + i, "kimg": 0.49 + i / 1000, "singular_values": {}, **verdict})
    append(copy, "guard.jsonl", {"images_seen": 320, "kimg": 0.32, "rollbacks": [rollback("gone")]})
    found = {(event.kimg, event.kind): event for event in events_of(RunRecords(copy))}
    assert list(found) == [
        (0.0, "start"),
        (0.32, "rollback"),
        (0.48, "start"),
        (0.49, "alert"),
        (0.491, "collapse"),
        (0.492, "well"),
        (0.512, "data"),
    ]
    assert found[0.48, "start"].text.startswith("2 min after")
    assert found[0.32, "rollback"].text == "from 0.48 kimg, to go on with learning rates times 0.5: gone"
    assert found[0.512, "data"].text == "2, the last by 0.512 kimg"
    jobs = [
        {"event": "started", "time": start, "images_seen": i, "total_images": 480, "processes": 2} for i in (0, 160)
    ]
    stopped = {"event": "stopped", "time": start, "images_seen": 160, "exit_code": 138}
    append(copy, "jobs.jsonl", jobs[0], stopped, {**jobs[1], "job": "7", "nodes": "n1", "slurm_restart": 1})
    told = [(e.kimg, e.title, e.text) for e in events_of(RunRecords(copy)) if e.kind in ("start", "stop")]
    assert told == [
        (0.0, "started", "2 processes"),
        (0.16, "stopped", "by signal 10, with a checkpoint"),
        (0.16, "requeued", "job 7 on n1, 2 processes"),
    ]


def test_passwords_and_signatures_stay_out(copy):
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(f"{text}\nx: https://user:hunter2@host/a?X-Amz-Signature=hunter3\n")
    page = render(RunRecords(copy), sample=False)
    assert "host/a" in page
    assert "hunter" not in page


def test_a_snapshot_that_cannot_be_loaded_costs_only_its_pictures(copy, caplog):
    for path in (copy / "snapshots").glob("*.safetensors"):
        path.write_bytes(b"damaged")
    page = Read(render(RunRecords(copy), sample=True))
    assert "The newest of the grids" in page.said
    assert "no samples can be made" in caplog.text


def test_no_peak_is_lost_in_a_long_run():
    values = random.Random(0)
    points = [(i / 10, values.gauss(0, 1)) for i in range(20_000)]
    points[777] = (77.7, 1e6)
    kept = thinned(points)
    assert len(kept) <= 242
    assert (77.7, 1e6) in kept
    assert min(kept, key=lambda p: p[1]) == min(points, key=lambda p: p[1])
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert set(kept) <= set(points)
    assert kept == sorted(kept)


def test_a_long_run_makes_no_large_page(copy):
    last = lines(copy, "metrics.jsonl")[-1]
    later = [
        {**last, "kimg": k, "images_seen": k * 1000, "loss_d": torch.sin(torch.tensor(k)).item()}
        for k in range(1, 5000)
    ]
    append(copy, "metrics.jsonl", *later)
    assert len(render(RunRecords(copy), sample=False)) < 300_000


@pytest.mark.parametrize("span", [(0, 1), (-3.2, 7), (0.012, 0.0131), (1e5, 9e5)])
def test_ticks_are_few_round_and_inside(span):
    ticks = linear_ticks(*span)
    assert 3 <= len(ticks) <= 8
    assert span[0] <= ticks[0] < ticks[-1] <= span[1]
    assert all(float(f"{tick:.4g}") == tick for tick in ticks)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "NOTHING"], "is no run: neither config.yaml nor metrics.jsonl is there"),
        (["report", "s3://bucket/run"], "is no run"),
        (["report", "RUN", "--out", "NOTHING/a.html"], "must be a file in a folder that is there"),
        (["report", "RUN", "--scores", "RUN/config.yaml"], "is not what `bigtrain evaluate --json` writes"),
        (["report", "RUN", "--truncation", "much"], "--truncation (=much) must be numbers"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, run, tmp_path, capsys):
    words = [word.replace("NOTHING", str(tmp_path / "none")).replace("RUN", str(run)) for word in arguments]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_damaged_line_is_named(copy, capsys):
    (copy / "metrics.jsonl").write_text('{"kimg": \n{}\n')
    assert main(["report", str(copy)]) == 2
    assert f"{copy / 'metrics.jsonl'} is damaged" in capsys.readouterr().err
