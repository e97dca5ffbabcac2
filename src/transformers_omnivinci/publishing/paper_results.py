"""What the paper reports of OmniVinci: its own rows of tables 3 to 8 (arXiv 2510.15870)."""

from typing import NamedTuple

from huggingface_hub import EvalResult

PAPER_URL = "https://arxiv.org/abs/2510.15870"
METRIC_NAMES = {"accuracy": "Accuracy (%)", "score": "Score (%)", "wer": "Word error rate (%)"}
"""`"score"` is for tables in which each benchmark has its own measure."""

# Each table: its number, title, task of the Hub and metric, then rows of benchmark, part, split and value in Markdown.
TABLES = """\
3 | Omni-modal understanding | any-to-any | accuracy
Worldsense |  |  | 48.23
Dailyomni |  |  | 66.50
Omnibench |  |  | 46.47
Omni average |  |  | 53.73

4 | Audio question answering | audio-text-to-text | accuracy
MMAR |  |  | 58.40

5 | Speech recognition | automatic-speech-recognition | wer
LibriSpeech | clean |  | 1.7
LibriSpeech | other |  | 3.7
AMI |  |  | 16.1
Tedlium |  |  | 3.4
VoxPopuli |  |  | 6.8
Speech recognition average |  |  | 6.3

6 | Audio understanding | audio-text-to-text | accuracy
MMAU | music | test | 73.07
MMAU | music | test-mini | 73.65
MMAU | sound | test | 73.57
MMAU | sound | test-mini | 78.68
MMAU | speech | test | 68.17
MMAU | speech | test-mini | 66.97
MMAU | average | test | 71.60
MMAU | average | test-mini | 73.10

7 | Video understanding | video-text-to-text | accuracy
LongVideoBench |  | val | 61.3
LongVideoBench |  | test | 62.0
MVBench |  | test | 70.6
Video-MME | without subtitles |  | 68.2

8 | Image understanding | image-text-to-text | score
AI2D |  | test | 91.5
ChartQA |  | test | 84.6
DocVQA |  | test | 91.5
InfoVQA |  | test | 69.0
MathVista |  | testmini | 63.5
MMMU |  | val | 49.7
MMMU |  | test | 44.6
MMMU | pro |  | 26.4
RealWorldQA |  |  | 67.5
SEED | image |  | 77.1
TextVQA |  | val | 83.9
VQAv2 |  | testdev | 85.4"""


class Result(NamedTuple):
    """One number of a table: `part` and `split` of a benchmark are named where the table names them."""

    benchmark: str
    part: str | None
    split: str | None
    value: float


class Table:
    """A table of the paper, from its text in `TABLES`."""

    def __init__(self, text: str):
        head, *self.rows = text.splitlines()
        number, self.title, self.task, self.metric = head.split(" | ")
        self.number = int(number)
        cells = [row.split(" | ") for row in self.rows]
        self.results = [Result(name, part or None, split or None, float(value)) for name, part, split, value in cells]

    def eval_results(self) -> list[EvalResult]:
        """The table as evaluation results of the Hub. The paper names no data sets of the Hub: types are slugs."""
        return [
            EvalResult(
                task_type=self.task,
                task_name=self.title,
                dataset_type=result.benchmark.lower().replace(" ", "-"),
                dataset_name=" ".join(filter(None, (result.benchmark, result.part))),
                dataset_config=result.part,
                dataset_split=result.split,
                metric_type=self.metric,
                metric_name=METRIC_NAMES[self.metric],
                metric_value=result.value,
                source_name=f"OmniVinci paper, table {self.number}",
                source_url=PAPER_URL,
            )
            for result in self.results
        ]

    def to_markdown(self) -> str:
        """The table as a heading and a Markdown table with one row for each number."""
        order = "lower" if self.metric == "wer" else "higher"
        return "\n".join(
            [
                f"**{self.title}** (table {self.number}), {order} is better\n",
                f"| Benchmark | Part | Split | {METRIC_NAMES[self.metric]} |\n|---|---|---|---:|",
                *(f"| {row} |" for row in self.rows),
            ]
        )


PAPER_RESULTS = [Table(text) for text in TABLES.split("\n\n")]
