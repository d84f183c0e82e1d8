"""Published weights: found, verified, renamed and loaded strictly, with a report of what happened.

A `Source` says where weights are, their sha256 and licence. A `Layout` says how another project names the same tensors;
a network lists the layouts it understands as `layouts`. Files are read with `weights_only=True` or safetensors, so
loading never executes code. Only a head of another size (`head_keys`) is left as initialised, and the report says so.
"""

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from rich.progress import wrap_file
from torch import Tensor, nn

from ..adaptation.lora import merged_state
from ..errors import QuintetError, QuintetWarning, first_line, nearest
from .archives import check_archive, check_pickle, check_safetensors
from .described import from_json
from .finite import not_finite
from .layout import Layout as Layout
from .layout import StateDict as StateDict
from .layout import Terms as Terms
from .layout import of_one_kind
from .network import said
from .safe_classes import safe_classes
from .sealing import check_seal, check_tensors

WEIGHT_FILES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar")
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "model.ckpt")  # of a folder as hubs lay them out


@dataclass(frozen=True)
class Source:
    """Where published weights are: an https address, or `hub:owner/name` with an optional `/file` on the hub.

    Files `beside` it on the hub are fetched into the same folder; `terms` have to be accepted before anything is.
    """

    location: str
    licence: str
    sha256: str | None = None
    note: str = ""
    beside: tuple[str, ...] = ()
    terms: Terms | None = None


@dataclass
class LoadReport:
    """What loading did: every tensor of the file and of the model is accounted for."""

    origin: str
    layout: str = "quintet"
    licence: str = ""
    loaded: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    recast: list[str] = field(default_factory=list)
    head_replaced: list[str] = field(default_factory=list)
    head_dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.origin}: {self.loaded} tensors loaded ({self.layout} layout, {len(self.renamed)} renamed)"
        if self.licence:
            text += f"; licence of the weights: {self.licence}"
        if self.head_replaced:
            text += f"; head of another size left as initialised: {', '.join(self.head_replaced)}"
        if self.head_dropped:
            text += f"; head of the file not needed: {', '.join(self.head_dropped)}"
        return text

    def problems(self) -> str:
        parts = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
            for what, found in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.reshaped),
                ("of another kind of number", self.recast),
            )
            if found
        ]
        return "; ".join(parts)


def stack_projections(state: StateDict, module: str = "mixer") -> StateDict:
    """The `query`, `key` and `value` of each module of that name stacked into its `qkv`, as our attention has them."""
    stacked = {}
    for key, value in state.items():
        part = re.search(rf"\.{module}\.(query|key|value)\.", key)
        if part is None:
            stacked[key] = value
        elif part[1] == "query":
            parts = [state[key.replace(".query.", f".{name}.")] for name in ("query", "key", "value")]
            stacked[key.replace(".query.", ".qkv.")] = torch.cat(parts)
    return stacked


def load_weights(model: nn.Module, path: str | Path, accept_license: bool = False) -> LoadReport:
    """Loads a file of weights into a model, strictly, whatever known layout it is in.

    Raises QuintetError when tensors are missing, unexpected, of another shape or kind of number, NaN or infinite, or a
    restrictive licence is not accepted; the model is then unchanged.
    """
    state = read_state_dict(path)
    own = model.state_dict()
    report = LoadReport(origin=str(path))
    for layout in said(model, "layouts"):
        if layout.matches(state):
            if layout.terms is not None:
                layout.terms.check(path, accept_license)
                report.licence = layout.terms.licence
            before = {id(value): key for key, value in state.items()}
            state = layout.apply(state)
            report.layout = layout.name
            report.renamed = {
                before[id(value)]: key for key, value in state.items() if before.get(id(value), key) != key
            }
            break
    head_keys, optional = said(model, "head_keys"), optional_keys(model)
    report.missing = [key for key in own if key not in state and key not in head_keys and key not in optional]
    report.unexpected = [key for key in state if key not in own and key not in head_keys and key not in optional]
    for key in list(state):
        if key in own and state[key].shape != own[key].shape:
            if key in head_keys:
                report.head_replaced.append(key)
                del state[key]
            else:
                shapes = f"{tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
                report.reshaped.append(f"{key}: {shapes}")
        elif key in own and not of_one_kind(state[key], own[key]):
            report.recast.append(f"{key}: {state[key].dtype} in the file, {own[key].dtype} in the model")
    report.head_dropped = [key for key in state if key in head_keys and key not in own]
    report.head_replaced += [key for key in head_keys if key in own and key not in {*state, *report.head_replaced}]
    if problems := report.problems():
        raise QuintetError(f"{path} does not fit {type(model).__name__}: {problems}")
    state = {key: value for key, value in state.items() if key in own or key in optional}
    if bad := not_finite(state, dict(model.named_parameters())):
        raise QuintetError(
            f"{path} has {len(bad)} tensors that hold NaN or infinity (first: {bad[0]}), with which "
            "no network computes anything; get the file again, or another one"
        )
    model.load_state_dict(state, strict=False)
    report.loaded = len(state)
    return report


def optional_keys(model: nn.Module) -> set[str]:
    """Keys that a state dict of a model may hold or not: what modules call their `optional_buffers`."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in said(module, "optional_buffers")
    }


def read_state_dict(path: str | Path) -> StateDict:
    """Tensors of a `.safetensors` or torch file, unwrapped from the usual containers; executes nothing from the file.

    Raises QuintetError for a missing, damaged or unsafe file.
    """
    content = read_checkpoint(path)
    task = "quintet" in content  # a task's checkpoint, whose network is one part of it
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    inside = [key.startswith("network.") for key in state]  # or all of it, where timm trained one of our models
    if any(inside) if task else all(inside):
        state = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    if not state:
        raise QuintetError(f"{path} holds no tensors; expected a state dict")
    return merged_state(state)


def read_checkpoint(path: str | Path) -> dict:
    """Content of a checkpoint file, read with `weights_only=True` (or safetensors).

    No class that a library has declared safe is made of it, whatever is imported.

    Raises QuintetError for a missing, damaged or unsafe file.
    """
    path = Path(path)
    if not path.is_file():
        raise QuintetError(f"no file {path}; give an existing checkpoint")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            check_safetensors(path)
            with safe_open(path, "pt") as file:
                names, about = file.keys(), file.metadata() or {}
                content = {name: file.get_tensor(name) for name in names}
            # What `quintet export format=safetensors` writes is a checkpoint like those of training.
            if "quintet" in about:
                content = {"state_dict": content, "quintet": from_json(about["quintet"])}
        else:
            check_archive(path)
            check_pickle(path)
            with safe_classes():
                content = torch.load(path, map_location="cpu", weights_only=True)
    except QuintetError:
        raise
    except UnpicklingError as error:
        # torch says so in two quite different cases: the pickle names something unsafe, or it is no pickle at all.
        if unsafe := re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error)):
            raise QuintetError(
                f"{path} was refused: it would run code ({unsafe[1]}) when loaded; "
                "ask its author for a state dict or safetensors"
            ) from None
        raise QuintetError(f"{path} is damaged or not a checkpoint: torch.save did not write it") from None
    except Exception as error:  # zip, safetensors and pickle readers raise a dozen types for a damaged file
        raise QuintetError(f"{path} is damaged or not a checkpoint: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise QuintetError(f"{path} holds a {type(content).__name__}, not a state dict")
    check_tensors(content, path, path.stat().st_size)
    if "quintet" in content and not check_seal(content["quintet"], content.get("state_dict"), path):
        warnings.warn(
            f"{path} has no digest, so damage to it may go unnoticed: it was written by an older quintet",
            QuintetWarning,
            stacklevel=2,
        )
    return content


def load_pretrained(
    model: nn.Module,
    which: bool | str,
    sources: Mapping[str, Source],
    name: str = "",
    accept_license: bool = False,
) -> LoadReport:
    """Loads published weights: `True` the default source, else a tag of `sources`, a local file, or `owner/name`."""
    path = find_weights(which, sources, name, accept_license)
    report = load_weights(model, path, accept_license)
    if source := _source_of(which, sources):
        report.licence = source.licence
    return report


def find_weights(
    which: bool | str, sources: Mapping[str, Source], name: str = "", accept_license: bool = False
) -> Path:
    """Local path of the weights that `which` names, downloaded once and verified.

    Raises QuintetError where nothing is found, and before a download whose terms are not accepted.
    """
    if which is True and not sources:
        raise QuintetError(f"no published weights are known for '{name}'; give a file or a hub id")
    if source := _source_of(which, sources):
        if source.terms is not None:
            source.terms.check(source.location, accept_license)
        return download(source)
    path = Path(str(which)).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        found = [path / file for file in FOLDER_FILES if (path / file).is_file()]
        if found:
            return found[0]
        raise QuintetError(f"folder {path} has no {' or '.join(FOLDER_FILES)}; give the file itself")
    # Hub ids may hold dots (timm/vit_tiny_patch16_224.augreg_in21k), so only endings of weight files tell a file.
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(which)) and path.suffix not in WEIGHT_FILES:
        return download(Source(f"hub:{which}", licence="see its page"))
    raise QuintetError(f"'{which}' is neither a file, a hub id nor a tag of '{name}'; {nearest(str(which), sources)}")


def _source_of(which: bool | str, sources: Mapping[str, Source]) -> Source | None:
    return next(iter(sources.values()), None) if which is True else sources.get(which)


def download(source: Source) -> Path:
    """Fetches a source into the cache (or finds it there), verifies its sha256 and returns the path.

    Raises QuintetError without a network, for an address that is gone and for a checksum that differs.
    """
    if source.location.startswith("hub:"):
        location = source.location.removeprefix("hub:")
        path = _download_from_hub(location)
        for file in source.beside:
            _download_from_hub("/".join([*location.split("/")[:2], file]))
    else:
        path = _download_from_address(source.location)
    if source.sha256 and (found := sha256_of(path)) != source.sha256:
        raise QuintetError(
            f"{path} has sha256 {found[:12]}..., expected {source.sha256[:12]}...; delete it and try again"
        )
    return path


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where downloads are kept: `$QUINTET_CACHE`, by default `~/.cache/quintet`."""
    return Path(os.environ.get("QUINTET_CACHE", Path.home() / ".cache" / "quintet"))


def _download_from_hub(location: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    parts = location.split("/")
    repository, names = "/".join(parts[:2]), ["/".join(parts[2:])]
    if len(parts) == 2:
        names = ["model.safetensors", "pytorch_model.bin"]
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, cache_dir=os.environ.get("QUINTET_CACHE")))
        except LocalEntryNotFoundError as error:  # what the hub says without a network
            raise _unreachable(f"hub:{repository}", error) from None
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise QuintetError(f"hub:{repository} does not exist, or needs a login (hf auth login)") from None
        except Exception as error:  # requests, httpx, hub and OS errors: to the user they are one thing
            raise _unreachable(f"hub:{repository}", error) from None
    try:
        files = HfApi().list_repo_files(repository)
    except Exception as error:
        raise _unreachable(f"hub:{repository}", error) from None
    raise QuintetError(f"hub:{repository} has no file {' or '.join(names)}; {nearest(names[0], files)}")


def _download_from_address(address: str) -> Path:
    path = cache_folder() / "weights" / hashlib.sha256(address.encode()).hexdigest()[:8] / address.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise _unreachable(address, "HF_HUB_OFFLINE=1")
    # Beside the target, then renamed: an interrupted download leaves nothing that looks whole.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(Request(address, headers={"User-Agent": "quintet"}), timeout=60) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with wrap_file(response, size, description=path.name) as reader, partial.open("wb") as file:
                shutil.copyfileobj(reader, file)
        if size and partial.stat().st_size != size:
            raise ConnectionError(f"{partial.stat().st_size} of {size} bytes came")
        os.replace(partial, path)
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise _unreachable(address, error) from None
    except OSError as error:
        raise QuintetError(f"cannot write {path} ({error.strerror or error}); choose another QUINTET_CACHE") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _unreachable(where: str, error: object) -> QuintetError:
    return QuintetError(
        f"cannot reach {where} ({first_line(error)}); fetch the file elsewhere and pass its path as pretrained=FILE"
    )
