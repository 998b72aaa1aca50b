"""The chunker's oracle: the rules written down token by token, slow and obvious."""

from collections import Counter
from functools import cache

PAIRS = (("[", "]"), ("(", ")"), ("<", ">"), ("\\", "{"))


class SlowChunker:
    """Cuts documents as the rules say and counts which branches it went through."""

    def __init__(self, tokenizer, max_length, bos_id=None, document_limit=2000):
        self.eos = tokenizer.eos_token_id
        self.bos = [] if bos_id is None else [bos_id]
        self.max_length, self.document_limit = max_length, document_limit
        self.buffers, self.cut, self.dropped = {}, Counter(), Counter()
        self.branches = Counter()

        @cache
        def text(*ids):
            options = dict(clean_up_tokenization_spaces=False, skip_special_tokens=False)
            return tokenizer.decode(list(ids), **options)

        self.text = text

    def ends_sentence(self, token):
        """Whether a token is an end-of-sentence token."""
        if token == self.eos:
            return True
        text = self.text(token)
        for first, second in PAIRS:
            if first in text and second not in text:
                return False
        return any(mark in text for mark in ".!?;\n")

    def may_end(self, buffer, i, length):
        """Whether a sequence may end with position i of the buffer."""
        if buffer[i] == self.eos:
            self.branches["end-of-text" + (" on the boundary" if i == length - 1 else "")] += 1
            return True
        if not self.ends_sentence(buffer[i]):
            return False
        if "\n" in self.text(buffer[i]):
            self.branches["newline"] += 1
            return True
        if i + 1 == len(buffer):
            self.branches["no next token"] += 1
            return True
        if " " in self.text(buffer[i], buffer[i + 1]):
            where = "of the rest" if i == length - 1 else "inside"
            self.branches[f"space, next token {where}"] += 1
            return True
        self.branches["sentence end without a space"] += 1
        return False

    def add(self, source, ids):
        """Append a document; returns the sequences it completes."""
        buffer = self.buffers.setdefault(source, [])
        buffer += [*map(int, ids), self.eos]
        sequences = []
        length = self.max_length - len(self.bos)
        while len(buffer) >= length:
            size = length
            for i in reversed(range(length)):
                if self.may_end(buffer, i, length):
                    size = i + 1
                    break
            else:
                self.branches["no cut found"] += 1
            sequence = self.bos + buffer[:size]
            del buffer[:size]
            if len(sequence) <= 1:
                late = len(sequences) == self.document_limit
                self.branches["one token" + (" past the limit" if late else "")] += 1
                self.dropped[source] += size
                continue
            if len(sequences) == self.document_limit:
                self.branches["document limit"] += 1
                self.cut[source] += 1
                self.dropped[source] += size + len(buffer)
                buffer.clear()
                break
            sequences.append(sequence)
        return sequences
