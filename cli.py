"""The command `quintet`: Hydra composes, the Lightning CLI types and runs.

    quintet fit|validate|test|predict [group=choice] [key.path=value] ...
    quintet fit -m model.lr=1e-3,3e-4
    quintet fit --config runs/.../config.yaml --trainer.max_epochs 5
    quintet list [models|mixers|experiments|data] [pattern]
    quintet pull NAME [FILE]
    quintet inspect PATH [data.key=value] ... [output=FOLDER]
    quintet embed experiment=vision/features data.root=FOLDER [model.backbone=NAME] | ckpt_path=FILE data.root=FOLDER
    quintet show ckpt_path=FILE
    quintet export ckpt_path=FILE format=onnx|torch_export|safetensors [output=FILE] [trust=PACKAGE]
    quintet bench kernels [operation ...] [dtype=bfloat16] [compile=false] [output=FOLDER]

More of each: quintet VERB --help. Errors are one or two lines; QUINTET_DEBUG=1 shows the traceback.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

VERBS = ("fit", "validate", "test", "predict")  # predict is the command every task has


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Spinning OpenMP threads starve each other on small machines; it must be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    if arguments[0] == "--version":
        from . import __version__

        print(f"quintet {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    _write_what_can_be_written()
    _note_warnings()
    try:
        if "-h" in rest or "--help" in rest:
            from .core.run.help import help_of

            print(help_of(verb, _take_option(rest, "--config-dir")[0]))
            return 0
        return _commands(verb, rest)(rest) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("QUINTET_DEBUG") == "1":
            raise
        from .core.errors import one_line
        from .core.writing.console import printable

        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 1


def _write_what_can_be_written() -> None:
    """Lets question marks stand for what a terminal that knows ASCII alone cannot show; no run ends by it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def _note_warnings() -> None:
    """Prints what quintet itself warns of as one note, without the place in its code."""
    import warnings

    from .core.errors import QuintetWarning
    from .core.writing.console import printable

    others = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, QuintetWarning):
            print(f"note: {printable(str(message))}", file=sys.stderr)
        else:
            others(message, category, *place, **more)

    warnings.showwarning = show
    # What PyG calls as it is imported is for its developers to change.
    warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated")


def _commands(verb: str, rest: Sequence[str]) -> Any:
    """What runs a verb: a command of this file, or one of the task that a checkpoint holds."""
    from difflib import get_close_matches

    from .core.errors import QuintetError, nearest

    commands = {name: (lambda rest, name=name: run(name, rest)) for name in VERBS}
    commands |= {"list": list_names, "pull": pull, "inspect": inspect_data, "bench": bench}
    commands |= {"show": show, "export": export}
    if verb in commands:
        return commands[verb]
    # What looks like a misspelt command is not looked for in an experiment, which may have mistakes of its own.
    known = ("ckpt_path=",) if get_close_matches(verb, commands, 1, 0.8) else ("ckpt_path=", "experiment=", "model=")
    if any(argument.startswith(known) for argument in rest):
        return lambda arguments: run(verb, arguments)
    raise QuintetError(
        f"no command is called '{verb}'; {nearest(verb, commands)} (a trained task's own need ckpt_path=...)"
    )


# fit, validate, test, predict


def run(verb: str, arguments: list[str]) -> int:
    """Composes and runs one verb of the Lightning CLI, or a sweep of it."""
    config_dir, arguments = _take_option(arguments, "--config-dir")
    if "-m" in arguments or "--multirun" in arguments:
        from .core.run.sweep import sweep

        return sweep(verb, [argument for argument in arguments if argument not in ("-m", "--multirun")], config_dir)
    if any(argument.startswith("--") and argument != "--cfg" for argument in arguments):
        from .core.errors import QuintetError
        from .core.run.own_code import let_in_own_code
        from .core.run.runner import Runner
        from .core.run.yaml_files import check_configurations

        if config_dir:
            raise QuintetError("--config-dir goes with options given as key=value, not with --config and --key value")
        check_configurations(arguments)
        let_in_own_code([*arguments, *_configurations(arguments)])
        Runner(arguments=[verb, *arguments])
        return 0
    from .core.run.runner import run_composed

    run_composed(verb, [item for item in arguments if item != "--cfg"], config_dir, show="--cfg" in arguments)
    return 0


def _configurations(arguments: list[str]) -> Iterator[str]:
    """Text of the files that `--config` names; what cannot be read is complained of by the parser."""
    for before, argument in zip(["", *arguments], arguments):
        path = argument.split("=", 1)[1] if argument.startswith("--config=") else argument
        if (before == "--config" or path != argument) and Path(path).is_file():
            yield Path(path).read_text(encoding="utf-8", errors="replace")


def _take_option(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name VALUE` or `--name=VALUE`, and the arguments without it."""
    from .core.errors import QuintetError

    for index, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1], arguments[:index] + arguments[index + 1 :]
        if argument == name:
            if index + 1 == len(arguments):
                raise QuintetError(f"{name} takes a folder: {name} FOLDER")
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
    return None, arguments


# list, pull, inspect, show, export


def list_names(arguments: list[str]) -> None:
    """Prints the models, mixers, experiments or data modules whose names match a pattern."""
    from fnmatch import fnmatch

    from rich.table import Table

    from .core.errors import QuintetError, nearest
    from .core.writing.console import Console

    config_dir, arguments = _take_option(arguments, "--config-dir")
    kinds = ("models", "mixers", "experiments", "data")
    kind, pattern = (arguments[:1] or ["models"])[0], (arguments[1:] or ["*"])[0]
    if kind not in kinds:
        raise QuintetError(f"nothing to list is called '{kind}'; {nearest(kind, kinds)}")
    table = Table(title=f"{kind} matching {pattern}" if pattern != "*" else kind)
    if kind == "models":
        from .core.catalogue import ModelRow, listed_models

        for column in ModelRow._fields:
            table.add_column(column, justify="right" if column == "parameters" else "left")
        for row in listed_models(pattern):
            table.add_row(*row._replace(pretrained=row.pretrained.replace(" ", "\n")))
    elif kind == "mixers":
        from .core.catalogue import MixerRow, listed_mixers

        for column in MixerRow._fields[:-1]:
            table.add_column(column)
        for row in listed_mixers(pattern):
            table.add_row(*row[:-1])
        table.caption = "of n tokens; model/mixer=NAME puts one in"
    else:
        from .core.run import composition

        group = {"experiments": "experiment", "data": "data"}[kind]
        for column in ("name", "what"):
            table.add_column(column)
        for name in composition.config_names(group, config_dir):
            if fnmatch(name, pattern):
                table.add_row(name, composition.config_summary(group, name, config_dir))
    if table.row_count:
        Console(markup=False).print(table)
    else:
        print(f"no {kind} match '{pattern}'")


def pull(arguments: list[str]) -> None:
    """Downloads (or reads) a model's weights, loads them strictly, says what was loaded and under which licence."""
    from shlex import quote

    from .core.errors import QuintetError
    from .core.weights.network import said
    from .core.weights.pretrained import find_weights, load_weights
    from .core.weights.registry import model_entry, stored_arguments
    from .core.writing.console import Console

    terms = "accept_license=true"
    names = [word for word in arguments if word != terms]
    if not 1 <= len(names) <= 2:
        raise QuintetError(f"quintet pull NAME [TAG|FILE|HUB-ID] [{terms}]; names: quintet list models")
    entry, accepted = model_entry(names[0]), terms in arguments
    which = names[1] if len(names) == 2 else True
    source = entry.pretrained.get(which, None) if which is not True else next(iter(entry.pretrained.values()), None)
    path = find_weights(which, entry.pretrained, entry.name, accepted)
    network = entry.build(**stored_arguments(entry.build, str(path), {}, entry.name, accepted))
    report = load_weights(network, path, accepted)
    console = Console(soft_wrap=True, markup=False)
    console.print(str(report), highlight=False)
    if source:
        console.print(f"licence: {source.licence}{'; ' + source.note if source.note else ''}")
    words = [said(network, "finetune") or "experiment=NAME", f"model.backbone={entry.name}"]
    # A file's name may hold what a shell would run.
    words += [quote(f"model.pretrained={'true' if which is True else which}")]
    words += [f"model.{terms}"] if accepted else []
    console.print(f"next: quintet fit {' '.join(words)}", highlight=False)


def inspect_data(arguments: list[str]) -> int:
    """Prints what is understood of the user's data and every fault found in it; exit status 1 where there is one.

    Pictures of the data go to the folder that `output` names, or to a new one below inspect/.
    """
    from rich.table import Table

    from .core.errors import QuintetError
    from .core.run.inspection import build_data
    from .core.writing.console import Console

    config_dir, arguments = _take_option(arguments, "--config-dir")
    if not arguments or "=" in arguments[0]:
        raise QuintetError(
            "quintet inspect PATH [data=GROUP] [data.key=value] [output=FOLDER]; the path is a folder or file of yours"
        )
    given = [argument.removeprefix("output=") for argument in arguments if argument.startswith("output=")]
    data = build_data(arguments[0], [item for item in arguments[1:] if not item.startswith("output=")], config_dir)
    console = Console(markup=False)
    faults = data.faults()
    if faults:
        table = Table(title=f"{len(faults)} faults", title_style="bold red")
        for column in ("where", "what", "remedy"):
            table.add_column(column, overflow="fold")
        for fault in faults:
            table.add_row(fault.where, fault.what, fault.remedy)
        console.print(table)
    else:
        data.setup("fit")
    console.print(data.table())
    for picture in _written(data.pictures(), Path(given[-1]) if given else None, Path(arguments[0])):
        console.print(f"wrote {picture}", highlight=False)
    if not faults:
        console.print("no faults found")
    return 1 if faults else 0


def _written(pictures: Iterable[tuple[str, Any]], folder: Path | None, source: Path) -> Iterator[Path]:
    """Saves figures into a folder, by default a new one named after the data; overwrites nothing."""
    from itertools import chain, count

    from .core.writing.files import refuse_existing, written_whole

    for name, figure in pictures:
        if folder is None:
            stem = source.resolve().stem or "data"
            names = chain([stem], (f"{stem}_{number}" for number in count(2)))
            folder = next(place for place in (Path("inspect") / name for name in names) if not place.exists())
        path = folder / f"{name}.png"
        refuse_existing(path, "output=FOLDER")
        with written_whole(path, remedy="give another output=FOLDER") as partial:
            figure.savefig(partial, dpi=120)
        yield path


def show(arguments: list[str]) -> None:
    """Prints what a checkpoint says of itself."""
    from .core.errors import QuintetError
    from .core.run.show import show_checkpoint
    from .core.writing.console import Console

    path, _, options = _of_checkpoint("show", arguments)
    if options:
        raise QuintetError(f"show takes ckpt_path=FILE alone, not {next(iter(options))}")
    Console(markup=False).print(show_checkpoint(path))


def export(arguments: list[str]) -> None:
    """Writes the task of a checkpoint as one file that other programs run, and says how it was verified."""
    from .core.run.export import export_checkpoint
    from .core.writing.console import Console

    path, trusted, options = _of_checkpoint("export", arguments)
    console = Console(soft_wrap=True, markup=False)
    for line in export_checkpoint(path, options, trusted):
        console.print(line, highlight=False)


def _of_checkpoint(verb: str, arguments: list[str]) -> tuple[Path, list[str], dict[str, Any]]:
    """What a command on a checkpoint alone was given: its path, the trusted packages, and the other options."""
    from .core.errors import QuintetError
    from .core.run.configuration import find_checkpoint
    from .core.run.overrides import value_of
    from .core.run.own_code import let_in_own_code
    from .core.run.run_options import packages

    options = {}
    for argument in arguments:
        key = argument.split("=", 1)[0]
        if "=" not in argument or not key.isidentifier():
            raise QuintetError(
                f"quintet {verb} does not understand '{argument}'; it takes ckpt_path=FILE and key=value"
            )
        options[key] = value_of(argument)
    given, name, trusted = (options.pop(key, None) for key in ("ckpt_path", "name", "trust"))
    if not given:
        raise QuintetError(f"{verb} needs a checkpoint: add ckpt_path=runs/.../checkpoints/best.ckpt")
    trusted = packages(trusted)
    let_in_own_code([], trusted)
    return find_checkpoint(str(given), name or "run"), trusted, options


def bench(arguments: list[str]) -> None:
    """Times the kernels' operations against their floor, their reference, the compiler and installed peers."""
    from jsonargparse import ArgumentParser

    from .core.bench.operations import bench_kernels
    from .core.errors import QuintetError
    from .core.run.composition import check_arguments, split_options

    if not arguments or arguments[0] != "kernels":
        raise QuintetError("quintet bench kernels [operation ...] [dtype=bfloat16] [compile=false] [output=FOLDER]")
    operations, options = split_options(arguments[1:])
    check_arguments(bench_kernels, options, "bench")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(bench_kernels, skip={"operations"})
    bench_kernels(operations, **parser.parse_object(options).as_dict())


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # as in __main__.py
    sys.exit(main())
