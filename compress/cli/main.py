"""The group of all verbs. Its help is built from this file alone: nothing heavy is imported for it."""

import click

from compress import __version__
from compress.cli.lazy import LazyGroup

VERBS = {
    "demo": "The built-in quickstart, from the teacher to the report.",
    "run": "The whole chain that a config describes; only what is missing or stale is made.",
    "init": "Write a starter config: every key with its default and meaning.",
    "teacher": "Obtain a robust teacher.",
    "distill": "Train a lightweight student from a robust teacher.",
    "quantize": "Quantize a student to INT8, keeping its robustness.",
    "evaluate": "Attack a torch model by an ensemble: worst case, per attack, per class.",
    "analyze": "Robust accuracy against the feature variance gap, over radii and across models.",
    "export": "Write the file that is shipped.",
    "attack": "Make the adversarial images that artifacts are judged by.",
    "verify": "Execute an exported artifact: robustness, agreement, latency.",
    "bench": "Measure latency and throughput alone: single queries, batches, a camera.",
    "bundle": "Write the device side as one file that boards run.",
    "statement": "Read, sign and check the statement of a verified artifact.",
    "inspect": "Say what an artifact holds: contract, every layer's precision and size, lineage.",
    "report": "Write the HTML report of a run or a verified stage.",
    "doctor": "Say what can be built and run here, what does not go together, and its fix.",
    "completion": "Print the completion script of a shell.",
}


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    package="compress.cli",
    invoke_without_command=True,
    examples=["compress demo", "compress run quickstart --out runs/first"],
)
@click.version_option(__version__, message="robust-compress %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Compress an adversarially robust image classifier and verify the robustness of what is shipped.

    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 our fault, 2 the input's fault (one line says
    what), 3 a requirement or check failed, 130 interrupted (the same command resumes).
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
