"""report.html: a run on one page that needs nothing but itself: metrics, pictures, settings, what comes next."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..writing.console import printable
from ..writing.files import written_whole
from .metrics_file import read_metrics
from .run_folder import REMEDY

FILE = "report.html"
ROWS = 200  # of metrics.csv that are shown, the last ones
FIRST = ("predictions", "forecasts", "learning_curves")  # pictures before all others

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; vertical-align: top; }
td { border-top: 1px solid var(--line); } td + td { overflow-wrap: anywhere; }
.number { font-variant-numeric: tabular-nums; } .big td:last-child { font-size: 1.2rem; }
.wide { overflow: auto; max-height: 24rem; } .wide td { white-space: nowrap; overflow-wrap: normal; }
pre { background: var(--soft); padding: 0.7rem; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; overflow-x: auto; } img { max-width: 100%; background: white; border-radius: 4px; }
figcaption { font-weight: 600; } summary { cursor: pointer; font-weight: 600; } .soft { opacity: 0.7; }
@media (max-width: 600px) {
  body { margin: 1rem auto; } img { max-width: none; width: 640px; }
  .facts td { display: block; padding-right: 0; } .facts td:first-child { font-weight: 600; }
  .facts td + td { border: 0; }
}
@media print { .wide { overflow: visible; max-height: none; } .wide table { font-size: 9px; } }
"""


def write_report(
    folder: Path,
    title: str,
    metrics: Mapping[str, float],
    commands: Iterable[tuple[str, str]],
    about: Sequence[tuple[str, str]] = (),
    settings: str = "",
) -> Path:
    """Writes `<folder>/report.html` whole or not at all, from what lies in the folder and what is given.

    Args:
        folder: of the run; its metrics.csv and pictures/*.png go into the page.
        title: of the page.
        metrics: measured in the end, by name.
        commands: that come next: what each does, and what to type.
        about: the checkpoint, by name and value.
        settings: the configuration as text.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    if metrics:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td class=number>{value:.4f}</td></tr>" for name, value in metrics.items()
        )
        parts.append(f"<h2>Measured in the end</h2><table class=big>{rows}</table>")
    lines = "".join(f"<p>{escape(what)}</p><pre>{escape(typed)}</pre>" for what, typed in commands)
    parts.append(f"<h2>Next</h2>{lines}")
    parts += [_figure(path) for path in pictures_of(folder)]
    if about:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in about)
        parts.append(f"<h2>The checkpoint</h2><table class=facts>{rows}</table>")
    if measured := read_metrics(folder / "metrics.csv"):
        parts.append(f"<h2>While training</h2><div class=wide>{_measured(measured)}</div>")
    if settings:
        parts.append(f"<details><summary>Settings</summary><pre>{escape(settings)}</pre></details>")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )
    path = folder / FILE
    with written_whole(path, replace=True, remedy=REMEDY) as partial:
        partial.write_text(printable(page), encoding="utf-8")  # HTML knows no control characters
    return path


def pictures_of(folder: Path) -> list[Path]:
    """Pictures of a run folder: what is predicted, then the curves, then the others in the order they were drawn."""
    order = {name: place for place, name in enumerate(FIRST)}
    found = (folder / "pictures").glob("*.png")
    return sorted(found, key=lambda path: (order.get(path.stem, len(FIRST)), path.stat().st_mtime_ns, path.name))


def _figure(path: Path) -> str:
    name = escape(path.stem.replace("_", " "))
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><figcaption>{name}</figcaption><img alt="{name}" src="data:image/png;base64,{content}"></figure>'


def _measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of metrics.csv as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    # Names may be broken behind "/" and "_", so that more columns fit.
    head = "".join("<th>" + re.sub(r"([/_])", r"\1<wbr>", escape(name)) + "</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td class=number>{_number(row.get(name))}</td>" for name in names) + "</tr>"
        for row in rows[-ROWS:]
    )
    note = f"<p class=soft>the last {ROWS} of {len(rows):,} rows of metrics.csv</p>" if len(rows) > ROWS else ""
    return f"{note}<table><tr>{head}</tr>{body}</table>"


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
