"""Keys and values of prompts, kept for the users who come back.

A user who returns with one more item has all but the newest item's keys and values here. An entry
is found by its tokens, all of them, and compared token by token, so an edited history finds nothing
or a shorter entry that is still right. The model that it belongs to empties it when its weights
may have changed (`layers.derived`).

Taking an entry removes it: the search writes into its buffer. What comes back is the longer prompt,
so a user has one entry, and two equal prompts of one batch never share a buffer.

Shapes: P prompt tokens of one row.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from itemese.core.errors import ConfigError
from itemese.decoding.fast.key_values import KeyValues


@dataclass(frozen=True)
class Entry:
    """One prompt.

    Attributes:
        tokens [P] int64: as the model read them.
        memory: Batch of one; the first P slots hold the prompt, the others anything.
    """

    tokens: np.ndarray
    memory: KeyValues


class PromptCache:
    """Least recently used prompts up to a number of bytes; for one model and one thread.

    Attributes:
        max_bytes: Of keys and values.
        num_bytes: In use.
        hits: Prompts that found an entry.
        misses: Prompts that did not.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        if max_bytes < 1:
            message = f"`max_bytes` must be >= 1; got {max_bytes}. Leave the cache out instead."
            raise ConfigError(message)
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget every prompt."""
        self._entries.clear()
        self.num_bytes = 0

    def take(self, tokens: np.ndarray, step: int) -> Entry | None:
        """Remove and return the longest entry that ``tokens [P] int64`` begin with.

        Args:
            tokens: The whole prompt.
            step: Tokens an item; prompts that differ by whole items are tried.
        """
        for length, key in _prefix_keys(tokens, step):
            entry = self._entries.get(key)
            # The digest finds, the tokens decide.
            if entry is not None and np.array_equal(entry.tokens, tokens[:length]):
                self._remove(key)
                self.hits += 1
                return entry
        self.misses += 1
        return None

    def put(self, tokens: np.ndarray, memory: KeyValues) -> None:
        """Keep a prompt, whose tokens fill the first slots of `memory`, a batch of one."""
        if memory.num_bytes > self.max_bytes:
            return
        key = blake2b(tokens.tobytes(), digest_size=16).digest()
        if key in self._entries:
            self._remove(key)
        self._entries[key] = Entry(tokens, memory)
        self.num_bytes += memory.num_bytes
        while self.num_bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        self.num_bytes -= self._entries.pop(key).memory.num_bytes


def _prefix_keys(tokens: np.ndarray, step: int) -> list[tuple[int, bytes]]:
    """Return length and digest of every prefix that ends with an item, the longest first."""
    digest = blake2b(digest_size=16)
    keys, done = [], 0
    for length in range(len(tokens) % step or step, len(tokens) + 1, step):
        digest.update(tokens[done:length].tobytes())
        keys.append((length, digest.copy().digest()))
        done = length
    return keys[::-1]
