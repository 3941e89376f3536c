"The public names of the chapter `networks`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "encoders": ['ASPPHead', 'DenseProjector', 'FCNHead', 'Projector', 'SegmentationHead', 'create_encoder'],
    "encoding": ['encode', 'encode_images', 'in_precision'],
    "momentum": ['KeyQueue', 'MomentumEncoder', 'shuffled', 'split_batch_norm'],
    "weights": ['CheckpointReport', 'load_checkpoint', 'sample_encoder'],
})
