"""Every command of the README and of CONTRIBUTING runs, shortened to a few steps."""

import re
import shlex
from pathlib import Path

import pytest
import timm
import torch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[str]:
    """Commands of indented blocks, without comments."""
    lines = re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)
    found = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    return [command for command in found if command.startswith(("quintet ", "pip ", "pytest"))]


def test_the_two_commands_stand_as_promised() -> None:
    assert "pip install -e . && quintet fit experiment=vision/digits" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_readme_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 80
    assert (ROOT / "docs" / "digits.png").stat().st_size < 200_000


@pytest.mark.usefixtures("photos", "scenes", "sales", "molecules")
def test_every_command_runs(tmp_path: Path, photos: Path, monkeypatch, capsys) -> None:
    from quintet.cli import main
    from quintet.core.run import run_folder
    from quintet.core.weights import pretrained

    weights = tmp_path / "vit_tiny.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), weights)
    monkeypatch.setattr(pretrained, "download", lambda source: weights)  # there is no network in tests
    monkeypatch.chdir(tmp_path)
    few = ["trainer.max_epochs=1", "callbacks.progress=null"]
    few += [f"trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test")]
    small = ["data.image_size=32", "data.batch_size=4", "data.num_workers=0"]
    for command in commands(README):
        program, *arguments = shlex.split(command)
        if program != "quintet":
            continue
        monkeypatch.delenv(run_folder.RUN_FOLDER, raising=False)
        arguments = [argument.replace("new_photos", str(photos)) for argument in arguments]
        arguments = [
            "data.root=" + str(photos) if argument == "data.root=photos" else argument for argument in arguments
        ]
        if arguments[0] == "fit":
            arguments += few
            few = [*few, "callbacks.pictures=null"] if len(few) == 5 else few  # the first draws them
        if any(argument.startswith("data.root=") for argument in arguments) and arguments[0] == "fit":
            arguments += small
        if arguments[0] == "predict":
            checkpoint = next(tmp_path.glob("runs/vision/folder/*/checkpoints/best.ckpt"))
            arguments[1] = f"ckpt_path={checkpoint}"
        monkeypatch.setattr("sys.argv", ["quintet", *arguments])
        assert main(arguments) == 0, (command, capsys.readouterr().err)
    assert list(tmp_path.glob("runs/vision/folder/*/predictions/*/predictions.csv"))
    assert list(tmp_path.glob("runs/vision/digits/sweep_*/1/summary.json"))


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    from quintet import create_model
    from quintet.core.weights import pretrained

    weights = tmp_path / "vit_tiny.pth"
    reference = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(reference.state_dict(), weights)
    monkeypatch.setattr(pretrained, "download", lambda source: weights)
    (line,) = re.findall(r"^    (model = create_model.*)$", README, flags=re.MULTILINE)
    names: dict = {"create_model": create_model}
    exec(line, names)
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(names["model"].eval()(images), reference(images), rtol=1e-4, atol=1e-5)
