"""All attacks, with what must be in the answer. `docs/safety.md` shows this table with the whole answers (scripts/tabulate_attacks.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.attacks import containers, pickles, tensors

WEIGHTS, OWN = "step_7", "model.safetensors"


@dataclass(frozen=True)
class Attack:
    """A maker, the name its file gets, and a part of the message that it must be answered with.

    works: whether the file does harm where it is opened by `torch.load(weights_only=False)` or `pickle.load`, so that a test can show
    that the payload is a real one.
    """

    make: Callable[[Path, Path], None]
    answer: str
    file: str = WEIGHTS
    works: bool = False

    @property
    def name(self) -> str:
        """The maker's name in words."""
        return self.make.__name__.replace("_", " ") + (" named .safetensors" if self.renamed else "")

    @property
    def renamed(self) -> bool:
        """Whether a pickle poses as safetensors."""
        return self.file == OWN and self.make.__module__ != tensors.__name__


CODE = "and opening it could run code: it is refused"
DAMAGED = "is damaged or was cut short"
CLAIMS = "claims more than it holds"

ATTACKS = (
    # pickles that run code
    Attack(pickles.payload_zip, f"holds a Python object (posix.mkdir) besides tensors, {CODE}", works=True),
    Attack(pickles.payload_among_weights, f"(posix.mkdir) besides tensors, {CODE}", works=True),
    Attack(pickles.payload_as_key_of_nothing, "(posix.mkdir)", works=True),
    Attack(pickles.payload_legacy, "(posix.mkdir)", works=True),
    Attack(pickles.payload_legacy_header, "(posix.mkdir)", works=True),
    Attack(pickles.payload_legacy_keys, "(posix.mkdir)", works=True),
    Attack(pickles.payload_raw, "(posix.mkdir)", works=True),
    Attack(pickles.payload_text_pickle, "is not a checkpoint", works=True),
    Attack(pickles.payload_in_protocol_zero, "(posix.mkdir)", works=True),
    Attack(pickles.payload_by_attribute, "(builtins.getattr)", works=True),
    Attack(pickles.payload_by_dotted_name, "(torch.os.mkdir)", works=True),
    Attack(pickles.payload_through_torch_load, "(torch.storage._load_from_bytes)", works=True),
    Attack(pickles.payload_by_instance, "(os.mkdir)", works=True),
    Attack(pickles.payload_zip, "is called safetensors but holds a pickle", OWN),
    Attack(pickles.payload_raw, "is called safetensors but holds a pickle", OWN),
    Attack(pickles.payload_legacy, "is called safetensors but holds a pickle", OWN),
    Attack(pickles.rewiring_a_maker, DAMAGED),
    Attack(pickles.rewiring_a_type, DAMAGED),
    Attack(pickles.extension_code, DAMAGED),
    # Python objects
    Attack(pickles.whole_module, "(torch.nn.modules.linear.Linear)"),
    Attack(pickles.namespace, "(argparse.Namespace)"),
    Attack(pickles.numpy_array, "(numpy._core.multiarray._reconstruct)"),
    Attack(pickles.numpy_scalar, "(numpy._core.multiarray.scalar)"),
    Attack(pickles.default_dict, "(collections.defaultdict)"),
    Attack(pickles.plain_pickle, "is a bare pickle"),
    Attack(containers.torch_script, "is a TorchScript program, not weights"),
    # structures
    Attack(pickles.contains_itself, "holds a dict or list that contains itself"),
    Attack(pickles.nested_deeply, "nests dicts and lists deeper than"),
    Attack(pickles.nested_dicts, "nests dicts and lists deeper than"),
    Attack(pickles.doubling, "holds more than 200,000 values"),
    Attack(pickles.number_keys, "is not a state_dict: a key is no text but of type int"),
    Attack(pickles.tuple_keys, "a key of state_dict is no text but of type tuple"),
    Attack(pickles.one_name_two_ways, "names the tensor state_dict.a twice"),
    # time and memory
    Attack(pickles.large_memo, "needs more memory"),
    Attack(pickles.large_text, DAMAGED),
    Attack(pickles.large_number, DAMAGED),
    Attack(pickles.many_values, "holds more than 200,000 values"),
    Attack(pickles.much_memory, "needs more memory"),
    Attack(pickles.colliding_keys, "takes longer to look through than a file of its size may"),
    Attack(pickles.no_end, DAMAGED),
    Attack(pickles.nothing_on_the_stack, DAMAGED),
    Attack(pickles.strange_storage, DAMAGED),
    # tensors
    Attack(tensors.sparse_with_lying_indices, "inner.lm_head.weight is a sparse_coo float32 tensor"),
    Attack(tensors.sparse_rows_with_lying_indices, "inner.lm_head.weight is a sparse_csr float32 tensor"),
    Attack(tensors.quantised, "inner.lm_head.weight is a quantised tensor"),
    Attack(tensors.complex_numbers, "inner.lm_head.weight is a strided complex64 tensor"),
    Attack(tensors.whole_numbers, "inner.lm_head.weight is a strided int64 tensor"),
    Attack(tensors.meta_of_terabytes, "inner.lm_head.weight is a strided float32 tensor on meta"),
    Attack(tensors.stride_zero, f"{CLAIMS}: inner.lm_head.weight is 100000000×40 float32 in a storage of 4 bytes"),
    Attack(tensors.stride_zero_of_terabytes, CLAIMS),
    Attack(tensors.one_storage_many_times, f"{CLAIMS}: "),
    Attack(tensors.more_than_the_storage, f"{CLAIMS}: inner.puzzle_emb.weights is 4×40 float32 in a storage of 4 bytes"),
    Attack(tensors.offset_behind_the_storage, CLAIMS),
    Attack(tensors.offset_of_terabytes, CLAIMS),
    Attack(tensors.offset_below_zero, DAMAGED),
    Attack(tensors.stride_below_zero, DAMAGED),
    Attack(tensors.stride_of_terabytes, CLAIMS),
    Attack(tensors.shape_below_zero, DAMAGED),
    Attack(tensors.shape_beyond_words, DAMAGED),
    Attack(tensors.shape_of_truths, DAMAGED),
    Attack(tensors.shape_of_a_thousand, DAMAGED),
    Attack(tensors.shape_without_strides, DAMAGED),
    Attack(tensors.storage_of_text, DAMAGED),
    Attack(tensors.no_storage, DAMAGED),
    # containers
    Attack(containers.empty, "is empty"),
    Attack(containers.web_page, "is a web page, not a checkpoint"),
    Attack(containers.lfs_pointer, "is a git-LFS pointer, not the weights themselves"),
    Attack(containers.zeros, "is not a checkpoint"),
    Attack(containers.cut_short, DAMAGED),
    Attack(containers.legacy_cut_short, DAMAGED),
    Attack(containers.bit_flip, DAMAGED),
    Attack(containers.deflate_bomb, "is a compressed archive"),
    Attack(containers.overlapping_bomb, DAMAGED),
    Attack(containers.one_name_twice, DAMAGED),
    Attack(containers.two_pickles, DAMAGED),
    Attack(containers.directory_disagrees, DAMAGED),
    Attack(containers.encrypted, DAMAGED),
    Attack(containers.other_archive, "is a zip archive, but not one that torch.save wrote"),
    Attack(containers.way_up, "not a state_dict"),
    Attack(containers.big_endian, "was written on a big-endian machine"),
    Attack(containers.empty, "is empty", OWN),
    Attack(containers.web_page, "is a web page", OWN),
    # safetensors
    Attack(tensors.header_names_one_twice, "names the tensor a twice", OWN),
    Attack(tensors.header_overlaps, DAMAGED, OWN),
    Attack(tensors.header_leaves_a_hole, DAMAGED, OWN),
    Attack(tensors.header_hides_a_rest, DAMAGED, OWN),
    Attack(tensors.header_longer_than_the_file, DAMAGED, OWN),
    Attack(tensors.header_of_megabytes, "holds more than 8 MiB of names", OWN),
    Attack(tensors.header_nests_deeply, DAMAGED, OWN),
    Attack(tensors.header_claims_terabytes, CLAIMS, OWN),
    Attack(tensors.header_overflows, DAMAGED, OWN),
    Attack(tensors.header_of_many, "holds more than 10,000 tensors", OWN),
    Attack(tensors.header_with_odd_numbers, DAMAGED, OWN),
    Attack(tensors.header_is_a_list, DAMAGED, OWN),
)
