"""manifest.json and the card of a dataset in shards, and the result that a manifest tells of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from nat_dpo_pipeline.dataset.card import CARD_NAME, About, CardFacts, WrittenFormat, card_text
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import Format, SplitName, formats_named
from nat_dpo_pipeline.dataset.manifest import GENERATOR, MANIFEST_NAME, Manifest
from nat_dpo_pipeline.pairing.options import PairedFiles
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.stored import restored, stored

_ROWS = "rows_"


def write_card(folder: Place, result: PairedFiles, identity: Mapping[str, Any], about: About) -> None:
    """Write the card of a dataset in shards."""
    configuration = {"trajectory_builder": identity["rules"], "recorded": [one.to_json() for one in result.read]}
    options = identity["options"]
    written = [
        _written(one, result.files, has_calls=result.has_calls) for one in formats_named(tuple(options["formats"]))
    ]
    facts = CardFacts(about, written, result.pairs, configuration, _skipped(result), options["seed"])
    (folder / CARD_NAME).write(card_text(facts).encode(errors="replace"))


def write_manifest(folder: Place, result: PairedFiles, identity: Mapping[str, Any], about: About) -> None:
    """Write the card, and then the manifest, whose presence says that the dataset is whole."""
    write_card(folder, result, identity, about)
    configuration = {
        "trajectory_builder": identity["rules"],
        "recorded": [one.to_json() for one in result.read],
        "scale": identity,
    }
    options = identity["options"]
    manifest = Manifest(
        seed=options["seed"],
        configuration=configuration,
        counts={
            **{f"{side}_pairs": count for side, count in result.pairs.items()},
            "candidates": result.candidates,
            "turns": result.turns,
            "shards": result.shards,
            "bad_rows": result.bad_rows,
        },
        skipped=_skipped(result),
        files=result.files,
        # Without what is elsewhere in the manifest, or is not the same in every run.
        report={"result": replace(result, folder="", manifest="", files=(), resumed=0)},
    )
    (folder / MANIFEST_NAME).write(manifest.to_json())


def _skipped(result: PairedFiles) -> dict[str, Mapping[str, int]]:
    by_format = {f"{_ROWS}{name}": reasons for name, reasons in result.left_out.items()}
    return {"pairs": result.skipped, "candidates": result.refused, **by_format}


def _written(one: Format, files: Sequence[WrittenFile], *, has_calls: bool) -> WrittenFormat:
    """The shards of each side as one file whose path is a pattern."""
    lines = {}
    for side in SplitName:
        shards = [file for file in files if file.path.startswith(f"{one.name}/{side}-")]
        if shards:
            suffix = shards[0].path.rpartition(".")[2]
            rows, size = sum(file.rows for file in shards), sum(file.size for file in shards)
            lines[side] = WrittenFile(f"{one.name}/{side}-*.{suffix}", rows, size, "")
    return WrittenFormat(one, lines, has_calls=has_calls)


def identity_in(folder: Place) -> Mapping[str, Any] | None:
    """What the manifest says that its dataset was made of; None where it is not one of a dataset in shards."""
    try:
        found = orjson.loads((folder / MANIFEST_NAME).read())
        is_ours = found["generator"] == GENERATOR and "result" in found["report"]
        return found["configuration"]["scale"] if is_ours else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def result_in(folder: Place) -> PairedFiles:
    """The result that the manifest in the folder tells of."""
    found = orjson.loads((folder / MANIFEST_NAME).read())
    result = restored(PairedFiles, stored(found["report"]["result"]))
    files = [WrittenFile(**file) for file in found["files"]]
    return replace(result, folder=folder.uri, manifest=(folder / MANIFEST_NAME).uri, files=files, resumed=result.shards)
