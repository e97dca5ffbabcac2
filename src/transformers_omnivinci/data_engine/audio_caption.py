"""The captions of figure 4 whose model hears and does not see."""

from .asking_stage import AskingStage
from .backends.protocol import Medium, Request
from .columns import AudioCaptions, Segment
from .prompt_files import Prompt
from .stage import Failed, seed_of
from .structured import Asked

NO_PROMPT = Prompt("none", "")


class AudioCaption(AskingStage):
    """
    Writes a caption of the sound of each clip of a segment, without its picture. Where the config names a back end for
    speech, what is spoken is written down first, and the captioner is told.
    """

    name = "audio_caption"
    takes, gives = (Segment,), (AudioCaptions,)

    def process(self, rows):
        segments = [segment for (segment,) in rows]
        sounds = [
            [(Medium(segment.source, clip.start, clip.end, "sound"),) for clip in segment.clips]
            for segment in segments
        ]
        heard = self._transcribe(segments, sounds)
        requests = [
            []
            if any(one.error for one in speech)
            else [
                self.request(f"{segment.label}/{place}", {"seconds": clip.end - clip.start, "speech": said}, media)
                for place, (clip, said, media) in enumerate(
                    zip(segment.clips, [one.value for one in speech], media_of)
                )
            ]
            for segment, speech, media_of in zip(segments, heard, sounds)
        ]
        results = []
        for asked, speech in zip(self.ask_all(requests), heard):
            error = next((one.error for one in (*speech, *asked) if one.error), "")
            told = [self.account(speech, self.config.speech, NO_PROMPT)] if self.config.speech else []
            told.append(self.account(asked))
            if error:
                results.append(Failed(error, *told))
            else:
                captions = AudioCaptions([one.value for one in asked], [one.value for one in speech])
                results.append((captions, *told))
        return results

    def _transcribe(self, segments, sounds) -> list[list[Asked]]:
        if self.config.speech is None:
            return [[Asked("") for _ in segment.clips] for segment in segments]
        requests = [
            [
                Request("speech", "", media, seed=seed_of(self.bench.config.seed, "speech", segment.label, place))
                for place, media in enumerate(media_of)
            ]
            for segment, media_of in zip(segments, sounds)
        ]
        return self.ask_all(requests, str, backend=self.config.speech)
