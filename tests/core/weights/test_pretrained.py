"""Published weights: found, verified, renamed and loaded strictly."""

import os
import pickle
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.weights.pretrained import (
    Layout,
    Source,
    cache_folder,
    download,
    find_weights,
    load_pretrained,
    load_weights,
    read_checkpoint,
    read_state_dict,
    sha256_of,
)


class Net(nn.Module):
    """A body and a head; another project calls the body `stem` and keeps a counter."""

    head_keys = ("head.weight", "head.bias")
    layouts = (Layout("elsewhere", r"^stem\.", ((r"^stem\.", "body."), (r"^counter$", ""))),)

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        if num_classes:
            self.head = nn.Linear(5, num_classes)


def write(state, path):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.fixture(params=["weights.pth", "weights.safetensors"])
def path(request, tmp_path):
    return tmp_path / request.param


def values(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# Loading


def test_all_tensors_are_loaded_and_counted(path):
    source, target = Net(), Net()
    report = load_weights(target, write(source.state_dict(), path))
    assert same(values(source), values(target))
    assert (report.loaded, report.layout, report.renamed) == (9, "quintet", {})
    assert str(report) == f"{path}: 9 tensors loaded (quintet layout, 0 renamed)"


def test_another_project_s_names_are_translated_and_reported(path):
    source, target = Net(), Net()
    state = {key.replace("body.", "stem."): value for key, value in source.state_dict().items()}
    report = load_weights(target, write(state | {"counter": torch.zeros(1)}, path))
    assert same(values(source), values(target))
    assert report.layout == "elsewhere"
    assert report.renamed == {"stem.weight": "body.weight", "stem.bias": "body.bias"}


def test_a_layout_may_convert_tensors(path, monkeypatch):
    layout = Layout("fused", r"^stem$", (), lambda state: {"body.weight": state.pop("stem")[:, :4]} | state)
    monkeypatch.setattr(Net, "layouts", (layout,))
    source, target = Net(), Net()
    state = source.state_dict()
    state["stem"] = torch.cat([state.pop("body.weight"), torch.zeros(5, 2)], dim=1)
    load_weights(target, write(state, path))
    assert same(values(source), values(target))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("body.bias"), r"1 missing \(body.bias\)"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (
            lambda state: state.update({"body.weight": torch.zeros(5, 3)}),
            r"1 of another shape \(body.weight: \(5, 3\) in the file, \(5, 4\) in the model\)",
        ),
        (
            lambda state: state.update({"body.weight": torch.ones(5, 4, dtype=torch.bool)}),
            r"1 of another kind of number \(body.weight: torch.bool in the file, torch.float32 in the model\)",
        ),
        (lambda state: state.update({"body.bias": torch.zeros(5, dtype=torch.complex64)}), "of another kind of number"),
        (lambda state: state.update({f"extra{n}": torch.zeros(1) for n in range(4)}), r"4 unexpected \(.*, \.\.\.\)"),
        (lambda state: [state.pop("body.bias"), state.update(b=torch.zeros(1))], "1 missing .*; 1 unexpected"),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_as_it_was(path, change, complaint):
    state, target = Net().state_dict(), Net()
    before = values(target)
    change(state)
    with pytest.raises(QuintetError, match=complaint) as caught:
        load_weights(target, write(state, path))
    assert "does not fit Net" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(before, values(target))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_leave_the_model_as_it_was(path, value):
    state, target = Net().state_dict(), Net()
    before = values(target)
    state["body.weight"] = state["body.weight"].clone()
    state["body.weight"][1, 2] = value
    with pytest.raises(QuintetError, match=r"has 1 tensors that hold NaN or infinity \(first: body.weight\)"):
        load_weights(target, write(state, path))
    assert same(before, values(target))


def test_only_a_head_of_another_size_is_left_and_that_is_said(path):
    source, target = Net(7), Net(3)
    head = target.head.weight.clone()
    report = load_weights(target, write(source.state_dict(), path))
    assert torch.equal(target.body.weight, source.body.weight)
    assert torch.equal(target.head.weight, head)
    assert sorted(report.head_replaced) == ["head.bias", "head.weight"]
    assert "head of another size left as initialised: head." in str(report)


def test_a_head_that_the_file_or_the_model_lacks_is_said(path):
    report = load_weights(Net(3), write(Net(0).state_dict(), path))
    assert sorted(report.head_replaced) == ["head.bias", "head.weight"]
    report = load_weights(Net(0), write(Net(3).state_dict(), path))
    assert report.loaded == 7
    assert sorted(report.head_dropped) == ["head.bias", "head.weight"]
    assert "head of the file not needed: head." in str(report)


def test_other_precisions_are_converted(path):
    source, target = Net().half(), Net()
    load_weights(target, write(source.state_dict(), path))
    assert target.body.weight.dtype == torch.float32
    assert torch.equal(target.body.weight, source.body.weight.float())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", "state_dict_ema"])
def test_the_usual_containers_are_opened(tmp_path, wrapper):
    source = Net()
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "file.pth")
    assert same(read_state_dict(tmp_path / "file.pth"), dict(source.state_dict()))


def test_averaged_weights_are_preferred(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "file.pth")
    assert read_state_dict(tmp_path / "file.pth")["a"] == 1


# Files that are damaged or dangerous


class Payload:
    """What a malicious pickle holds: on unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, pickled])
@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: {"state_dict": {"a": payload}}])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, save, wrap):
    save(wrap(Payload(tmp_path / "ran")), tmp_path / "file.pth")
    with pytest.raises(QuintetError, match=r"would run code \((posix|nt)\.mkdir\)") as caught:
        read_checkpoint(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_torch_did_not_write_is_not_run_either(tmp_path):
    (tmp_path / "file.pth").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=4))
    with pytest.raises(QuintetError, match=r"is damaged or not a checkpoint: torch.save did not write it"):
        read_checkpoint(tmp_path / "file.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(Net(), tmp_path / "file.pth")
    with pytest.raises(QuintetError, match=r"would run code .*Net\)"):
        read_checkpoint(tmp_path / "file.pth")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.98])
def test_a_truncated_file_is_called_damaged(path, keep):
    content = write(Net().state_dict(), path).read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(QuintetError, match="is damaged or not a checkpoint") as caught:
        load_weights(Net(), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x00" * 300, b"PK\x03\x04" + b"x" * 300])
def test_another_kind_of_file_is_called_so(path, content):
    path.write_bytes(content)
    with pytest.raises(QuintetError, match="is damaged or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [([torch.zeros(1)], "holds a list"), (torch.zeros(1), "holds a Tensor"), ({"epoch": 1}, "holds no tensors")],
)
def test_a_file_without_a_state_dict_is_called_so(tmp_path, content, complaint):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(QuintetError, match=complaint):
        read_state_dict(tmp_path / "file.pth")


def test_a_missing_file_and_a_folder_are_called_so(tmp_path):
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(QuintetError, match=f"no file {path}"):
            read_checkpoint(path)


def test_numpy_values_in_a_file_are_not_mistaken_for_tensors(tmp_path):
    torch.save({"a": np.zeros(2)}, tmp_path / "file.pth")
    with pytest.raises(QuintetError, match="refused"):
        read_state_dict(tmp_path / "file.pth")


# Finding


def test_a_file_a_tag_and_the_default_are_found(tmp_path, monkeypatch):
    path = write(Net().state_dict(), tmp_path / "a b.pth")
    asked = []
    monkeypatch.setattr("quintet.core.weights.pretrained.download", lambda source: asked.append(source) or path)
    sources = {"first": Source("hub:a/b", "MIT"), "second": Source("hub:c/d.e", "MIT")}
    assert find_weights(str(path), sources) == path
    assert find_weights(True, sources) == path
    assert find_weights("second", sources) == path
    assert find_weights("timm/vit_tiny_patch16_224.augreg_in21k", sources) == path
    locations = [source.location for source in asked]
    assert locations == ["hub:a/b", "hub:c/d.e", "hub:timm/vit_tiny_patch16_224.augreg_in21k"]


@pytest.mark.parametrize("which", ["weights.pth", "folder/weights.pth", "folder/weights.safetensors", "a/b/c", "secnd"])
def test_what_is_neither_file_nor_tag_nor_hub_id_is_said(which):
    with pytest.raises(QuintetError, match=f"'{which}' is neither a file, a hub id nor a tag of 'small'"):
        find_weights(which, {"second": Source("hub:a/b", "MIT")}, "small")


def test_a_misspelt_tag_is_answered_with_the_nearest():
    with pytest.raises(QuintetError, match="nearest: second"):
        find_weights("secnd", {"second": Source("hub:a/b", "MIT")}, "small")


def test_no_published_weights_is_said():
    with pytest.raises(QuintetError, match="no published weights are known for 'small'; give a file or a hub id"):
        load_pretrained(Net(), True, {}, "small")


# Downloading: a server on this machine, and no network at all


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return tmp_path / "cache"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, content, *arguments):
        self.content = content
        super().__init__(*arguments)

    def do_GET(self):
        if "gone" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + (100 if "cut" in self.path else 0)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    content = write(Net().state_dict(), tmp_path / "served.pth").read_bytes()
    with HTTPServer(("127.0.0.1", 0), partial(Handler, content)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_verified_and_kept(cache, server, tmp_path, monkeypatch):
    source = Source(f"{server}/net.pth", "MIT", sha256_of(tmp_path / "served.pth"))
    path = download(source)
    assert path.read_bytes() == (tmp_path / "served.pth").read_bytes()
    assert path.is_relative_to(cache)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the second time nothing is fetched
    assert download(source) == path


def test_a_wrong_checksum_is_refused(cache, server):
    with pytest.raises(QuintetError, match=r"has sha256 \w{12}\.\.\., expected 000000000000\.\.\.; delete it"):
        load_pretrained(Net(), "tag", {"tag": Source(f"{server}/net.pth", "MIT", "0" * 64)})


@pytest.mark.parametrize("name", ["gone.pth", "cut.pth"])
def test_a_file_that_is_gone_or_cut_short_leaves_nothing(cache, server, name):
    with pytest.raises(QuintetError, match=r"cannot reach http://.*; fetch the file elsewhere and pass its path"):
        download(Source(f"{server}/{name}", "MIT"))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_address_that_does_not_answer_asks_for_a_file(cache):
    with pytest.raises(QuintetError, match="fetch the file elsewhere and pass its path as pretrained=FILE") as caught:
        download(Source("http://127.0.0.1:9/net.pth", "MIT"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["hub:someone/something", "hub:someone/x/net.pth", "https://example.org/net.pth"])
def test_offline_asks_for_a_file(cache, monkeypatch, location):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(QuintetError, match=r"cannot reach .* pass its path as pretrained=FILE") as caught:
        download(Source(location, "MIT"))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_not_called_a_missing_network(cache, server, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(QuintetError, match=r"cannot write .* \(No space left on device\); choose another QUINTET"):
        download(Source(f"{server}/net.pth", "MIT"))


def error_of(kind):
    """An error of the hub's client without the answer that its constructor asks for."""
    return kind.__new__(kind)


def test_the_hub_s_answers_are_told_apart(cache, monkeypatch, tmp_path):
    def hub(repository, name, cache_dir):
        if repository == "a/missing":
            raise error_of(RepositoryNotFoundError)
        if repository == "a/broken":
            raise ConnectionError("refused")
        if name == "model.safetensors":
            raise error_of(EntryNotFoundError)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repository: ["net.bin", "README.md"])
    assert download(Source("hub:a/b", "MIT")).name == "pytorch_model.bin"
    with pytest.raises(QuintetError, match="hub:a/missing does not exist, or needs a login"):
        download(Source("hub:a/missing", "MIT"))
    with pytest.raises(QuintetError, match=r"cannot reach hub:a/broken \(refused\)"):
        download(Source("hub:a/broken", "MIT"))
    with pytest.raises(QuintetError, match=r"hub:a/b has no file model.safetensors; "):
        download(Source("hub:a/b/model.safetensors", "MIT"))


def test_the_cache_is_where_the_environment_says(cache, monkeypatch):
    assert cache_folder() == cache
    monkeypatch.delenv("QUINTET_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "quintet")
