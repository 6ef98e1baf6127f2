"""The architecture of a Tiny Recursive Model as a validated, frozen record with the official field names."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from laser_studio.errors import CheckpointError
from laser_studio.settings import setting, settings

LOW_STATES = 6  # of the variant hier6


@settings(CheckpointError)
class TRMConfig:
    """Configuration of `TRM`; the fields are those of the official `all_config.yaml` (`arch`), plus the data's sizes and what relatives
    of TRM do otherwise (`variant` and the fields beside it).

    >>> TRMConfig(vocab_size=8, hidden_size=64, num_heads=4, seq_len=36).head_dim
    16

    Raises `CheckpointError` naming each field outside its range.
    """

    vocab_size: int = setting(low=2, high=1_000_000, unit="tokens", help="Number of token ids.")
    seq_len: int | None = setting(
        default=None, low=1, high=65_536, unit="tokens", help="Tokens of a puzzle, prefix excluded; None: the batch's."
    )
    num_puzzle_identifiers: int = setting(default=1, low=0, high=100_000_000, help="Rows of the puzzle embedding.")
    H_cycles: int = setting(
        default=3, low=1, high=1_000, unit="cycles", help="z_H updates per supervision step; only the last carries gradient."
    )
    L_cycles: int = setting(default=6, low=1, high=1_000, unit="cycles", help="z_L updates per H cycle.")
    H_layers: int = setting(default=0, low=0, high=1_000, unit="blocks", help="Blocks of an HRM's second net; else ignored, as officially.")
    L_layers: int = setting(default=2, low=1, high=256, unit="blocks", help="Blocks of the one shared net; of an HRM's L net.")
    hidden_size: int = setting(default=512, low=1, high=65_536, unit="features", help="Width D of the states.")
    num_heads: int = setting(default=8, low=1, high=1_024, help="Attention heads.")
    expansion: float = setting(default=4.0, low=0.01, high=64, help="SwiGLU expansion before the 2/3 rule.")
    pos_encodings: Literal["rope", "learned", "none"] = setting(default="rope", help="Position encoding.")
    forward_dtype: Literal["float32", "bfloat16"] = setting(default="bfloat16", help="Dtype of states and matrix products.")
    mlp_t: bool = setting(default=False, help="MLP-mixer over the sequence in place of attention.")
    puzzle_emb_ndim: int = setting(default=0, low=0, high=1_048_576, unit="features", help="Features of a puzzle embedding; 0: none.")
    puzzle_emb_len: int = setting(
        default=16, low=0, high=65_536, unit="tokens", help="Prefix tokens; 0: ceil(puzzle_emb_ndim / hidden_size)."
    )
    no_ACT_continue: bool = setting(default=True, help="Halt on q_halt > 0 alone, without the continue value.")
    halt_max_steps: int = setting(default=16, low=1, high=100_000, unit="supervision steps", help="Supervision steps of a run.")
    halt_exploration_prob: float = setting(default=0.1, low=0, high=1, help="Probability of a random minimum of steps in training.")
    rms_norm_eps: float = setting(default=1e-5, low=0, high=1, help="Epsilon of the norm.")
    rope_theta: float = setting(default=10_000.0, low=1, high=1e9, help="RoPE base.")
    rope_columns: int = setting(
        default=0,
        low=0,
        high=65_536,
        unit="tokens",
        help="Tokens in a row of the board, for RoPE by row and column; 0: by place.",
    )
    rope_grid: Literal["spread", "leading"] = setting(
        default="spread", help="Frequencies of rows and columns: over the whole range, or the faster half, as nano-trm has it."
    )
    mixer_norm: Literal["sequence", "features"] = setting(
        default="sequence", help="What the norm behind a sequence mixer runs over; officially the sequence, in later nano-trm the features."
    )
    token_width: int = setting(default=0, low=0, high=1_048_576, unit="features", help="Of lucidrains: inner width of the token mixers.")
    feature_width: int = setting(default=0, low=0, high=1_048_576, unit="features", help="Of lucidrains: inner width behind them.")
    variant: Literal["trm", "singlez", "hier6", "hrm", "lucidrains"] = setting(
        default="trm",
        help="Recursion: official TRM; with one state; with six low states; HRM, which has two nets; TRM on lucidrains' pre-norm mixers.",
    )

    @model_validator(mode="before")
    @classmethod
    def _official_none(cls, values: Any) -> Any:
        # YAML files spell "no positions" as null, None or none.
        named = getattr(values, "kwargs", values)
        if isinstance(named, dict) and str(named.get("pos_encodings", "")).lower() in ("none", "null"):
            named["pos_encodings"] = "none"
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mlp_t:
            if self.seq_len is None:
                raise ValueError("a mixer (mlp_t) has weights as wide as the sequence: give seq_len")
        elif self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        elif self.pos_encodings == "rope" and self.head_dim % 2:
            raise ValueError(f"rope needs an even head width, hidden_size / num_heads is {self.head_dim}")
        if self.rope_columns and (self.mlp_t or self.pos_encodings != "rope" or self.head_dim % 4):
            raise ValueError("rope_columns needs attention, pos_encodings rope, and hidden_size / num_heads a multiple of 4")
        if self.variant == "hrm" and self.H_layers < 1:
            raise ValueError("an HRM has a second net: give H_layers, at least 1")
        if self.variant == "lucidrains" and not (self.mlp_t and self.token_width and self.feature_width):
            raise ValueError("lucidrains' net is a mixer (mlp_t) with widths of its own: give token_width and feature_width")
        if self.variant == "hier6" and self.L_cycles > LOW_STATES:
            raise ValueError(f"hier6 has {LOW_STATES} low states, one per L cycle: L_cycles {self.L_cycles} is too many")
        if self.pos_encodings == "learned" and self.seq_len is None:
            raise ValueError("learned positions have one row per token: give seq_len")
        if self.puzzle_emb_ndim and self.num_puzzle_identifiers < 1:
            raise ValueError("num_puzzle_identifiers must be at least 1 where puzzle_emb_ndim > 0")
        if self.puzzle_emb_ndim > self.prefix_len * self.hidden_size:
            raise ValueError(
                f"puzzle_emb_ndim {self.puzzle_emb_ndim} does not fit puzzle_emb_len {self.prefix_len} × hidden_size {self.hidden_size}"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def prefix_len(self) -> int:
        """Tokens the puzzle embedding puts in front of the sequence; 0 where there is no puzzle embedding."""
        if self.puzzle_emb_ndim == 0:
            return 0
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def steps_per_supervision(self) -> int:
        """Net applications (recursion steps) in one supervision step."""
        return self.H_cycles * (self.L_cycles + 1)

    @property
    def graded_applications(self) -> int:
        """Applications of each net in a supervision step that carry gradient: a whole H cycle; of an HRM's nets only the last one."""
        return 1 if self.variant == "hrm" else self.L_cycles + 1
