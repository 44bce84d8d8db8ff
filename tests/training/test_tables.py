"""TRL's DPOTrainer trains on the DatasetDict that rows become in Python. Runs where trl is: `make training`."""

from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

import nat_dpo_pipeline as dpo
from nat_dpo_pipeline.trainers.trl.tiny import make_tiny_model


def test_trl_trains_on_the_pairs_of_a_table(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Is {number} even?",
            "response": text,
            "score": float(text == ("Yes." if number % 2 == 0 else "No.")),
        }
        for number in range(40)
        for text in ("Yes.", "No.")
    ]
    dataset = dpo.pair(rows, validation_fraction=0.2).to_datasets()
    make_tiny_model(
        tmp_path / "model", dataset["train"].select_columns(["prompt", "chosen", "rejected"]).to_list(), 5, lambda: None
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    before = model.get_input_embeddings().weight.detach().clone()
    trainer = DPOTrainer(
        model,
        args=DPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=dataset["train"],
        eval_dataset=dataset["validation"],
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))
    assert not torch.equal(before, model.get_input_embeddings().weight)
    assert "eval_rewards/margins" in trainer.evaluate()
