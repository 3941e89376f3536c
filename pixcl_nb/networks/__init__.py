"The public names of the chapter `networks`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "encoders": ['ASPPBody', 'ASPPHead', 'BasicBlock', 'CheckpointReport', 'ConvEncoder', 'DenseProjector', 'FCNBody', 'FCNHead', 'LAYOUTS', 'Projector', 'SegmentationHead', 'TOKEN_FAMILIES', 'TinyResNet', 'TokenEncoder', 'best_layout', 'check_encoder_name', 'compress_state', 'conv_encoder', 'conv_norm', 'create_encoder', 'create_timm', 'expand_state', 'init_convolutions', 'init_projector', 'load_checkpoint', 'plain_state', 'projector_layers', 'read_checkpoint', 'sample_encoder', 'tensor_tables', 'token_encoder'],
    "encoding": ['encode', 'encode_images'],
    "momentum": ['BATCH_NORMS', 'KeyQueue', 'MomentumEncoder', 'SplitBatchNorm2d', 'SumOverProcesses', 'SyncBatchNorm2d', 'embed_keys', 'set_batch_norm', 'shuffled', 'shuffled_across', 'split_batch_norm'],
})
