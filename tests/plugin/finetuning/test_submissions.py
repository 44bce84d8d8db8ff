"""What passes between builder, trainer and adapter is NAT's own collection, with typed rows for those who know them."""

from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.finetuning import DPOItem, Trajectory, TrajectoryCollection

from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.plugin.finetuning.submissions import PairSubmission, by_side, decoded, held_out_prompts
from nat_dpo_pipeline.plugin.finetuning.trainer import by_example, split_by_prompt


def _collection(*prompts: str) -> TrajectoryCollection:
    items = [
        DPOItem(prompt=prompt, chosen_response=f"good {n}", rejected_response="bad") for n, prompt in enumerate(prompts)
    ]
    return TrajectoryCollection(trajectories=[[Trajectory(episode=[one], reward=1.0) for one in items]], run_id="run")


def _submitted(collection: TrajectoryCollection, fraction: float, seed: int) -> PairSubmission:
    pairs = split_by_prompt(decoded(collection), fraction, seed)
    trajectories = by_example(pair.trajectory for pair in pairs)
    return PairSubmission.model_construct(trajectories=trajectories, run_id=collection.run_id, pairs=pairs, seed=seed)


@given(prompts=st.lists(st.sampled_from("abcdef"), min_size=1), fraction=st.floats(0, 0.9), seed=st.integers(0, 9))
def test_an_adapter_reads_the_same_out_of_the_rows_and_out_of_the_trajectories(
    prompts: list[str], fraction: float, seed: int
) -> None:
    submission = _submitted(_collection(*prompts), fraction, seed)
    plain = TrajectoryCollection(trajectories=submission.trajectories, run_id=submission.run_id)
    assert PairSubmission.of(submission) is submission
    again = PairSubmission.of(plain)
    assert [(pair.row, pair.side) for pair in again.pairs] == [(pair.row, pair.side) for pair in submission.pairs]
    assert held_out_prompts(again.pairs, 0.5, 1) == {
        prompt_key(pair.row.prompt) for pair in submission.pairs if pair.side is SplitName.VALIDATION
    }


def test_other_adapters_are_given_what_nat_defines() -> None:
    submission = _submitted(_collection("Why?", "How?"), 0.5, 0)
    assert isinstance(submission, TrajectoryCollection)
    assert submission.model_dump().keys() == TrajectoryCollection.model_fields.keys()


def test_rows_are_shortened_where_they_are_decoded_and_their_trajectories_are_not() -> None:
    (pair,) = PairSubmission.of(_collection("  Why?  "), lambda prompt: str(prompt).strip()).pairs
    (item,) = pair.trajectory.episode
    assert isinstance(item, DPOItem)
    assert (pair.row.prompt, item.prompt) == ("Why?", "  Why?  ")


def test_rows_of_a_side_keep_their_order() -> None:
    rows = [pair.row for pair in decoded(_collection("a", "b", "a", "c"))]
    assert by_side(rows, {prompt_key("a")}) == {
        SplitName.TRAIN: [rows[1], rows[3]],
        SplitName.VALIDATION: [rows[0], rows[2]],
    }
