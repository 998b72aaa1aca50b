"""A model's card: what it is, what it was trained on and by which selection, and its figures."""

import json
from pathlib import Path

from data_utils import artefact
from eval.comparisons import HARNESS, harness_result
from eval.costs import Made, run_flops
from eval.runs import RESULTS
from reports import markdown
from reports.page import Column, scientific

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [miniplm]
---

# {name}

{what} parameters in fp32, pre-trained with MiniPLM (arXiv 2410.17215).
Opens with AutoModelForCausalLM; `tokenizer.json` is its tokenizer (PreTrainedTokenizerFast).
"""
FACTS = (Column("what", "what"), Column("value", "value"))
LOSSES = (
    Column("corpus", "held-out corpus"),
    Column("loss", "nats per token"),
    Column("bits", "bits per byte"),
    Column("sequences", "sequences"),
)
SET_BY = ("band", "tau", "seed")  # what a criterion may be set by
TASKS = (Column("task", "task"), Column("metric", "metric"), Column("value", "points"))


def card(manifest: artefact.Manifest, base: Path | None) -> str:
    """The card of a trained model; base: the folder whose results/eval has figures of it."""
    parts = [head(manifest), "## Training\n", markdown.table(facts(manifest), FACTS)]
    losses = lm_losses(base, manifest) if base else []
    if losses:
        parts += ["\n## Held-out loss\n", markdown.table(losses, LOSSES)]
    if base and (result := harness_result(base, manifest)):
        parts += ["\n## Zero-shot tasks\n", markdown.table(task_rows(result), TASKS)]
    return "\n".join(parts) + "\n"


def head(manifest: artefact.Manifest) -> str:
    """Metadata for the hub, and what it is in two sentences."""
    config = json.loads((manifest.folder / "config.json").read_text(encoding="utf-8"))
    what = f"{config['architectures'][0]}, {manifest.counts['parameters']:,}"
    return HEAD.format(name="/".join(manifest.folder.parts[-3:]), what=what)


def facts(manifest: artefact.Manifest) -> list[dict]:
    """Steps, tokens, cost, corpus and the models behind it."""
    counts = manifest.counts
    student, teacher = run_flops(manifest.folder, manifest)
    rows = [
        ("objective", manifest.content.get("objective", "language_modelling")),
        ("steps", f"{counts['step']:,}"),
        ("sequences", f"{counts['sequences']:,}"),
        ("tokens", f"{counts['tokens']:,}"),
        ("FLOPs of the student", shown(student)),
        ("FLOPs of teacher and reference", shown(teacher)),
        *corpus_facts(Made(manifest.folder, manifest.fingerprint, manifest).input("corpus")),
    ]
    rows.append(("fingerprint of this model's manifest", manifest.fingerprint))
    return [{"what": what, "value": str(value)} for what, value in rows]


def shown(flops: float | str) -> str:
    return flops if isinstance(flops, str) else scientific(flops)


def corpus_facts(corpus: Made) -> list[tuple[str, object]]:
    """What the corpus was, and where it was selected: criterion, ratio, teacher, reference."""
    rows: list[tuple[str, object]] = [
        ("corpus", corpus.folder.parent.name + "/" + corpus.folder.name),
        ("corpus's fingerprint", corpus.fingerprint),
    ]
    if corpus.manifest is None or "criterion" not in corpus.manifest.content:
        return rows
    content = corpus.manifest.content
    share = f"{content['tokens']:,} tokens" if content["tokens"] else f"alpha {content['ratio']:g}"
    settings = [f"{n} {content[n]}" for n in SET_BY if content.get(n) is not None]
    rows.append(("selected by", ", ".join([content["criterion"], *settings, share])))
    if "scores" not in corpus.manifest.inputs:
        return rows
    scores = corpus.input("scores")
    for role in ("teacher", "reference") if scores.manifest else ():
        store = scores.input(role)
        if store.manifest and "model" in store.manifest.inputs:
            model = store.input("model")
            rows.append((role, f"{model.folder.parent.name}/{model.folder.name}"))
    return rows


def lm_losses(base: Path, manifest: artefact.Manifest) -> list[dict]:
    """The results of scripts/eval/lm.sh that are of this model."""
    rows = []
    for path in sorted((base / RESULTS).glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["model"].get("fingerprint") == manifest.fingerprint:
            bits, (low, high) = result.get("bits_per_byte"), result.get("interval", (0, 0))
            loss = f"{result['loss']:.4f} (95 %: {low:.4f} to {high:.4f})"
            row = {"corpus": result["corpus"]["path"], "loss": loss}
            row |= {"bits": f"{bits:.4f}" if bits else "–", "sequences": f"{result['sequences']:,}"}
            rows.append(row)
    return rows


def task_rows(result: dict) -> list[dict]:
    """The tasks' values and their average."""
    figures = {**result["tasks"], "average": {"metric": "", **result["average"]}}
    return [
        {"task": name, "metric": f["metric"], "value": points(f.get("value"), f.get("stderr"))}
        for name, f in figures.items()
    ]


def points(value: float | None, error: float | None) -> str:
    """In points of 100, with the standard error."""
    if value is None:
        return "–"
    return f"{100 * value:.2f}" + (f" ± {100 * error:.2f}" if error is not None else "")


def eval_results(base: Path, manifest: artefact.Manifest) -> list[dict]:
    """The tasks' values as the hub's .eval_results/*.yaml wants them; empty without results."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    result = harness_result(base, manifest)
    if result is None:
        return []
    theirs = base / HARNESS / f"{result['name']}.lm_eval.json"
    configs = json.loads(theirs.read_text(encoding="utf-8"))["configs"]
    entries = []
    for name, figures in result["tasks"].items():
        data = configs[name]["dataset_path"]
        notes = f"zero-shot, {figures['metric']}, lm-eval {result['settings']['lm_eval']}"
        value = round(100 * figures["value"], 2)
        entries.append(EvalResultEntry(dataset_id=data, task_id=name, value=value, notes=notes))
    return eval_result_entries_to_yaml(entries)
