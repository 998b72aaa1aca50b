"""What the paper printed (Gu et al., arXiv 2410.17215), to stand beside a reproduction."""

# The method's words here are the folders of results/.
METHODS = {"pretrain": "plain", "vanilla_kd": "vanilla KD", "miniplm": "MiniPLM"}
# FLOPs of 1 T tokens of training; ten times that for 10 T.
FLOPS_1T = {"qwen/200M": 1.26e21, "qwen/500M": 3.14e21, "qwen/1.2B": 7.30e21}
# (size, method): A_c, alpha_c and L_inf of L(C) = A_c C^-alpha_c + L_inf; L at 1 T and 10 T tokens.
SCALING = {
    ("qwen/200M", "pretrain"): (2.19e7, 0.41, 3.30, 3.35, 3.32),
    ("qwen/200M", "vanilla_kd"): (9.77e7, 0.44, 3.34, 3.39, 3.35),
    ("qwen/200M", "miniplm"): (8.56e10, 0.59, 3.25, 3.28, 3.26),
    ("qwen/500M", "pretrain"): (2.73e8, 0.45, 3.06, 3.12, 3.08),
    ("qwen/500M", "vanilla_kd"): (3.14e8, 0.45, 3.05, 3.12, 3.07),
    ("qwen/500M", "miniplm"): (6.64e9, 0.52, 3.03, 3.06, 3.04),
    ("qwen/1.2B", "pretrain"): (1.88e8, 0.43, 2.91, 2.98, 2.94),
    ("qwen/1.2B", "vanilla_kd"): (1.10e10, 0.52, 2.90, 2.95, 2.91),
    ("qwen/1.2B", "miniplm"): (4.29e8, 0.45, 2.86, 2.92, 2.88),
}
# Zero-shot averages over the nine tasks, in percent: 200M, 500M, 1.2B.
SIZES = ("qwen/200M", "qwen/500M", "qwen/1.2B")
ACCURACY = {
    "pretrain": (39.9, 43.2, 44.9),
    "vanilla_kd": (39.9, 43.6, 45.4),
    "minillm": (39.0, 41.5, 43.6),
    "seqkd": (39.7, 42.3, 44.3),
    "miniplm": (41.3, 44.8, 46.6),
    "miniplm_kd": (40.7, 44.9, 48.1),
}
# (accuracy in percent, loss on DCLM) of the other families.
FAMILIES = {
    ("llama3.1/212M", "pretrain"): (41.0, 3.52),
    ("llama3.1/212M", "seqkd"): (40.8, 3.54),
    ("llama3.1/212M", "miniplm"): (41.8, 3.43),
    ("mamba/130M", "pretrain"): (41.6, 3.24),
    ("mamba/130M", "seqkd"): (41.0, 3.27),
    ("mamba/130M", "miniplm"): (42.6, 3.15),
}
