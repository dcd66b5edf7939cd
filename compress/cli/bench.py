"""`compress bench`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.cli import boards, options
from compress.cli.main import Verb
from compress.cli.options import DATA, FOLDER, Name, json_option, settings_option
from compress.data import split_name
from edge.core import targets

if TYPE_CHECKING:
    import numpy as np


@click.command(
    cls=Verb,
    examples=[
        "compress bench runs/exported --scenario single-stream,offline,camera --batch 1,8,32 --fps 30,60",
        "compress bench runs/exported runs/exported-float other.onnx --samples 5000 --out runs/timed --json",
        "compress bench runs/exported --scenario camera --load 2 --preprocess nv12:to_rgb",
    ],
)
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True, metavar="EXPORTED|FILE.onnx...")
@click.option("--device", type=Name("device", targets.DEVICES), help="Where they are executed; default cpu.")
@click.option("--batch", metavar="N,N", help="Images a query; several: each is measured, the first is single-stream's.")
@click.option("--warmup", type=int, help="Untimed queries first; default 50.")
@click.option("--threads", type=int, help="Threads of the runtime; 0: all cores.")
@options.latency_options
@click.option("--data", type=DATA, help="Test images of this dataset as queries; default seeded noise.")
@click.option("--seed", type=int, help="Seed of noise and of what is asked again.")
@settings_option("the measurement")
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder for the result and every raw sample.")
@json_option()
def bench(
    artifacts: "tuple[Path, ...]",
    batch: "str | None",
    scenario: "str | None",
    samples: "int | None",
    seconds: "float | None",
    fps: "str | None",
    load: "str | None",
    data: "str | None",
    settings: "tuple[str, ...]",
    out: "Path | None",
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure latency and throughput alone, no attack set needed; several artifacts take turns and are compared.

    Scenarios in the manner of MLPerf, unofficially. Exit 3 when a validity check fires, above all when logits during
    timing differ from those outside it.
    """
    from compress import config
    from compress.cli.stage import parsed_settings
    from edge.bench import run
    from edge.bench.run import bench_lines
    from edge.core.errors import CheckFailed

    timing = {
        **options.latency_settings(scenario, samples, seconds, fps, load),
        **options.batch_settings(batch),
        **flags,
    }
    content = config.merged(
        {key: value for key, value in timing.items() if value is not None}, parsed_settings(settings)
    )
    settled = config.parse(config.BenchConfig, content, "bench").model_dump(mode="json")
    boards.check_device(settled["device"], (), "time it there, `python3 edge.pyz bench` (`compress bundle` writes it)")
    images, shown = _images(data)
    timed = run.run_bench(artifacts, settled, images=images, shown=shown or run.NOISE, out=out)
    click.echo(json.dumps(timed, ensure_ascii=False) if as_json else "\n".join(bench_lines(timed)))
    fired = [
        f"{row['name']}: {alarm['name']}" for row in timed["artifacts"] for alarm in row["alarms"] if alarm["fired"]
    ]
    if fired:
        raise CheckFailed(f"{'; '.join(fired)}; its times are not those of a model that can be trusted")


def _images(data: "str | None") -> "tuple[np.ndarray | None, str | None]":
    """Test images of a dataset, and what they are called."""
    if data is None:
        return None, None
    from compress.data import load_dataset

    return load_dataset(data).part("test")[0], f"test images of {split_name(data)[0]}"
