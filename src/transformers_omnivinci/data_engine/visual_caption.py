"""The captions of figure 4 whose model sees and does not hear."""

from .asking_stage import AskingStage
from .backends.protocol import Medium
from .columns import Segment, VisualCaptions
from .stage import Failed


class VisualCaption(AskingStage):
    """Writes a caption of each clip of a segment, shown without its sound."""

    name = "visual_caption"
    takes, gives = (Segment,), (VisualCaptions,)

    def process(self, rows):
        requests = []
        for (segment,) in rows:
            clips = enumerate(segment.clips)
            requests.append(
                [
                    self.request(
                        f"{segment.label}/{place}",
                        {"seconds": clip.end - clip.start},
                        (Medium(segment.source, clip.start, clip.end, "picture"),),
                    )
                    for place, clip in clips
                ]
            )
        return [
            Failed(error, self.account(asked))
            if (error := next((one.error for one in asked if one.error), ""))
            else (VisualCaptions([one.value for one in asked]), self.account(asked))
            for asked in self.ask_all(requests)
        ]
