"""NVIDIA's public example of a DPO workflow, `examples/finetuning/dpo_tic_tac_toe` of NVIDIA/NeMo-Agent-Toolkit.

Its configuration of fine-tuning is loaded as it is. The workflow is one of ours, which emits steps as its
`ttc_move_selector` does: a TTC_START with ids alone; a TTC_END with the conversation, the answer and its score; eight
digits as the UUID of both; the move, the board and the player as metadata. Both players emit. What a model was asked
ends with its own answer, and holds the attempts before it; what chance moves was never asked.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.own_module import install, run_nat
from tests.servers.nemo import NemoService, serving_nemo

pytestmark = pytest.mark.skipif(
    find_spec("nat.plugins.customizer") is not None, reason="NVIDIA's package keeps its own names"
)

# From src/dpo_tic_tac_toe/configs/config.yml, as of June 2026.
# Copyright (c) 2024-2026, NVIDIA CORPORATION & AFFILIATES. SPDX-License-Identifier: Apache-2.0
FINE_TUNING = """
trajectory_builders:
  # DPO trajectory builder that collects preference pairs from scored candidates
  dpo_builder:
    _type: dpo_traj_builder
    # Name of the CUSTOM intermediate step to collect
    custom_step_name: dpo_candidate_move
    # Generate all pairwise comparisons (not just best vs worst)
    exhaustive_pairs: true
    # Minimum score difference to create a pair (filters trivial pairs)
    min_score_diff: 0.01
    # Maximum pairs per turn (None = unlimited)
    max_pairs_per_turn: 5
    # Reward computation
    reward_from_score_diff: true

trainer_adapters:
  nemo_customizer_trainer_adapter:
    _type: nemo_customizer_trainer_adapter
    # Base URL for NeMo Customizer
    entity_host: ${CUSTOMIZER_HOST}
    # Base URL for NeMo MS Datastore
    datastore_host: ${DATASTORE_HOST}
    # Namespace to run training, and store datasets and models
    namespace: nat-dpo-test
    customization_config: meta/llama-3.1-8b-instruct@v1.0.0+A100
    dataset_output_dir: .tmp/output/datasets  # Files saved here
    hyperparameters:
      training_type: dpo
      # Epochs on remote server for training job
      epochs: 5
      batch_size: 8
    use_full_message_history: false
    deploy_on_completion: true
    deployment_config:
      image_name: nvcr.io/nim/meta/llama-3.1-8b-instruct
      image_tag: latest
      gpu: 2
      deployment_name: nat_dpo_tic_tac_toe_model
      description: Fine-tuned agent model by the NeMo Agent Toolkit


trainers:
  nemo_customizer_trainer:
    _type: nemo_customizer_trainer
    num_runs: 1
    continue_on_collection_error: true
    deduplicate_pairs: true
    wait_for_completion: true

# Finetuning configuration (requires a trainer adapter to be implemented)
finetuning:
  enabled: true  # Set to true when trainer adapter is available
  trainer: nemo_customizer_trainer
  trajectory_builder: dpo_builder
  trainer_adapter: nemo_customizer_trainer_adapter
  output_dir: ./.tmp/nat/finetuning/dpo_tic_tac_toe
"""
TRAINED_MODEL = "meta/llama-3.1-8b-instruct@v1.0.0+A100"
WORKFLOW = """
workflow:
  _type: two_players

eval:
  general:
    max_concurrency: 8
    output_dir: .tmp/nat/dpo_tic_tac_toe/eval
    dataset:
      _type: json
      file_path: data.json
"""
_MODULE = """
from uuid import uuid4

from nat.builder.context import Context
from nat.data_models.finetuning import OpenAIMessage
from nat.data_models.intermediate_step import IntermediateStepPayload, IntermediateStepType, TTCEventData
from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function


class TwoPlayersConfig(FunctionBaseConfig, name="two_players"):
    pass


def answer(place: int) -> str:
    return f"<move><row>{place // 3 + 1}</row><col>{place % 3 + 1}</col></move>"


def emit(turn_index: int, player: str, candidates: list[tuple[int, list[OpenAIMessage], float]]) -> None:
    manager = Context.get().intermediate_step_manager
    ids = {"turn_id": f"turn_{turn_index}_{uuid4().hex[:8]}", "turn_index": turn_index}
    for index, (place, messages, score) in enumerate(candidates):
        metadata = {"move_id": f"{ids['turn_id']}_move_{index}"}
        uuid = str(uuid4())[:8]
        started = IntermediateStepPayload(
            event_type=IntermediateStepType.TTC_START,
            name="dpo_candidate_move",
            data=TTCEventData(**ids, candidate_index=index),
            metadata=metadata,
            UUID=uuid,
        )
        ended = IntermediateStepPayload(
            event_type=IntermediateStepType.TTC_END,
            name="dpo_candidate_move",
            data=TTCEventData(**ids, candidate_index=index, input=messages, output=answer(place), score=score),
            metadata={
                **metadata,
                "turn_index": turn_index,
                "candidate_index": index,
                "board_state_before": [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
                "move": {"row": place // 3, "col": place % 3},
                "raw_llm_response": answer(place),
                "is_selected": index == 0,
                "player_symbol": player,
                "player_value": 1 if player == "X" else -1,
            },
            UUID=uuid,
        )
        manager.push_intermediate_step(started)
        manager.push_intermediate_step(ended)


@register_function(config_type=TwoPlayersConfig)
async def two_players(config: TwoPlayersConfig, builder: Builder):
    async def play(game: str) -> str:
        for turn_index in range(4):
            player = "XO"[turn_index % 2]
            board = f"  1 2 3 of {game}, turn {turn_index}"
            asked = [
                OpenAIMessage(role="system", content=f"You are playing as '{player}'."),
                OpenAIMessage(role="user", content=board),
            ]
            if player == "O":
                emit(turn_index, player, [(0, asked, 10.9), (1, asked, 0.5), (1, asked, 0.5)])
                continue

            def with_reply(place: int, *before: OpenAIMessage) -> list[OpenAIMessage]:
                return [*asked, *before, OpenAIMessage(role="assistant", content=answer(place))]

            invalid = OpenAIMessage(role="assistant", content="I resign.")
            again = OpenAIMessage(role="user", content="You made an invalid move. You have 2 attempts left.")
            moves = [(4, with_reply(4), 15.8), (2, with_reply(2), 0.7), (6, with_reply(6, invalid, again), 0.6)]
            emit(turn_index, player, moves)
        return "Win!"

    yield FunctionInfo.from_fn(play)
"""


@pytest.fixture
def nemo(monkeypatch: pytest.MonkeyPatch) -> Iterator[NemoService]:
    with serving_nemo() as service:
        service.configs = (TRAINED_MODEL,)
        monkeypatch.setenv("CUSTOMIZER_HOST", service.url)
        monkeypatch.setenv("DATASTORE_HOST", service.url)
        yield service


@pytest.fixture
def place(tmp_path: Path) -> Path:
    install(tmp_path, "two_players", _MODULE)
    games = [{"id": f"game-{number}", "question": f"game {number}", "answer": "Win!"} for number in range(5)]
    (tmp_path / "data.json").write_text(json.dumps(games))
    return tmp_path


def _rows(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_its_fine_tuning_trains_and_deploys_a_model(place: Path, nemo: NemoService) -> None:
    (place / "config.yml").write_text(WORKFLOW + FINE_TUNING)
    # NVIDIA's example looks at the job every thirty seconds.
    faster = ("-o", "trainer_adapters.nemo_customizer_trainer_adapter.poll_interval_seconds", "0.05")
    told = run_nat(place, "finetune", "--config_file", "config.yml", *faster)
    assert "Traceback" not in told
    assert "custom_step_name" in told  # as it is called ttc_step_name by now
    (job,) = nemo.jobs.values()
    assert (job["config"], job["hyperparameters"]["epochs"]) == (TRAINED_MODEL, 5)
    (repo,) = nemo.repos.values()
    rows = [row for name, content in repo.items() if name.endswith(".jsonl") for row in _rows(content)]
    assert len(rows) == 5 * 4
    # Its YAML keeps the last message of a prompt alone; of NVIDIA's own adapter that was the answer itself.
    assert all("1 2 3 of game" in row["prompt"] for row in rows)
    (deployment,) = nemo.deployments.values()
    assert deployment["name"] == "nat_dpo_tic_tac_toe_model"


def test_with_our_adapter_its_pairs_are_a_dataset(place: Path) -> None:
    config = yaml.safe_load(WORKFLOW + FINE_TUNING)
    (name,) = config["trainer_adapters"]
    config["trainer_adapters"] = {name: {"_type": "dataset_trainer_adapter", "output_dir": "dataset"}}
    (place / "config.yml").write_text(yaml.safe_dump(config))
    told = run_nat(place, "finetune", "--config_file", "config.yml")
    assert "Traceback" not in told
    rows = [row for path in (place / "dataset" / "trl").glob("*.jsonl") for row in _rows(path.read_text())]
    # Of three moves of the model one was asked for twice, so it answers another prompt; two of chance's are the same.
    assert len(rows) == 5 * 4
    for row in rows:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        ((chosen,), (rejected,)) = (row["chosen"], row["rejected"])
        assert chosen["content"] != rejected["content"]
        assert row["chosen_score"] > row["rejected_score"]
