"""The door to pairing at this scale. Light: what is heavy is imported when a run starts."""

from collections.abc import Callable, Iterator, Sequence

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.pairing.engines import engine_of
from nat_dpo_pipeline.pairing.options import EngineName, ScaleOptions, ScaleResult

#: Is told the name of a stage, how many of its tasks are done, and how many there are.
Progress = Callable[[str, int, int], None]

_EVERYTHING = SelectionRules()
_DEFAULTS = ScaleOptions()


def _unheard(_stage: str, _done: int, _tasks: int) -> None:
    pass


def pair_files(
    inputs: Sequence[str],
    output: str,
    rules: PairingRules,
    selection: SelectionRules = _EVERYTHING,
    options: ScaleOptions = _DEFAULTS,
    told: Progress = _unheard,
) -> ScaleResult:
    """Pair the candidates in files, and write a dataset in shards: the pairs of `plugin.pairing.write_pairs`, in files
    `<output>/<format>/train-00000.jsonl`, `validation-00000.jsonl` and so on.

    `inputs` are Parquet or JSONL files (compressed or not) or folders of them, `output` a folder, each a path or a URI.
    A run with the same arguments goes on where another one ended. `told` hears how many tasks of a stage are done.
    An evaluation set goes into `options.decontamination`, as its hashes mean nothing to another process.

    Raises InputError, ConfigurationError and OutputError, each with one line for the user.
    """
    if selection.evaluation is not None:
        raise ConfigurationError("at this scale the evaluation set is given as texts: options.decontamination")
    _check_installed(options)
    try:
        with engine_of(options) as engine:
            # Its processes start while this one imports.
            from nat_dpo_pipeline.pairing.run import run_files

            return run_files(list(inputs), output, rules, selection, options, engine, told)
    except OSError as error:
        raise OutputError(f"cannot write the dataset to {output!r}: {error}") from error


def _check_installed(options: ScaleOptions) -> None:
    from importlib.util import find_spec

    extra = "ray" if options.engine is EngineName.RAY else "scale"
    needed = ("msgspec", "numpy", "pyarrow", *(("ray",) if extra == "ray" else ()))
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"this needs {missing[0]}: pip install 'nat-dpo-pipeline[{extra}]'")


def described(result: ScaleResult) -> Iterator[str]:
    """The result in lines for people."""
    pairs = ", ".join(f"{count:,} in {side}" for side, count in result.pairs.items())
    yield f"{result.candidates:,} candidates in {result.turns:,} turns: pairs {pairs}"
    yield f"{len(result.files):,} files of {result.shards:,} shards in {result.folder}"
    for what, counts in (("pairs left out", result.skipped), ("no candidates", result.refused)):
        if counts:
            yield f"{what}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    for name, counts in result.left_out.items():
        yield f"not in {name}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    if result.bad_rows or result.bad:
        yield f"not read: {result.bad_rows:,} rows" + (f", first of them {result.bad[0]}" if result.bad else "")
