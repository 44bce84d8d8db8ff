"""The work with NVIDIA NeMo Data Designer: a column a response and a column a rating, over a seed of the questions."""

import pandas
from data_designer import config as dd
from data_designer.interface import DataDesigner
from work import Work, timed


def _configured(work: Work) -> dd.DataDesignerConfigBuilder:
    parameters = dd.ChatCompletionInferenceParams(max_parallel_requests=work.concurrency)
    model = dd.ModelConfig(
        alias="bench", model=work.model, provider="local", inference_parameters=parameters, skip_health_check=True
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pandas.DataFrame({"question": work.questions})))
    for number in range(work.responses):
        response = f"response_{number}"
        prompt = work.rating_prompt.replace("{{ response }}", f"{{{{ {response} }}}}")
        builder.add_column(dd.LLMTextColumnConfig(name=response, model_alias="bench", prompt="{{ question }}"))
        builder.add_column(dd.LLMTextColumnConfig(name=f"rating_{number}", model_alias="bench", prompt=prompt))
    return builder


def _generated(work: Work) -> int:
    provider = dd.ModelProvider(name="local", endpoint=work.url, provider_type="openai", api_key="no-key")
    designer = DataDesigner(artifact_path=work.folder, model_providers=[provider])
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None, jinja_rendering_engine="native"))
    rows = designer.create(_configured(work), num_records=len(work.questions)).load_dataset()
    return int(sum(rows[f"rating_{number}"].notna().sum() for number in range(work.responses)))


if __name__ == "__main__":
    timed(_generated)
