"""What a model gets for knowing nothing but how frequent each token is."""

import numpy as np

from data_utils.corpus import Corpus


def frequency_loss(corpus: Corpus, held_out: Corpus) -> float:
    """Held-out loss of the token frequencies of a corpus (one added to each), nats per token.

    As eval/lm.py counts: the mean over sequences of the mean over their counted labels.
    """
    counts = np.bincount(np.concatenate(corpus.sequences(np.arange(len(corpus)))))
    rows = held_out.sequences(np.arange(len(held_out)))
    size = max(len(counts), max(int(row.max()) for row in rows) + 1)
    counts = np.concatenate([counts, np.zeros(size - len(counts), int)]) + 1
    log_p = np.log(counts / counts.sum())
    means = [log_p[row[1:][row[:-1] != held_out.eos_id]] for row in rows]
    return -float(np.mean([mean.mean() for mean in means if len(mean)]))
