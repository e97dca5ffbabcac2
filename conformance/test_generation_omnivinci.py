"""
What `generate` of transformers asks of a model, with an image, a video and sound in every prompt.

The source distribution has no `GenerationTesterMixin`; these are tests of our own for the same promises.
"""

import copy
import unittest

import test_modeling_omnivinci as modeling
import torch
from transformers import CompileConfig, DynamicCache, set_seed
from transformers.generation import GenerationMixin

from transformers_omnivinci import OmniVinciForConditionalGeneration

NUM_TOKENS = 4


class OmniVinciGenerationTest(unittest.TestCase):
    """Ways of generating that must agree, and the shapes of what they return."""

    options: dict = {}

    def setUp(self):
        set_seed(0)
        self.tester = modeling.OmniVinciModelTester(self, **self.options)
        config, self.inputs = self.tester.prepare_config_and_inputs_for_common()
        self.model = OmniVinciForConditionalGeneration(config).eval()
        for parameter in self.model.parameters():
            parameter.data.mul_(4)  # so that the most likely token is so by far
        self.length = self.inputs["input_ids"].shape[1]

    def generate(self, model=None, inputs=None, **kwargs):
        """Greedy by default, without an early end and without placeholders in the answer."""
        settings = {
            "max_new_tokens": NUM_TOKENS,
            "do_sample": False,
            "eos_token_id": None,
            "suppress_tokens": [modeling.IMAGE, modeling.VIDEO, modeling.AUDIO],
        }
        inputs = self.inputs if inputs is None else inputs
        return (model or self.model).generate(**inputs, **{**settings, **kwargs})

    def only(self, *names: str) -> dict:
        return {name: self.inputs[name] for name in names}

    @property
    def media(self) -> dict:
        return {name: value for name, value in self.inputs.items() if name not in ("input_ids", "attention_mask")}

    def test_inherits_generation_mixin(self):
        self.assertIsInstance(self.model, GenerationMixin)
        self.assertIn("GenerationMixin", str(type(self.model).__bases__))

    def test_outputs(self):
        outputs = ("scores", "logits", "attentions", "hidden_states")
        wanted = {"return_dict_in_generate": True, **{f"output_{name}": True for name in outputs}}
        self.model.set_attn_implementation("eager")
        batch, layers = self.tester.batch_size, self.tester.num_hidden_layers
        ways = {
            "greedy": {},
            "without a cache": {"use_cache": False},
            "sampling": {"do_sample": True, "num_return_sequences": 2},
            "beams": {"num_beams": 2, "num_return_sequences": 2},
            "sampling beams": {"num_beams": 2, "do_sample": True},
        }
        for way, kwargs in ways.items():
            with self.subTest(way):
                output = self.generate(**wanted, **kwargs)
                rows = batch * kwargs.get("num_return_sequences", 1)
                self.assertEqual(output.sequences.shape, (rows, self.length + NUM_TOKENS))
                running = batch * max(kwargs.get("num_beams", 1), kwargs.get("num_return_sequences", 1))
                for name in ("scores", "logits"):
                    self.assertEqual(len(output[name]), NUM_TOKENS)
                    self.assertEqual(output[name][0].shape, (running, self.tester.vocab_size))
                for name, count in (("attentions", layers), ("hidden_states", layers + 1)):
                    self.assertEqual(len(output[name]), NUM_TOKENS)
                    self.assertEqual({len(step) for step in output[name]}, {count})
                    self.assertEqual(output[name][0][0].shape[0], running)
                if kwargs.get("use_cache", True):
                    self.assertEqual(output.past_key_values.get_seq_length(), self.length + NUM_TOKENS - 1)
                else:
                    self.assertIsNone(output.past_key_values)

    def test_ways_of_generating_agree(self):
        expected = self.generate().tolist()
        assistant = copy.deepcopy(self.model)
        ways = {
            "without a cache": {"use_cache": False},
            "static cache": {"cache_implementation": "static", "disable_compile": True},
            "one candidate": {"do_sample": True, "top_k": 1},
            "chunks of the prompt": {"prefill_chunk_size": 7},
        }
        for way, kwargs in ways.items():
            with self.subTest(way):
                self.assertEqual(self.generate(**kwargs).tolist(), expected)
        one = {name: self.first(value) for name, value in self.inputs.items()}  # a batch cannot be assisted
        for way, kwargs in {
            "prompt lookup": {"prompt_lookup_num_tokens": 2},
            "assistant": {"assistant_model": assistant},
        }.items():
            with self.subTest(way):
                self.assertEqual(self.generate(inputs=one, **kwargs).tolist(), expected[:1])

    def first(self, value: torch.Tensor) -> torch.Tensor:
        """What belongs to the first prompt."""
        return value[: len(value) // self.tester.batch_size]

    def test_several_answers_and_beams_of_a_batch_are_those_of_each_prompt(self):
        one = {name: self.first(value) for name, value in self.inputs.items()}
        for kwargs in ({"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 2}):
            with self.subTest(str(kwargs)):
                alone = self.generate(inputs=one, **kwargs)
                self.assertEqual(self.generate(**kwargs)[: len(alone)].tolist(), alone.tolist())

    def test_padding_on_the_left_changes_nothing(self):
        padding = torch.full((self.tester.batch_size, 5), self.tester.text_config["pad_token_id"])
        padded = {
            **self.inputs,
            "input_ids": torch.cat((padding, self.inputs["input_ids"]), dim=1),
            "attention_mask": torch.cat((torch.zeros_like(padding), self.inputs["attention_mask"]), dim=1),
        }
        with torch.no_grad():
            plain, moved = self.model(**self.inputs).logits[:, -1], self.model(**padded).logits[:, -1]
        # The positions of a forward pass count the padding, and rotary embeddings see differences alone.
        torch.testing.assert_close(moved, plain, atol=1e-4, rtol=1e-4)
        self.assertEqual(self.generate(inputs=padded)[:, 5:].tolist(), self.generate().tolist())

    def test_inputs_embeds_instead_of_ids(self):
        expected = self.generate()[:, self.length :].tolist()
        plain = self.model.get_input_embeddings()(self.inputs["input_ids"]).detach()
        with torch.no_grad():
            merged = self.model.get_inputs_embeds(**self.inputs)
        mask = self.only("attention_mask")
        for way, inputs in {
            "merged": {"inputs_embeds": merged, **mask},
            "placeholders": {"inputs_embeds": plain, **mask, **self.media},
            "beside ids": {"inputs_embeds": plain, **self.inputs},
        }.items():
            for cache in ({}, {"cache_implementation": "static", "disable_compile": True}):
                with self.subTest(f"{way} {cache}"):
                    answer = self.generate(inputs=inputs, **cache)
                    self.assertEqual(answer[:, -NUM_TOKENS:].tolist(), expected)
        with self.subTest("beams"):
            beams = self.generate(num_beams=2)[:, self.length :].tolist()
            self.assertEqual(self.generate(inputs={"inputs_embeds": merged, **mask}, num_beams=2).tolist(), beams)

    def test_continues_from_a_cache(self):
        expected = self.generate(return_dict_in_generate=True)
        begun = self.generate(max_new_tokens=2, return_dict_in_generate=True)
        self.assertIsInstance(begun.past_key_values, DynamicCache)
        more = torch.ones(self.tester.batch_size, 2, dtype=torch.long)
        inputs = {
            "input_ids": begun.sequences,
            "attention_mask": torch.cat((self.inputs["attention_mask"], more), dim=1),
            "past_key_values": begun.past_key_values,
        }
        continued = self.generate(inputs=inputs, max_new_tokens=NUM_TOKENS - 2, return_dict_in_generate=True)
        self.assertEqual(continued.sequences.tolist(), expected.sequences.tolist())
        for layer, other in zip(continued.past_key_values.layers, expected.past_key_values.layers, strict=True):
            torch.testing.assert_close(layer.keys, other.keys, atol=1e-4, rtol=1e-4)

    def test_position_ids_may_be_given(self):
        positions = torch.arange(self.length).expand(self.tester.batch_size, -1)
        self.assertEqual(self.generate(position_ids=positions).tolist(), self.generate().tolist())

    def test_logits_to_keep(self):
        expected = self.generate().tolist()
        self.assertEqual(self.generate(logits_to_keep=1).tolist(), expected)
        self.assertEqual(self.generate(logits_to_keep=0).tolist(), expected)

    def test_stops_at_the_end_token(self):
        end = self.generate()[0, self.length].item()
        answer = self.generate(inputs={k: self.first(v) for k, v in self.inputs.items()}, eos_token_id=end)
        self.assertEqual(answer[0, self.length :].tolist(), [end])

    def test_unknown_arguments_are_refused(self):
        with self.assertRaisesRegex(ValueError, "not_an_argument"):
            self.generate(not_an_argument=1)

    def test_attention_implementations_agree(self):
        expected = self.generate().tolist()
        self.model.set_attn_implementation("eager")
        self.assertEqual(self.generate().tolist(), expected)

    def test_decoding_step_is_one_graph(self):
        expected = self.generate(cache_implementation="static", disable_compile=True).tolist()
        compilation = CompileConfig(fullgraph=True, backend="eager")
        compilation._compile_all_devices = True
        compiled = self.generate(cache_implementation="static", compile_config=compilation)
        self.assertEqual(compiled.tolist(), expected)
        self.assertTrue(hasattr(self.model, "_compiled_call"))


class OmniVinciVariantGenerationTest(OmniVinciGenerationTest):
    """The same on what may be chosen instead."""

    options = modeling.OmniVinciVariantModelTest.options
