"""report.html: all of a run on one page that needs nothing else."""

import base64
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from quintet.cli import main
from quintet.core.run import report
from quintet.core.run.report import pictures_of, write_report

VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Text and attributes of a page whose tags are all closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("training_batch", "confusion_matrix", "learning_curves", "predictions"):
        figure = Figure(figsize=(1, 1))
        figure.savefig(tmp_path / "pictures" / f"{name}.png", dpi=20)
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,4,0.51234\n1,9,\n")
    return tmp_path


def written(folder, **given):
    given = {"title": "a run", "metrics": {"test/loss": 0.25}, "commands": [("Predict:", "quintet predict x")]} | given
    path = write_report(folder, **given)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_a_page_holds_metrics_pictures_settings_and_commands(folder):
    page = Page(written(folder, about=[("task", "Toy")], settings="lr: 0.1"))
    text = " ".join(page.text)
    for part in ("a run", "test/loss", "0.2500", "quintet predict x", "Toy", "lr: 0.1", "val/ loss", "0.51234"):
        assert part in text
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    stored = [(folder / "pictures" / f"{name}.png").read_bytes() for name in ("predictions", "learning_curves")]
    assert [base64.b64decode(source.split(",", 1)[1]) for source in sources[:2]] == stored
    assert len(sources) == 4
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_nothing_is_fetched_from_elsewhere(folder):
    page = Page(written(folder))
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"https?://|@import|url\(|<script|<link", written(folder))


def test_what_a_user_named_is_text_and_no_markup(folder):
    evil = '<script>alert("1")</script>&'
    (folder / "metrics.csv").write_text('epoch,step,"val/<b>x</b>"\n0,1,1\n')
    (folder / "pictures" / "a<b>.png").write_bytes(b"")
    text = written(
        folder, title=evil, metrics={evil: 1.0}, commands=[(evil, evil)], about=[(evil, evil)], settings=evil
    )
    assert "<script" not in text
    assert "<b>" not in text
    page = Page(text)
    assert " ".join(page.text).count(evil) >= 6
    assert ("img", "alt", "a<b>") in page.attributes


def test_escape_sequences_of_names_are_written_out(tmp_path):
    path = write_report(
        tmp_path, "a\x1b[2J", {"m\x07": 1.0}, [("Next:", "quintet\x1b]0;b")], settings="class: \x1b[31m"
    )
    page = path.read_text()
    assert "\x1b" not in page
    assert "\x07" not in page
    assert r"class: \x1b[31m" in page


def test_predictions_and_curves_come_first(folder):
    names = [path.stem for path in pictures_of(folder)]
    assert names == ["predictions", "learning_curves", "training_batch", "confusion_matrix"]


def test_of_long_runs_the_last_rows_are_shown(folder, monkeypatch):
    monkeypatch.setattr(report, "ROWS", 2)
    (folder / "metrics.csv").write_text("step,val/loss\n" + "".join(f"{step},{step}.5\n" for step in range(1, 5)))
    text = written(folder)
    assert "the last 2 of 4 rows" in text
    assert "2.5" not in text
    assert "4.5" in text


def test_a_page_that_cannot_be_written_leaves_the_old_one(folder, monkeypatch):
    before = written(folder)
    monkeypatch.setattr(report, "_measured", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(folder, "a run", {}, [])
    assert (folder / "report.html").read_text() == before


def test_a_run_ends_with_its_report(toy_run):
    text = (toy_run / "report.html").read_text()
    Page(text)
    for part in ("test/accuracy", "data:image/png;base64,", "max_epochs: 3", "quintet fit --config", "PointClassifier"):
        assert part in text
    assert "trust=toy_points" in text


def test_the_last_lines_of_training_and_of_a_test_say_where_it_is(toy, capsys):
    short = ["trainer.max_epochs=1", "callbacks.pictures=null", "run_dir=here"]
    assert main(["fit", "experiment=points", "--config-dir", "configs", *short]) == 0
    assert "report: here/report.html" in capsys.readouterr().out
    checkpoint = "ckpt_path=here/checkpoints/best.ckpt"
    assert main(["test", checkpoint, "trust=toy_points", "data.root=points"]) == 0
    (again,) = (toy / "here" / "test").rglob("report.html")
    assert f"report: {again.relative_to(toy)}" in capsys.readouterr().out
    assert "learning curves" not in again.read_text()
    assert "max_epochs: 1" in again.read_text()


def test_the_commands_of_a_report_work(toy, capsys):
    short = ["trainer.max_epochs=1", "callbacks.pictures=null", "run_dir=here"]
    assert main(["fit", "experiment=points", "--config-dir", "configs", *short]) == 0
    text = " ".join(Page((toy / "here" / "report.html").read_text()).text)
    commands = re.findall(r"quintet (fit --config \S+ --\S+ \S+(?: --\S+ \S+)?)", text)
    assert len(commands) == 2
    for command in commands:
        assert main(command.split()) == 0


def test_data_without_a_test_part_have_a_report_too(toy, capsys, monkeypatch):
    import toy_points

    prepare = toy_points.Points.prepare
    monkeypatch.setattr(
        toy_points.Points,
        "prepare",
        lambda self, stages: prepare(self, tuple(stage for stage in stages if stage != "test")),
    )
    short = ["trainer.max_epochs=1", "callbacks.pictures=null", "run_dir=here"]
    assert main(["fit", "experiment=points", "--config-dir", "configs", *short]) == 0
    said = capsys.readouterr().out
    assert "not tested: the data has no test part\nreport: here/report.html\nfolder: here" in said
    text = (toy / "here" / "report.html").read_text()
    assert "Measured in the end" not in text
    assert "quintet predict ckpt_path=here/checkpoints/best.ckpt" in text


def test_names_of_many_measures_may_be_broken_so_that_their_columns_fit(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,val/balanced_accuracy\n0,1,0.5\n")
    page = write_report(tmp_path, "a", {}, []).read_text(encoding="utf-8")
    assert "<th>val/<wbr>balanced_<wbr>accuracy</th>" in page
