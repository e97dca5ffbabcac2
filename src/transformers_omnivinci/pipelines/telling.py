"""`return_evidence` of pipelines: answers say what they rest on."""


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
        evidence = model_outputs.pop("evidence", None)
        records = super().postprocess(model_outputs, *args, **kwargs)
        if evidence is not None:
            # In a batch, the library hands samples on one by one, otherwise in a list of one.
            [evidence] = evidence if isinstance(evidence, list) else [evidence]
            for record in records:
                record["evidence"] = evidence.to_dict()
        return records
