"""The step of figure 4 in which a language model corrects the captions of each sense by the other and merges them."""

from dataclasses import dataclass, field, replace

from .asking_stage import AskingStage
from .columns import AudioCaptions, OmniCaption, RejectedStatement, Segment, VisualCaptions
from .stage import Failed
from .typed import json_schema


@dataclass(frozen=True)
class Correction:
    """What the model writes."""

    omni_caption: str = field(metadata={"description": "One caption of what is seen and heard in the whole segment."})
    rejected_statements: list[RejectedStatement] = field(
        metadata={"description": "Statements of the captions that did not enter it, with the reason."}
    )


class CrossModalCorrection(AskingStage):
    """
    Writes one omni-modal caption of a segment from the captions of its clips, and which statements of which sense were
    rejected and why. Seconds in that caption count from the start of the segment.
    """

    name = "cross_modal_correction"
    takes, gives = (Segment, VisualCaptions, AudioCaptions), (OmniCaption,)

    def process(self, rows):
        requests = [[self._request(*row)] for row in rows]
        results = []
        for (asked,) in self.ask_all(requests, Correction, _check):
            if asked.error:
                results.append(Failed(asked.error, self.account([asked])))
                continue
            correction = asked.value
            caption = OmniCaption(correction.omni_caption, correction.rejected_statements)
            results.append((caption, self.account([asked])))
        return results

    def _request(self, segment: Segment, seen: VisualCaptions, heard: AudioCaptions):
        clips, number = [], len(segment.clips)
        captions = {"visual": seen.visual_captions, "audio": heard.audio_captions, "speech": heard.speech}
        for kind, told in captions.items():
            if len(told) != number:
                raise ValueError(f"{number} clips of the segment {segment.id} have {len(told)} {kind} captions.")
        for place, (clip, visual, audio, speech) in enumerate(zip(segment.clips, *captions.values())):
            span = segment.within(clip)
            clips.append(
                {
                    "number": place,
                    "start": span.start,
                    "end": span.end,
                    "visual": visual,
                    "audio": audio,
                    "speech": speech,
                }
            )
        fields = {"clips": clips, "seconds": round(segment.end - segment.start, 3)}
        schema = json_schema(Correction)
        rejected = schema["properties"]["rejected_statements"]
        rejected["items"]["properties"]["clip"] |= {"minimum": 0, "maximum": number - 1}
        if self.config.most_rejected is not None:
            rejected["maxItems"] = self.config.most_rejected
        return replace(self.request(segment.label, fields), schema=schema)


def _check(request, correction: Correction) -> None:
    if not correction.omni_caption.strip():
        raise ValueError("`omni_caption` is empty.")
    number = len(request.fields["clips"])
    wrong = [one.clip for one in correction.rejected_statements if not 0 <= one.clip < number]
    if wrong:
        raise ValueError(f"`rejected_statements` names clip {wrong[0]}, but clips are counted from 0 to {number - 1}.")
