"""
The last stage of nano's training: practice of everything, on clips that are rendered while it trains.

Processes render clips of the synthetic world and prepare batches of them; the model trains on each new batch, and on
those that it has had already while no new one is ready. Every clip is one sequence in which all of its questions share
the media: questions of all types, about what is not there too, its caption, chats of several turns, and questions
behind unrolled contexts. Some clips are shown without their sound, and of some the sound is heard alone.

    python -m benchmarks.nano_practice RUN DIR --clips 60000 --batch-size 16 --log-seconds 900
    python -m benchmarks.nano_practice RUN DIR --seconds 300 --batch-size 64 --num-workers 14 --device cuda

The learning rate rises for 2% of the way and then falls to zero: by the clips that were trained on, or by the clock.
"""

import argparse
import copy
import json
import queue
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.nano import MAX_AUDIO_POSITIONS
from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.media import LoadedVideo, OmniVinciVideoMetadata
from transformers_omnivinci.planning import sample_at_fps, sample_uniformly
from transformers_omnivinci.reasoning.contexts import HEAR, PROMPTS, SEE, TIMELINE, ask_with
from transformers_omnivinci.synthetic import CLOSED_TYPES, Question, SyntheticDataset, WorldConfig, write_clip
from transformers_omnivinci.synthetic.rendering import draw_frames, synthesise
from transformers_omnivinci.synthetic.unrolled import contexts_of
from transformers_omnivinci.training.muon import MuonWithAdamW

WORLDS = ((0.75, WorldConfig()), (0.25, WorldConfig(clip_seconds=(9.0, 12.0))))
"""Worlds and their shares: long clips, in which most goes wrong, more often than they are among all."""
TYPES = (*CLOSED_TYPES, "matching", "caption", "absent")
FIRST = tuple(({"time": 3.0, "counting": 2.0}.get(type, 0.6), type) for type in TYPES)
"""The type of the first question of a clip, whose answers are balanced, and how often."""
WEIGHTS = {"matching": 0.3, "caption": 0.4, SEE: 0.3, HEAR: 0.3, TIMELINE: 0.3}
"""How much a token of an answer counts in the loss, if not 1: long answers would outweigh the short ones."""
NUM_CHATS, MAX_TURNS = 2, 4
VIEWS = ((0.84, "whole"), (0.08, "silent"), (0.08, "sound"))
"""What is shown of a clip, and how often."""
SEEN = ("visual", "shape_start", "count_of_shapes", "motion", "colour_of_form", "form_of_colour")
HEARD = ("audio", "sound_start", "count_of_sounds", "count_of_one_sound", "sound_after_sound", "sound_before_sound")
"""Types and forms of questions that the picture or the sound alone answers, their twins included."""
SAMPLINGS = ((0.75, {}), (0.1, {"num_frames": 16}), (0.08, {"fps": 4.0}), (0.07, {"fps": 2.0}))
"""How frames are sampled, and how often: mostly as the processor does, and sometimes fewer."""
KEPT_BATCHES = 200
"""Batches that are kept on the device, to be trained on again."""
VECTORS_PER_WINDOW = MAX_AUDIO_POSITIONS // 4
"""Embeddings that a window of the audio encoder becomes: two poolings halve its positions."""
WARMUP = 0.02
IGNORED = -100


def choose(shares, rng: random.Random):
    """One of pairs of a share and a value."""
    return rng.choices([value for _, value in shares], [share for share, _ in shares])[0]


class ClipEncoder:
    """
    Makes sequences of clips with all of their questions.

    Args:
        processor ([`OmniVinciProcessor`]): That of the model.
    """

    def __init__(self, processor: OmniVinciProcessor):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.ids = lru_cache(maxsize=2**16)(lambda text: tuple(self.tokenizer(text).input_ids))
        self.turn_end = self.ids("<|im_end|>\n")

    def look(self, sample, config: WorldConfig, options: dict, coded: bool, folder: Path) -> LoadedVideo:
        """What the processor would decode of a clip: through an mp4 file if `coded`, or what is rendered itself."""
        video_processor = self.processor.video_processor
        if coded:
            path = folder / f"{sample.id}.mp4"
            write_clip(path, SyntheticDataset("train", 1, config=config).render(sample))
            (video,) = video_processor.load_videos(
                [str(path)], load_audio=True, sampling_rate=config.sampling_rate, **options
            )
            path.unlink()
            return video
        scene = sample.scene
        total = round(scene.seconds * config.fps)
        if "fps" in options:
            indices = sample_at_fps(total, config.fps, options["fps"])
        else:
            indices = sample_uniformly(total, options.get("num_frames", video_processor.num_frames))
        drawn = sorted(set(indices))
        frames = draw_frames(scene, config, np.array(drawn) / config.fps)[np.searchsorted(drawn, indices)]
        metadata = OmniVinciVideoMetadata(
            total_num_frames=total,
            fps=float(config.fps),
            width=config.width,
            height=config.height,
            duration=scene.seconds,
            video_backend="pyav",
            frames_indices=list(indices),
            audio_duration=scene.seconds,
            clip_duration=scene.seconds,
        )
        frames = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
        return LoadedVideo(frames, metadata, synthesise(scene, config))

    def read(self, turns: list[Question]) -> tuple[list[int], list[float], str]:
        """A chat behind its clip: its tokens, how much each counts, which is 0 but for answers, and its type."""
        ids, weights = [], []
        for number, turn in enumerate(turns):
            opening = self.ids("<|im_start|>user\n") if number else ()
            question = (*opening, *self.ids(turn.text), *self.turn_end, *self.ids("<|im_start|>assistant\n"))
            answer = self.ids(turn.answer + "<|im_end|>")
            ids += [*question, *answer, *self.ids("\n")]
            weights += [0.0] * len(question) + [WEIGHTS.get(turn.type, 1.0)] * len(answer) + [0.0]
        return ids, weights, turns[0].type if len(turns) == 1 else "chat"

    def encode(self, video: LoadedVideo, chats: list[list[Question]], view: str = "whole") -> dict:
        """One sequence of a clip and chats, each of which sees the clip and itself."""
        content = [{"type": "video", "video": video}]
        if view == "silent":
            video = replace(video, waveform=None, metadata=replace(video.metadata, audio_duration=None))
            content = [{"type": "video", "video": video}]
        elif view == "sound":
            content = [{"type": "audio", "audio": video.waveform}]
        encoded = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            load_audio_from_video=view != "silent",
            return_tensors="pt",
        )
        prefix = encoded["input_ids"][0, : -len(self.turn_end)].tolist()
        start, ids, weights = len(prefix), list(prefix), [0.0] * len(prefix)
        positions, segments, types = list(range(start)), [0] * start, []
        for number, turns in enumerate(chats, start=1):
            read, counts, type = self.read(turns)
            ids += read
            weights += counts
            positions += range(start, start + len(read))
            segments += [number] * len(read)
            types.append(type)
        item = {
            "ids": torch.tensor(ids, dtype=torch.int16),
            "weights": torch.tensor(weights, dtype=torch.float16),
            "positions": torch.tensor(positions, dtype=torch.int16),
            "segments": torch.tensor(segments, dtype=torch.int16),
            "types": types,
        }
        if view != "sound":
            item |= {"frames": video.frames, "frame_seconds": encoded["video_timestamps"][0]}
        if view != "silent":
            # Windows that are silent padding are not read: those that hold what stands in the sequence suffice.
            seconds, windows = encoded["audio_timestamps"][0], encoded["input_features"]
            num_windows = min(-(-len(seconds) // VECTORS_PER_WINDOW), len(windows))
            item |= {"windows": windows[:num_windows].half(), "sound_seconds": seconds}
        return item


ITEM = ("ids", "weights", "positions", "segments", "types", "frames", "frame_seconds", "windows", "sound_seconds")


def join(items: list[dict]) -> dict:
    """A batch of encoded clips."""
    rows = {name: [item[name] for item in items if name in item] for name in ITEM}
    width = max(map(len, rows["ids"]))
    for name, fill in (("ids", 0), ("weights", 0), ("positions", 0), ("segments", -1)):
        # Attention with a mask is faster on GPUs if rows have a multiple of 16 tokens.
        missing = -(-width // 16) * 16 - len(rows[name][0])
        rows[name][0] = torch.nn.functional.pad(rows[name][0], (0, missing), value=fill)
    batch = {name: pad_sequence(rows[name], True, 0) for name in ("ids", "weights", "positions")}
    batch["segments"] = pad_sequence(rows["segments"], True, -1)  # padding
    batch["frames"], batch["windows"] = torch.cat(rows["frames"]), torch.cat(rows["windows"])
    batch["frame_seconds"] = torch.cat(rows["frame_seconds"])
    batch["sound_seconds"] = pad_sequence(rows["sound_seconds"], True, -1.0)
    batch["num_windows"] = torch.tensor([len(windows) for windows in rows["windows"]])
    # Where a token is predicted from, which it is, and of which chat of the batch it is.
    weights = batch["weights"][:, 1:].float()
    places = weights.nonzero()
    first = torch.tensor([0, *np.cumsum([len(types) for types in rows["types"]])[:-1].tolist()])
    batch["places"] = places[:, 0] * batch["ids"].shape[1] + places[:, 1]
    batch["targets"] = batch["ids"][:, 1:][weights > 0].long()
    batch["counts"] = weights[weights > 0]
    batch["chats"] = first[places[:, 0]] + batch["segments"][:, 1:][weights > 0].long() - 1
    batch["types"] = [type for types in rows["types"] for type in types]
    del batch["weights"]
    return batch


def make_batches(worker: int, arguments: argparse.Namespace, names, folder: str) -> None:
    """What a process does: it writes batches and queues their paths. The first one writes held-out ones, too."""
    torch.set_num_threads(1)
    encoder = ClipEncoder(OmniVinciProcessor.from_pretrained(arguments.run))
    if worker == 0:
        for number in range(arguments.eval_batches):
            save(encoder, "validation", -1 - number, arguments, names, Path(folder), True)
    number = worker
    while True:
        save(encoder, "train", number, arguments, names, Path(folder), False)
        number += arguments.num_workers


def save(encoder, split: str, number: int, arguments, names, folder: Path, is_held_out: bool) -> None:
    """Writes a batch. Its clips depend on the seed, the split and the number of the batch alone."""
    rng = random.Random(f"practice/{arguments.seed}/{split}/{number}")
    items = []
    for _ in range(arguments.batch_size):
        config = choose(WORLDS, rng)
        dataset = SyntheticDataset(
            split, 10**9, arguments.seed + 1000, config, TYPES, questions_per_clip=arguments.questions_per_clip
        )
        place = TYPES.index(choose(FIRST, rng))
        sample = dataset[rng.randrange(10**8) * len(TYPES) + place]
        options = {} if is_held_out else choose(SAMPLINGS, rng)
        coded = is_held_out or rng.random() < arguments.coded
        view = "whole" if is_held_out else choose(VIEWS, rng)
        video = encoder.look(sample, config, options, coded, folder)
        items.append(encoder.encode(video, chats_of(sample, view, rng), view))
    path = folder / f"{split}-{number}.pt"
    torch.save(join(items), path)
    names.put((str(path), is_held_out))


def chats_of(sample, view: str, rng: random.Random) -> list[list[Question]]:
    """Every question alone, chats of several, what `unroll` asks, and questions behind contexts."""
    contexts, questions = contexts_of(sample.scene), list(sample.questions)
    if view != "whole":
        names = SEEN if view == "silent" else HEARD
        questions = [
            question
            for question in questions
            if question.type in names or question.form.removesuffix("_each").removeprefix("absent_") in names
        ]
        context = SEE if view == "silent" else HEAR
        return [[_question(context, PROMPTS[context], contexts[context])], *([one] for one in questions)]
    topics = [question for question in questions if question.type not in ("matching", "caption")]
    captions = [question for question in questions if question.type == "caption"]
    chats = [[question] for question in questions]
    for _ in range(NUM_CHATS):
        turns = rng.sample(topics, min(rng.randint(2, MAX_TURNS), len(topics)))
        if captions and rng.random() < 0.25:
            turns.insert(rng.choice((0, 0, 1)), captions[0])
        chats.append(turns)
    known = {SEE: contexts[SEE], HEAR: contexts[HEAR]}
    chats.append([_question(TIMELINE, ask_with(known, PROMPTS[TIMELINE]), contexts[TIMELINE])])
    asked = rng.choice(topics)
    names = rng.choice(([SEE], [SEE, HEAR], [SEE, HEAR, TIMELINE]))
    chats.append([_question("unrolled", ask_with({name: contexts[name] for name in names}, asked.text), asked.answer)])
    return chats


def _question(type: str, text: str, answer: str) -> Question:
    return Question(type, type, text, answer, 0)


class Practice:
    """
    Trains on batches.

    Args:
        arguments: Those of the command.
    """

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.device = arguments, torch.device(arguments.device)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.processor = OmniVinciProcessor.from_pretrained(arguments.run)
        self.model = OmniVinciForConditionalGeneration.from_pretrained(arguments.run, dtype=torch.float32)
        self.model.to(self.device).train()
        config = self.model.config
        self.chunk_sizes = config.vision_chunk_size, config.audio_chunk_size
        config.vision_chunk_size = config.audio_chunk_size = 10**6  # all at once
        self.optimizer = MuonWithAdamW(self.model, arguments.learning_rate, 0.01, (0.9, 0.98), 1e-8)
        self.log_path = Path(arguments.output) / "log.jsonl"
        self.losses, self.num_steps, self.num_clips, self.num_new = [], 0, 0, 0

    def predict(self, batch: dict) -> torch.Tensor:
        """The logits of what is learnt, (targets, vocabulary)."""
        segments = batch["segments"].int()
        seen, own = segments[:, None, :], segments[:, :, None]
        mask = (((seen == 0) & (own > 0)) | (seen == own)).tril()[:, None]
        frames = batch["frames"].to(torch.float32) / 127.5 - 1
        hidden = self.model.model(
            input_ids=batch["ids"].long(),
            attention_mask=mask,
            position_ids=batch["positions"].long(),
            pixel_values_videos=frames,
            video_timestamps=batch["frame_seconds"][None],  # as of one video: its embeddings are in the same order
            input_features=batch["windows"].float(),
            audio_timestamps=batch["sound_seconds"],
            audio_num_windows=batch["num_windows"],
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden.flatten(0, 1)[batch["places"]])

    def step(self, batch: dict, learning_rate: float) -> None:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        losses = torch.nn.functional.cross_entropy(self.predict(batch), batch["targets"], reduction="none")
        loss = (losses * batch["counts"]).sum() / batch["counts"].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.detach())
        self.num_steps += 1
        self.num_clips += len(batch["ids"])

    @torch.no_grad()
    def examine(self, batches: list[dict]) -> dict[str, float]:
        """The share of chats of each type of which every token of an answer is the most probable one."""
        self.model.eval()
        right, asked = defaultdict(int), Counter()
        for batch in batches:
            is_right = self.predict(batch).argmax(-1) == batch["targets"]
            wrong = torch.zeros(len(batch["types"]), device=self.device)
            wrong = wrong.index_add(0, batch["chats"], (~is_right).float()).tolist()
            for type, tokens in zip(batch["types"], wrong, strict=True):
                asked[type] += 1
                right[type] += tokens == 0
        self.model.train()
        return {type: round(right[type] / asked[type], 4) for type in sorted(asked)}

    def log(self, **values) -> None:
        """A line of the log, printed as well."""
        if self.losses:
            values["loss"] = round(torch.stack(self.losses).mean().item(), 4)
            self.losses.clear()
        line = json.dumps({"step": self.num_steps, "clips": self.num_clips, "new_clips": self.num_new, **values})
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def save(self, name: str = "") -> None:
        """Writes the checkpoint in bfloat16."""
        folder = Path(self.arguments.output) / name
        model = copy.deepcopy(self.model).to(torch.bfloat16).eval()
        model.config.vision_chunk_size, model.config.audio_chunk_size = self.chunk_sizes
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_batches(names, ready: queue.Queue, device: torch.device, is_over: threading.Event) -> None:
    """What a thread does: it moves batches from their files to the device."""
    while not is_over.is_set():
        try:
            path, is_held_out = names.get(timeout=1)
        except queue.Empty:
            continue
        batch = torch.load(path)
        Path(path).unlink()
        if device.type == "cuda":
            batch = {name: value.pin_memory() if name != "types" else value for name, value in batch.items()}
        batch = {
            name: value.to(device, non_blocking=True) if name != "types" else value for name, value in batch.items()
        }
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        while not is_over.is_set():
            try:
                ready.put((batch, is_held_out), timeout=1)
                break
            except queue.Full:
                continue


def practise(arguments: argparse.Namespace) -> None:
    """Trains, and writes checkpoints and a log."""
    begin = time.monotonic()
    Path(arguments.output).mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    names = context.Queue(2 * arguments.num_workers)
    rng, is_over = random.Random(arguments.seed), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(target=make_batches, args=(worker, arguments, names, folder), daemon=True)
            for worker in range(arguments.num_workers)
        ]
        for worker in workers:
            worker.start()
        practice = Practice(arguments)
        ready: queue.Queue = queue.Queue(4)
        loader = threading.Thread(target=load_batches, args=(names, ready, practice.device, is_over), daemon=True)
        loader.start()
        kept: list[dict] = []
        held_out: list[dict] = []
        start, next_log, snapshots = None, 0.0, list(arguments.snapshots)
        while True:
            now = time.monotonic()
            if arguments.seconds and start is not None:
                done = (now - start) / (begin + arguments.seconds - start)
            elif arguments.seconds:
                done = float(now - begin > arguments.seconds)
            else:
                done = practice.num_clips / arguments.clips
            if done >= 1:
                break
            try:
                # Without a new batch, one of those before is taken, once there are enough of them.
                batch, is_held_out = ready.get(block=len(kept) < arguments.least_batches, timeout=60)
                if is_held_out:
                    held_out.append(batch)
                    continue
                practice.num_new += len(batch["ids"])
                kept.append(batch)
                if len(kept) > KEPT_BATCHES:
                    del kept[rng.randrange(KEPT_BATCHES)]
            except queue.Empty:
                if not kept:
                    if any(worker.exitcode for worker in workers):
                        raise RuntimeError("A process that renders clips has failed.") from None
                    continue
                batch = rng.choice(kept)
            if start is None:
                start = now
                practice.log(seconds=round(now - begin, 1), event="first batch")
            practice.step(batch, arguments.learning_rate * min(done / WARMUP, (1 - done) / (1 - WARMUP)))
            if now - begin > next_log:
                next_log = now - begin + arguments.log_seconds
                practice.log(seconds=round(now - begin, 1), done=round(done, 4), **practice.examine(held_out))
            if snapshots and done >= snapshots[0]:
                practice.save(f"at-{snapshots.pop(0)}")
        is_over.set()
        for worker in workers:
            worker.terminate()
        practice.save()
        practice.log(seconds=round(time.monotonic() - begin, 1), done=1.0, **practice.examine(held_out))
        loader.join()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="The checkpoint to start from.")
    parser.add_argument("output", metavar="DIR", help="The folder to write to.")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, help="Stop after so many seconds, those of starting included.")
    length.add_argument("--clips", type=int, help="Stop after so many clips.")
    parser.add_argument("--batch-size", type=int, default=8, help="Clips of a batch.")
    parser.add_argument("--questions-per-clip", type=int, default=24)
    parser.add_argument("--num-workers", type=int, default=1, help="Processes that render clips.")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--coded", type=float, default=0.1, help="Share of clips that go through an mp4 file.")
    parser.add_argument("--least-batches", type=int, default=8, help="Batches before any is trained on again.")
    parser.add_argument("--eval-batches", type=int, default=2, help="Held-out batches.")
    parser.add_argument("--snapshots", type=float, nargs="*", default=(), help="When to write checkpoints on the way.")
    parser.add_argument("--log-seconds", type=float, default=15.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    practise(parser.parse_args())
