"The public names of the chapter `losses`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "collapse": ['alignment', 'effective_rank', 'embedding_spread', 'uniformity'],
    "infonce": ['info_nce'],
    "label_losses": ['pixel_contrast'],
    "streaming": ['BACKEND', 'BACKENDS', 'log_sum_exp_loss', 'use_backend'],
})
