"""`nat finetune` with NVIDIA's own YAML, against NeMo Microservices on this machine."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import NAT, Command, Done, environment, started
from tests.servers.nemo import NemoService, serving_nemo

pytestmark = pytest.mark.skipif(
    find_spec("nat.plugins.customizer") is not None, reason="NVIDIA's package keeps its own names"
)
TRAINING, VALIDATION = "training/training_file.jsonl", "validation/validation_file.jsonl"
# As NVIDIA's guide to DPO with NeMo Customizer writes it; workflow and dataset are ours, and the polling is faster.
YAML = """
workflow:
  _type: scored_candidates

eval:
  general:
    max_concurrency: 8
    output_dir: .tmp/nat/finetuning/eval
    dataset:
      _type: custom
      function: nat_dpo_pipeline.plugin.datasets.load_rows
      file_path: rows.jsonl

trajectory_builders:
  dpo_builder:
    _type: dpo_traj_builder
    ttc_step_name: dpo_candidate_move
    exhaustive_pairs: true
    min_score_diff: 0.05
    max_pairs_per_turn: 10
    reward_from_score_diff: true
    require_multiple_candidates: true

trainer_adapters:
  nemo_adapter:
    _type: nemo_customizer_trainer_adapter
    entity_host: ${CUSTOMIZER_HOST}
    datastore_host: ${DATASTORE_HOST}
    namespace: my-dpo-project
    dataset_name: dpo-training-data
    dataset_output_dir: .tmp/output/datasets
    customization_config: meta/llama-3.2-1b-instruct@v1.0.0+A100
    create_namespace_if_missing: true
    use_full_message_history: true
    hyperparameters:
      training_type: dpo
      finetuning_type: all_weights
      epochs: 3
      batch_size: 4
      learning_rate: 5e-6
      dpo:
        ref_policy_kl_penalty: 0.1
        preference_loss_weight: 1.0
        preference_average_log_probs: false
        sft_loss_weight: 0.0
    deploy_on_completion: true
    deployment_config:
      image_name: nvcr.io/nim/meta/llama-3.2-1b-instruct
      image_tag: latest
      gpu: 2
    poll_interval_seconds: 0.05
    deployment_timeout_seconds: 1800.0

trainers:
  nemo_trainer:
    _type: nemo_customizer_trainer
    num_runs: 2
    wait_for_completion: true
    deduplicate_pairs: true
    max_pairs: 5000

finetuning:
  enabled: true
  trainer: nemo_trainer
  trajectory_builder: dpo_builder
  trainer_adapter: nemo_adapter
  output_dir: .tmp/nat/finetuning/output
"""


@pytest.fixture
def nemo() -> Iterator[NemoService]:
    with serving_nemo() as service:
        yield service


Start = Callable[[], AbstractContextManager[Command]]


@pytest.fixture
def start(tmp_path: Path, nemo: NemoService) -> Start:
    """Starts the command on ten questions of three candidates each."""
    rows = [
        {"prompt": f"Why {n}?", "candidates": [{"response": f"{n} {score}", "score": score} for score in range(3)]}
        for n in range(10)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "config.yml").write_text(YAML)
    env = environment(CUSTOMIZER_HOST=nemo.url, DATASTORE_HOST=nemo.url)
    return partial(started, tmp_path, NAT, "finetune", "--config_file", "config.yml", env=env)


def _ended(start: Start) -> Done:
    with start() as running:
        return running.end()


def test_pairs_become_a_model_that_is_deployed(nemo: NemoService, start: Start, tmp_path: Path) -> None:
    nemo.statuses = [
        {"status": "created", "percentage_done": None},
        {"status": "running", "percentage_done": 50.0, "train_loss": 0.5},
        {"status": "completed", "percentage_done": 100.0},
    ]
    nemo.deployment_statuses = [{"status": "pending"}, {"status": "ready"}]
    done = _ended(start)
    assert done.code == 0, done.said
    assert "Traceback" not in done.said
    assert "running 50 %" in done.said
    ((repo, _),) = nemo.repos.items()
    assert repo.startswith("my-dpo-project/dpo-training-data-")
    training, validation = (nemo.rows(repo, name) for name in (TRAINING, VALIDATION))
    assert (len(training), len(validation)) == (24, 6)
    assert not {str(row["prompt"]) for row in training} & {str(row["prompt"]) for row in validation}
    (job,) = nemo.jobs.values()
    assert job["hyperparameters"]["epochs"] == 3
    (config,) = nemo.deployment_configs.values()
    assert (config["model"], config["nim_deployment"]["gpu"]) == (job["output_model"], 2)
    assert "deployment my-dpo-project/nat-deployment-cust-1 is ready" in done.said
    metrics = json.loads((tmp_path / ".tmp/nat/finetuning/output/final_metrics.json").read_text())
    assert metrics["status"] == "completed"
    assert len(list((tmp_path / ".tmp/output/datasets").glob("*/training_file.jsonl"))) == 1


def test_a_job_that_fails_fails_the_command_and_says_why(nemo: NemoService, start: Start) -> None:
    logs = [{"updated_at": "1", "message": "training failed", "detail": "CUDA out of memory"}]
    nemo.statuses = [{"status": "running"}, {"status": "failed", "status_logs": logs}]
    done = _ended(start)
    assert done.code != 0
    assert "Traceback" not in done.said
    last = [line for line in done.said.splitlines() if line.strip(" \x1b[0m")][-1]
    assert last.startswith("Error: ")
    assert "training failed: CUDA out of memory" in last


def test_ctrl_c_cancels_the_job(nemo: NemoService, start: Start) -> None:
    nemo.statuses = [{"status": "running"}]
    with start() as running:
        running.wait_until(lambda: nemo.asked("GET", "/status"))
        running.process.send_signal(signal.SIGINT)
        done = running.end()
    assert done.code != 0, done.said
    assert nemo.cancelled == ["cust-1"], done.said
