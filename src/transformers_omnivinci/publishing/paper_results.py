"""What the paper reports of OmniVinci: its own rows of tables 3 to 8 (arXiv 2510.15870)."""

from typing import NamedTuple

from huggingface_hub import EvalResult

PAPER_URL = "https://arxiv.org/abs/2510.15870"
METRIC_NAMES = {"accuracy": "Accuracy (%)", "score": "Score (%)", "wer": "Word error rate (%)"}


class Result(NamedTuple):
    """One number of a table: `part` and `split` of a benchmark are named where the table names them."""

    benchmark: str
    value: float
    part: str | None = None
    split: str | None = None


class Table(NamedTuple):
    """
    A table of the paper.

    `task` is a task of the Hub, `metric` a key of `METRIC_NAMES` (`"score"` where each benchmark has its own measure),
    and `decimals` is how many digits are printed.
    """

    number: int
    title: str
    task: str
    metric: str
    decimals: int
    results: tuple[Result, ...]

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
        lines = [
            f"**{self.title}** (table {self.number}), {order} is better",
            "",
            f"| Benchmark | Part | Split | {METRIC_NAMES[self.metric]} |",
            "|---|---|---|---:|",
        ]
        for benchmark, value, part, split in self.results:
            lines.append(f"| {benchmark} | {part or ''} | {split or ''} | {value:.{self.decimals}f} |")
        return "\n".join(lines)


PAPER_RESULTS = (
    Table(
        number=3,
        title="Omni-modal understanding",
        task="any-to-any",
        metric="accuracy",
        decimals=2,
        results=(
            Result("Worldsense", 48.23),
            Result("Dailyomni", 66.50),
            Result("Omnibench", 46.47),
            Result("Omni average", 53.73),
        ),
    ),
    Table(
        number=4,
        title="Audio question answering",
        task="audio-text-to-text",
        metric="accuracy",
        decimals=2,
        results=(Result("MMAR", 58.40),),
    ),
    Table(
        number=5,
        title="Speech recognition",
        task="automatic-speech-recognition",
        metric="wer",
        decimals=1,
        results=(
            Result("LibriSpeech", 1.7, part="clean"),
            Result("LibriSpeech", 3.7, part="other"),
            Result("AMI", 16.1),
            Result("Tedlium", 3.4),
            Result("VoxPopuli", 6.8),
            Result("Speech recognition average", 6.3),
        ),
    ),
    Table(
        number=6,
        title="Audio understanding",
        task="audio-text-to-text",
        metric="accuracy",
        decimals=2,
        results=(
            Result("MMAU", 73.07, part="music", split="test"),
            Result("MMAU", 73.65, part="music", split="test-mini"),
            Result("MMAU", 73.57, part="sound", split="test"),
            Result("MMAU", 78.68, part="sound", split="test-mini"),
            Result("MMAU", 68.17, part="speech", split="test"),
            Result("MMAU", 66.97, part="speech", split="test-mini"),
            Result("MMAU", 71.60, part="average", split="test"),
            Result("MMAU", 73.10, part="average", split="test-mini"),
        ),
    ),
    Table(
        number=7,
        title="Video understanding",
        task="video-text-to-text",
        metric="accuracy",
        decimals=1,
        results=(
            Result("LongVideoBench", 61.3, split="val"),
            Result("LongVideoBench", 62.0, split="test"),
            Result("MVBench", 70.6, split="test"),
            Result("Video-MME", 68.2, part="without subtitles"),
        ),
    ),
    Table(
        number=8,
        title="Image understanding",
        task="image-text-to-text",
        metric="score",
        decimals=1,
        results=(
            Result("AI2D", 91.5, split="test"),
            Result("ChartQA", 84.6, split="test"),
            Result("DocVQA", 91.5, split="test"),
            Result("InfoVQA", 69.0, split="test"),
            Result("MathVista", 63.5, split="testmini"),
            Result("MMMU", 49.7, split="val"),
            Result("MMMU", 44.6, split="test"),
            Result("MMMU", 26.4, part="pro"),
            Result("RealWorldQA", 67.5),
            Result("SEED", 77.1, part="image"),
            Result("TextVQA", 83.9, split="val"),
            Result("VQAv2", 85.4, split="testdev"),
        ),
    ),
)
