"The public names of the chapter `losses`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "collapse": ['alignment', 'effective_rank', 'embedding_spread', 'uniformity'],
    "infonce": ['info_nce'],
    "label_losses": ['pixel_contrast'],
    "streaming": ['BACKEND', 'BACKENDS', 'BITS', 'ClassTail', 'PairTiles', 'SAFE_LOGIT', 'StreamedContrast', 'WeightedLogSumExp', 'add_pull', 'contrast_per_pair', 'contrast_shared', 'exponentials', 'full_precision', 'fused', 'hide', 'log_sum_exp_loss', 'logit_bound', 'pair_log_sum_exp', 'panel_height', 'pull_classes', 'pull_pairs', 'push_pairs', 'seen_columns', 'sides', 'sort_by', 'stream_rows', 'streamed', 'tile_logits', 'use_backend', 'wide'],
    "triton": ['LONGEST_ROW', 'PRECISION', 'RELATIONS', 'Relation', 'block_sizes', 'column_bounds', 'jit', 'log_sum_exp_kernel', 'pair_log_sum_exp', 'push_kernel', 'push_pairs', 'seen_pairs', 'stream_rows'],
})
