"""The report in a real browser: headless Chromium from Debian."""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from bigtrain.cli.main import main
from tests.runs import tiny_config, write_config
from tests.services.needs import need_file

BROWSER = Path("/usr/bin/chromium-headless-shell")
SECTIONS = ("Samples", "Scores", "Training", "Health", "Throughput", "Events", "Provenance")


@pytest.fixture(scope="module")
def page(digits, tmp_path_factory) -> Path:
    need_file(BROWSER, "apt-get install chromium-headless-shell")
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "tiny.yaml", tiny_config(digits, evaluation=None))
    assert main(["fit", "--config", str(config), "--run", str(folder / "run")]) == 0
    assert main(["report", str(folder / "run")]) == 0
    return folder / "run" / "report.html"


def browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Loads the page with its script, as root too, and says what the page's console says."""
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", profile, *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_finds_nothing_to_complain_of(page, tmp_path):
    done = browse(page, tmp_path, "--dump-dom")
    assert complaints(done) == []
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in done.stdout
    assert done.stdout.count('<button type="button" aria-pressed="true">') >= 4  # which the script makes
    assert "<button" not in page.read_text()


def test_a_complaint_would_be_found(page, tmp_path):
    """Of a script that the page's policy does not let run."""
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</footer>", "</footer><script>document.title = 1</script>"))
    assert any("Content Security Policy" in line for line in complaints(browse(broken, tmp_path, "--dump-dom")))


@pytest.mark.parametrize(("width", "dark"), [(1360, False), (390, True)])
def test_the_picture_is_as_wide_as_the_window_and_not_blank(width, dark, page, tmp_path):
    dark_mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, tmp_path, f"--screenshot={tmp_path / 'a.png'}", f"--window-size={width},2400", *dark_mode)
    picture = Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).convert("L")
    assert picture.width == width
    assert (picture.getpixel((1, 1)) < 64) is dark
    bands = [picture.crop((0, top, width, top + 400)) for top in range(0, 2400, 400)]
    assert all(high - low > 100 for low, high in (band.getextrema() for band in bands))
