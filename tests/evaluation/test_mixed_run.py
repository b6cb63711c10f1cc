"""Benchmarks of several kinds in one run, through Lightning."""

import json

import torch

from lightning_llava.callbacks.reports import Reports
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.specs import BenchmarkSpec, GenerationSpec
from runs import make_data, make_module, make_trainer


def benchmarks(world, folder):
    """Two yes/no questions, a question without a published answer, one text, and two turns."""
    images = world / "images"
    lines = (world / "pope/en/demo_pope_random.json").read_text().splitlines()[:2]
    (folder / "pope.json").write_text("\n".join(lines))
    picture = json.loads(lines[0])["image"]
    (folder / "images").mkdir()
    (folder / "images/COCO_val2014_000000000007.jpg").write_bytes((images / picture).read_bytes())
    asked = {"questions": [{"question_id": 1, "image_id": 7, "question": "What is it?"}]}
    (folder / "vqa.json").write_text(json.dumps(asked))
    (folder / "ocr.tsv").write_text(f"{picture}\tдом\n", encoding="utf-8")
    turns = {"question_id": 81, "category": "math", "turns": ["Is it a dog?", "Is it a cat?"]}
    (folder / "talk.jsonl").write_text(json.dumps(turns))

    def spec(kind, split, file, **settings):
        settings = {"images": str(images), **settings}
        return BenchmarkSpec(kind, {split: str(folder / file)}, **settings)

    return {
        "pope": spec("pope", "random", "pope.json"),
        "vqav2": spec("vqav2", "test-dev", "vqa.json", images=str(folder / "images")),
        "ocr": spec("ocr", "test", "ocr.tsv", language="ru"),
        "mt_bench": spec("mt_bench", "all", "talk.jsonl"),
    }


def test_all_kinds_are_asked_scored_and_written(demo_world, tmp_path):
    torch.manual_seed(0)
    module = make_module(demo_world, generation=GenerationSpec(max_new_tokens=3))
    data = make_data(demo_world, benchmarks=benchmarks(demo_world, tmp_path))
    trainer = make_trainer(tmp_path, 1, limit_test_batches=1.0, callbacks=[Reports()])
    (logged,) = trainer.test(module, data, verbose=False)
    (ledger,) = tmp_path.rglob("ledger.jsonl")
    rows = {(row.benchmark, row.split): row for row in read_ledger(ledger)}
    first, second = rows["mt_bench", "all"], rows["mt_bench", "all_turn_2"]
    assert second.prompt.startswith(first.prompt)
    assert second.prompt.index("Is it a cat?") > second.prompt.index(first.raw_answer)
    assert "single word" not in second.prompt
    assert "single word" in rows["vqav2", "test-dev"].prompt
    report = json.loads((ledger.parent / "report.json").read_text())
    assert report["headline"] == {"pope": "f1", "vqav2": "accuracy", "ocr": "accuracy"}
    assert report["scores"]["vqav2"]["test-dev"]["total"] == 1
    assert logged["benchmarks/ocr/test/cer"] == report["scores"]["ocr"]["test"]["cer"]
    (results,) = tmp_path.rglob("vqav2_test-dev_results.json")
    assert [answer["question_id"] for answer in json.loads(results.read_text())] == [1]
    (talk,) = tmp_path.rglob("mt_bench_all_answers.jsonl")
    (choice,) = json.loads(talk.read_text())["choices"]
    assert choice["turns"] == [first.raw_answer, second.raw_answer]
