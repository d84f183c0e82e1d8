"""Checkpoints as strangers send them: damaged, newer, of another shape, or written to do harm."""

import codecs
import contextlib
import copy
import json
import os
import random
import subprocess
import sys
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from quintet.cli import main
from quintet.core.attention import Attention
from quintet.core.errors import QuintetError, QuintetWarning
from quintet.core.learning.fixed_options import refuse_changed, refuse_other
from quintet.core.learning.task import load_task
from quintet.core.run.checkpoint_io import AtomicCheckpointIO
from quintet.core.run.export import write_safetensors
from quintet.core.run.overrides import in_grammar
from quintet.core.weights.described import description_of
from quintet.core.weights.pretrained import read_checkpoint
from quintet.core.weights.records import RECORD, restore_description
from quintet.core.weights.sealing import digest_of
from quintet.timeseries import AnomalyDetector, Forecaster
from quintet.timeseries.data import SeriesData
from quintet.vision.data.images import ImageDescription

ATTACKS = Path(__file__).with_name("attacks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small table, and a forecaster of it as a checkpoint in both formats."""
    folder = tmp_path_factory.mktemp("forecaster")
    stamps = pd.date_range("2024-01-01", periods=200, freq="h").strftime("%Y-%m-%d %H:%M")
    pd.DataFrame({"date": stamps, "load": np.sin(np.arange(200) / 4)}).to_csv(folder / "series.csv", index=False)
    data = SeriesData(path=str(folder / "series.csv"), context=24, horizon=6)
    data.setup("fit")
    torch.manual_seed(0)
    task = Forecaster(backbone="itransformer", backbone_arguments={"dim": 8, "depth": 1, "num_heads": 1})
    task.adopt(task.describe(data))
    record = task.record() | {"data": description_of(data)}
    AtomicCheckpointIO().save_checkpoint({RECORD: record, "state_dict": task.state_dict()}, folder / "good.ckpt")
    write_safetensors(folder / "good.safetensors", task.state_dict(), record)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def content_of(folder: Path) -> dict:
    return copy.deepcopy(torch.load(folder / "good.ckpt", weights_only=True))


def sealed(content: dict, path: Path) -> Path:
    """The content as a file whose digest is that of what it holds, where it can have one."""
    try:
        AtomicCheckpointIO().save_checkpoint(content, path)
    except Exception:
        torch.save(content, path)
    return path


def refused(path: Path, capsys) -> str:
    """What is said of a file, which must be one or two lines of quintet's in plain Python and from commands."""
    with pytest.raises(QuintetError) as error:
        load_task(path)
    assert len(str(error.value).splitlines()) <= 2
    for verb, *options in (["predict", "data.path=series.csv", "output=out.csv"], ["validate"]):
        assert main([verb, f"ckpt_path={path}", *options]) == 1
        said = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("note: ")]
        assert len(said) <= 2
        assert "QUINTET_DEBUG" not in said[0]
    assert not Path("out.csv").exists()
    return str(error.value)


def test_the_honest_file_loads_and_forecasts(here, capsys):
    for name in ("good.ckpt", "good.safetensors"):
        assert load_task(name).description.channels == ["load"]
    assert main(["predict", "ckpt_path=good.ckpt", "data.path=series.csv", "output=honest.csv"]) == 0
    assert len(pd.read_csv("honest.csv")) == 6
    assert main(["show", "ckpt_path=good.safetensors"]) == 0


def task_argument(**arguments):
    return lambda content: content[RECORD]["task"]["init_args"].update(arguments)


def described(**fields):
    return lambda content: content[RECORD]["description"].update(fields)


RECORDS = {
    "a list": (lambda content: content.update({RECORD: [1]}), "its record is a list"),
    "without task": (lambda content: content[RECORD].pop("task"), "has no task"),
    "without description": (lambda content: content[RECORD].pop("description"), "has no description"),
    "without version": (lambda content: content[RECORD].pop("version"), "has no version"),
    "a field less": (lambda content: content[RECORD]["description"].pop("channels"), "lacks 'channels'"),
    "a field more": (described(new_thing=1), "newer quintet"),
    "a part more": (lambda content: content[RECORD].update(licences=[]), "newer quintet"),
    "an argument more": (task_argument(new_option=1), "has no argument 'new_option'"),
    "class_path a number": (lambda content: content[RECORD]["task"].update(class_path=7), "no class_path"),
    "init_args a list": (lambda content: content[RECORD]["task"].update(init_args=[1]), "are a list"),
    "no weights": (lambda content: content.pop("state_dict"), "it has no weights"),
    "weights a list": (lambda content: content.update(state_dict=[1]), "it has no weights"),
    "weights no tensors": (lambda content: content["state_dict"].update(a="b"), "no tensors"),
    "mean as text": (described(mean=["one"]), "mean in it is"),
    "mean of another length": (described(mean=[0.0, 0.0, 0.0]), "not of one length"),
    "context below zero": (described(context=-5), "cannot be restored"),
    "context of another size": (described(context=25), "another model"),
    "horizon of a billion": (described(horizon=10**9), ""),
    "horizon of ten million": (described(horizon=10**7), "another model"),
    "lr as text": (task_argument(lr="fast"), "lr is 'fast', not float"),
    "lr below zero": (task_argument(lr=-1.0), "model.lr is -1.0"),
    "no channels": (described(channels=[]), "not of one length"),
    "code as optimizer": (task_argument(optimizer="helper_mod.run"), "optimizer is 'helper_mod.run'"),
    "a backbone unheard of": (task_argument(backbone="nothing"), "no model is called 'nothing'"),
    "data no node": (lambda content: content[RECORD].update(data={"_target_": "os.system"}), "no class_path"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_that_are_none_are_one_line(here, capsys, kind):
    change, complaint = RECORDS[kind]
    content = content_of(here)
    change(content)
    assert complaint in refused(sealed(content, here / "bad.ckpt"), capsys)


@pytest.mark.parametrize("about", ["[1]", "7", '"text"', "{", "null", '{"(tuple)": 1}'])
def test_metadata_that_are_no_record_are_one_line(here, capsys, about):
    from safetensors.torch import save_file

    save_file(content_of(here)["state_dict"], here / "bad.safetensors", metadata={"quintet": about})
    refused(here / "bad.safetensors", capsys)


# Damage


def test_one_flipped_bit_of_a_weight_is_found_in_either_format(here):
    for name in ("good.ckpt", "good.safetensors"):
        content = bytearray((here / name).read_bytes())
        weights = next(value for value in content_of(here)["state_dict"].values() if value.ndim == 2)
        place = content.rfind(weights.numpy().tobytes()[:16])
        assert place > 0
        content[place] ^= 1
        (here / f"flipped_{name}").write_bytes(content)
        with pytest.raises(QuintetError, match="damaged"):
            load_task(here / f"flipped_{name}")


def test_a_record_that_was_changed_is_found(here):
    text = (here / "good.safetensors").read_bytes()
    assert text.count(b'\\"horizon\\": 6') >= 1
    (here / "changed.safetensors").write_bytes(text.replace(b'\\"version\\"', b'\\"versiom\\"'))
    with pytest.raises(QuintetError, match="damaged"):
        load_task(here / "changed.safetensors")


def test_a_file_without_a_digest_loads_and_says_so(here, capsys):
    content = content_of(here)
    del content[RECORD]["digest"]
    torch.save(content, here / "old.ckpt")
    with pytest.warns(QuintetWarning, match=r"old\.ckpt has no digest"):
        load_task(here / "old.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("always", QuintetWarning)
        assert main(["show", "ckpt_path=old.ckpt"]) == 0
    assert "note: old.ckpt has no digest" in capsys.readouterr().err


def test_a_compressed_archive_is_not_unpacked(here):
    with zipfile.ZipFile(here / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 50_000_000)
    assert (here / "bomb.ckpt").stat().st_size < 100_000
    with pytest.raises(QuintetError, match="compressed archive"):
        read_checkpoint(here / "bomb.ckpt")


def crowded(kind: str, path: Path) -> Path:
    """A small file with very many tensors without numbers, or names of classes."""
    empty = torch.empty(0)
    if kind == "safetensors":
        names = {f"{index:06}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(30_000)}
        header = json.dumps(names).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    elif kind == "names":
        torch.save({"state_dict": {}, RECORD: {"classes": [f"{index:040}" for index in range(200_000)]}}, path)
    elif kind == "tensors":
        torch.save({f"{index:040}": empty for index in range(200_000)}, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for index in range(30_000):
                archive.writestr(f"{index}", b"")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "names", "tensors", "entries"])
def test_a_file_that_describes_far_more_than_it_holds_is_refused_before_it_is_read(tmp_path, kind, monkeypatch):
    path = crowded(kind, tmp_path / ("x.safetensors" if kind == "safetensors" else "x.ckpt"))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(QuintetError, match="it describes far more tensors, or classes and the like, than"):
        read_checkpoint(path)


def test_many_series_with_few_weights_are_read(tmp_path):
    """A hundred thousand of them, as of M4, with names and the last stamp of each."""
    described = {"series": [f"M4_H{index}" for index in range(100_000)], "seen_until": ["2017-01-01 12:00"] * 100_000}
    torch.save({"state_dict": {"weight": torch.zeros(1000)}, "description": described}, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt")["description"] == described


def test_a_record_that_names_itself_a_billion_times_ends_at_once(here, capsys):
    laughs: list = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    content = content_of(here)
    content[RECORD]["training"] = {"metrics": laughs}
    torch.save(content, here / "laughs.ckpt")
    assert "larger or deeper" in refused(here / "laughs.ckpt", capsys)


def test_tensors_that_share_one_number_are_not_written_out(here, capsys):
    content = content_of(here)
    del content[RECORD]["digest"]
    content["state_dict"]["network.huge"] = torch.zeros(1).expand(10**12)
    torch.save(content, here / "huge.ckpt")
    assert "larger than the file" in refused(here / "huge.ckpt", capsys)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"depth": 10**9}, "a number in its record is 1000000000"),
        ({"depth": 10**6}, "a far larger network than its weights"),
        ({"dim": 10**6}, "of another model"),
    ],
)
def test_networks_far_larger_than_their_weights_are_not_built(here, capsys, arguments, complaint):
    content = content_of(here)
    content[RECORD]["task"]["init_args"]["backbone_arguments"] |= arguments
    assert complaint in refused(sealed(content, here / "deep.ckpt"), capsys)


@pytest.mark.parametrize("size", [[10**6, 10**6], [5793, 5793], [32], [0, 32]])
def test_a_checkpoint_cannot_ask_for_images_that_fill_all_memory(size):
    sizes = {"channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3, "class_counts": [3, 3]}
    record = {"version": "1", "description": {"classes": ["a", "b"], "image_size": size, **sizes}}
    with pytest.raises(QuintetError, match="image_size is"):
        restore_description(ImageDescription, record)


class Called:
    """What a pickle calls with arguments when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    "value", [Called(bytearray, 10**9), Called(codecs.encode, "ab", "utf-8")], ids=["bytearray", "encode"]
)
def test_a_pickle_that_makes_bytes_is_refused_before_it_is_read(tmp_path, value, archive):
    path = tmp_path / "bytes.pt"
    torch.save({"a": torch.zeros(2), "b": value}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(QuintetError, match="bytes beside tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "larger than the file"),
        ([torch.zeros(1).expand(10**12)], "larger than the file"),
        (torch.empty(10**12, device="meta"), "sparse, quantized or empty"),
        (torch.eye(2).to_sparse(), "sparse, quantized or empty"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)]), "sparse, quantized or empty"),
    ],
    ids=["shared", "inside", "meta", "sparse", "nested"],
)
def test_tensors_without_numbers_of_their_own_are_refused_in_any_file(tmp_path, value, complaint):
    torch.save({"weight": value}, tmp_path / "odd.pt")
    with pytest.raises(QuintetError, match=complaint):
        read_checkpoint(tmp_path / "odd.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good.ckpt", "good.safetensors"])
def test_random_damage_is_found(here, name):
    """300 files with a few bytes changed, cut or doubled: refused in words, or the very weights that were written."""
    draw, whole = random.Random(0), (here / name).read_bytes()
    honest, outcomes = load_task(here / name).state_dict(), {"refused": 0, "same": 0}
    for _ in range(300):
        content = bytearray(whole)
        kind = draw.randrange(4)
        place = draw.randrange(len(content))
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content[place:place] = content[place : place + draw.randrange(1, 64)]
        else:
            for _ in range(draw.choice([1, 1, 3, 30])):
                content[draw.randrange(len(content))] = draw.randrange(256)
        path = here / f"fuzzed{Path(name).suffix}"
        path.write_bytes(content)
        try:
            found = load_task(path).state_dict()
        except QuintetError:
            outcomes["refused"] += 1
            continue
        assert digest_of({}, found) == digest_of({}, honest)
        outcomes["same"] += 1
    print(f"| {Path(name).suffix} | 300 | {outcomes['refused']} | {outcomes['same']} | 0 |")
    assert outcomes["refused"] >= 240


# Harm


def attacked(folder: Path, step: int, *options: str) -> list[dict]:
    """What a share of the family of attacks touched beyond what an honest file does."""
    done = subprocess.run(
        [sys.executable, str(ATTACKS), str(folder), str(step), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"QUINTET_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *found, last = map(json.loads, done.stdout.splitlines())
    assert last["tried"] > 20
    return found


def test_no_record_makes_loading_touch_what_an_honest_one_does_not(tmp_path):
    assert attacked(tmp_path, 211) == []


@pytest.mark.slow
def test_no_record_of_the_whole_family_does(tmp_path):
    assert attacked(tmp_path, 3) == []


@pytest.mark.slow
def test_no_record_makes_a_command_do_so(tmp_path):
    assert attacked(tmp_path, 307, "verbs") == []


SHADOW = "raise SystemExit('a module of the current folder ran')"


@pytest.mark.parametrize("command", [["show", "ckpt_path={good}"], ["list", "mixers"], ["inspect", "{table}"]])
def test_modules_of_the_current_folder_do_not_replace_installed_ones(folder, tmp_path, command):
    for name in ("yaml", "torchaudio", "scipy", "wandb", "apex", "numpy", "torch_xla", "helper"):
        (tmp_path / f"{name}.py").write_text(SHADOW)
    given = [word.format(good=folder / "good.ckpt", table=folder / "series.csv") for word in command]
    # As the installed command does: without the current folder on the path.
    code = "import sys; from quintet.cli import main; sys.exit(main(sys.argv[1:]))"
    script = tmp_path / "bin" / "run.py"
    script.parent.mkdir()
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script), *given], cwd=tmp_path, capture_output=True, text=True)
    assert "ran" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_escape_sequences_of_a_file_are_written_out(here, capsys):
    content = content_of(here)
    content[RECORD]["description"]["units"] = ["\x1b]0;owned\x07"]
    path = sealed(content, here / "escape\x1b[2J.ckpt")
    assert main(["show", f"ckpt_path='{path}'"]) == 0
    said = capsys.readouterr().out
    assert "\x1b]0;" not in said
    assert r"\x1b]0;owned" in said


# What a trained model decides on


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("data.scale=none", "data.scale=none: the model was trained with data.scale=standard"),
        ("data.target=[price]", "data.target=['price']: the model was trained with data.target=None"),
        ("data.period=5", "data.period=5: the model was trained with data.period=None"),
        ("data.horizon=3", "data.horizon=3: this model was trained with data.horizon=6"),
        ("model.backbone=patchtst", "model.backbone=patchtst: the model was trained with model.backbone=itransformer"),
        # The same weights would give the same numbers other names.
        ("model.quantiles=[0.5]", "model.quantiles=[0.5]: the model was trained with model.quantiles=None"),
        ("model.distribution=student_t", "the model was trained with model.distribution=None"),
        ("model.lora_alpha=9", "the model was trained with model.lora_alpha=None"),
    ],
)
@pytest.mark.parametrize("route", [[], ["experiment=timeseries/series"]])
def test_options_that_a_checkpoint_decides_on_are_refused_where_they_differ(here, capsys, option, complaint, route):
    given = ["ckpt_path=good.ckpt", "data.path=series.csv", *route, option]
    given += ["data.context=24", "model.backbone_arguments={dim: 8, depth: 1, num_heads: 1}"] if route else []
    assert main(["validate", *given]) == 1
    assert complaint in capsys.readouterr().err


def test_options_that_say_what_the_checkpoint_does_are_accepted(here):
    given = ["data.scale=standard", "data.horizon=6", "data.batch_size=7", "callbacks.progress=null"]
    assert main(["validate", "ckpt_path=good.ckpt", "data.path=series.csv", *given]) == 0


@pytest.mark.parametrize("route", [[], ["experiment=timeseries/series", "data.context=24", "data.horizon=6"]])
def test_how_attention_is_split_is_the_weights_own(here, capsys, route):
    arguments = "model.backbone_arguments={dim: 8, depth: 1, num_heads: 2}"  # of the same shapes
    assert main(["validate", "ckpt_path=good.ckpt", "data.path=series.csv", arguments, *route]) == 1
    assert "which its checkpoint keeps" in capsys.readouterr().err


def test_part_of_an_option_that_differs_is_refused(here, capsys):
    for heads, code in ((2, 1), (1, 0)):
        given = [f"model.backbone_arguments.num_heads={heads}", "callbacks.progress=null"]
        assert main(["validate", "ckpt_path=good.ckpt", "data.path=series.csv", *given]) == code


@pytest.mark.parametrize("option", ["level=0.5", "threshold=pot", "smoothing=3", "score_by=reconstruction"])
def test_a_threshold_that_is_kept_has_the_options_it_came_from(option):
    name, value = option.split("=")
    task, recorded = AnomalyDetector(), {"class_path": "quintet.timeseries.tasks.anomaly.AnomalyDetector"}
    with pytest.raises(QuintetError, match=f"model.{name}={value}: the model was trained with"):
        refuse_changed({f"model.{name}": value}, AnomalyDetector, recorded, "model")
    kept = {f"model.{name}": task.constructor_arguments.get(name, getattr(task, {"threshold": "rule"}.get(name, name)))}
    refuse_changed(kept, AnomalyDetector, recorded, "model")


SAME = {"dim": 8, "depth": 1, "num_heads": 1}


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ({"backbone_arguments": SAME | {"num_heads": 2}}, {}, "model.backbone_arguments is {'dim': 8, "),
        ({"quantiles": [0.5]}, {}, "model.quantiles is [0.5], but the checkpoint was trained with None"),
        ({}, {"scale": "none"}, "data.scale is none, but the checkpoint was trained with standard"),
    ],
)
@pytest.mark.parametrize("grammar", ["Hydra's", "Lightning's"])
def test_training_goes_on_with_the_options_it_began_with(here, capsys, grammar, model, data, said):
    """Weights of equal shapes do not show it: heads, levels and scales have none of their own."""
    model = {"backbone": "itransformer", "backbone_arguments": SAME} | model
    data = {"path": "series.csv", "context": 24, "horizon": 6} | data
    typed = [f"model.{name}={in_grammar(value)}" for name, value in model.items()]
    typed += [f"data.{name}={in_grammar(value)}" for name, value in data.items()]
    typed = ["experiment=timeseries/series", *typed, "ckpt_path=good.ckpt", "run_dir=resumed"]
    if grammar == "Lightning's":
        classes = {"model": ("quintet.timeseries.Forecaster", model), "data": ("quintet.timeseries.SeriesData", data)}
        nodes = {key: {"class_path": path, "init_args": given} for key, (path, given) in classes.items()}
        Path("given.yaml").write_text(json.dumps(nodes))
        typed = ["--config=given.yaml", "--ckpt_path=good.ckpt", "--run_dir=resumed"]
    assert main(["fit", *typed]) == 1
    assert said in capsys.readouterr().err
    assert not Path("resumed").exists()


def test_a_task_in_plain_python_goes_on_with_its_options_alone(here):
    record = content_of(here)[RECORD]
    other = Forecaster("itransformer", SAME | {"num_heads": 2})
    with pytest.raises(QuintetError, match=r"model\.backbone_arguments is"):
        other.on_load_checkpoint(content_of(here))
    refuse_other(Forecaster("itransformer", SAME, mixer=None), record["task"], "model")


@pytest.mark.parametrize("causal", [False, True])
def test_what_stands_in_a_class_by_default_may_be_written_out(causal):
    described = {"class_path": "quintet.core.attention.Attention", "init_args": {}, "partial": True}
    recorded = {"class_path": "quintet.timeseries.Forecaster", "init_args": {"mixer": described}}
    built = Forecaster(mixer=partial(Attention, causal=causal))
    with pytest.raises(QuintetError, match=r"model\.mixer") if causal else contextlib.nullcontext():
        refuse_other(built, recorded, "model")
