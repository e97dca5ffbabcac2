"""`return_evidence` of pipelines: answers say what they rest on."""


def take_own(model_outputs: dict, name: str):
    """
    Takes an entry about one sample, if any, out of what a pipeline hands to `postprocess`: in a batch, the library
    hands samples on one by one, otherwise in a list of one.
    """
    entry = model_outputs.pop(name, None)
    if not isinstance(entry, list):
        return entry
    [entry] = entry
    return entry


class TellsEvidence:
    """
    Mixin of pipelines, in front of theirs. With `return_evidence=True` every record of an answer has `evidence`, the
    dictionary of an [`~transformers_omnivinci.planning.Evidence`].
    """

    def _sanitize_parameters(self, return_evidence=None, **kwargs):
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        if return_evidence is not None:
            preprocess["return_evidence"] = return_evidence
        return preprocess, forward, postprocess

    def _forward(self, model_inputs, *args, **kwargs):
        evidence = model_inputs.pop("evidence", None)
        outputs = super()._forward(model_inputs, *args, **kwargs)
        return outputs if evidence is None else {**outputs, "evidence": evidence}

    def postprocess(self, model_outputs, *args, **kwargs):
        evidence = take_own(model_outputs, "evidence")
        records = super().postprocess(model_outputs, *args, **kwargs)
        if evidence is not None:
            for record in records:
                record["evidence"] = evidence.to_dict()
        return records
