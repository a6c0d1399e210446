"""Take the pictures of a report and of `dr3-ray serve` that README and docs show, by Chromium: RUN is the demo's.

    dr3-ray demo --out runs/demo && python scripts/take_pictures.py runs/demo

They are docs/pictures/report-light.png, report-dark.png, compared.png and serve.png, of at most 256 colours.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image  # comes with matplotlib

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1000  # pixels; a README shows about 830
sys.path.insert(0, str(ROOT))

from dr3_ray.report import write_report  # noqa: E402
from tests.report.browser import Tab, browser  # noqa: E402
from tests.report.test_serving import serving  # noqa: E402


def take(tab: Tab, name: str, below: str) -> None:
    """Write a picture of what stands above the end of an element."""
    tab.run("scrollTo(0, 0)")
    end = tab.run(f"document.querySelector({below!r}).getBoundingClientRect().bottom")
    tab.resize(WIDTH, round(end) + 16, name.endswith("dark"))
    tab.run("new Promise(done => setTimeout(done, 500))")  # plotly moves to where things are
    path = tab.shot(PICTURES / f"{name}.png")
    picture = Image.open(path).convert("RGB")
    picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take all four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder, "profile")) as tab:
        page = write_report(run, out=Path(folder, "report")).page
        for scheme in ("light", "dark"):
            tab.resize(WIDTH, 900, scheme == "dark")
            tab.open(page.resolve())
            take(tab, f"report-{scheme}", "#caption")
        tab.resize(WIDTH, 900)
        tab.open(page.resolve())
        tab.run("[...document.querySelectorAll('#views button')].find(e => e.textContent == 'Runs compared').click()")
        take(tab, "compared", "#caption")
        with serving(run, folder=Path(folder, "served")) as visitor:
            visitor.live.renew(None)
            tab.resize(WIDTH, 700)
            tab("Page.navigate", url=visitor.server.address)
            tab.until("document.documentElement?.dataset.ready === 'yes'")
            take(tab, "serve", "#plot")


if __name__ == "__main__":
    main()
