"The public names of the chapter `images`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cells": ['cell_to_pixel', 'grid_size', 'labels_at_grid', 'mask_at_stride', 'pixel_to_cell'],
    "compositor": ['CopyPaste', 'CopyPasteConfig', 'compose', 'copy_paste', 'paste_mask'],
    "data": ['READERS', 'SegmentationData', 'UnlabelledData', 'data_fingerprint', 'label_subset', 'load_data', 'shared_pictures'],
    "inspection": ['contact_sheet', 'inspect_data', 'save_contact_sheet'],
    "pairs": ['CorrespondencePair', 'load_keypoint_pairs', 'load_pairs', 'load_photos', 'stereo_pair'],
    "scenes": ['SAMPLES', 'SAMPLE_SPLITS', 'SAMPLE_VERSION', 'World', 'sample_pair', 'sample_scene', 'write_samples'],
    "views": ['AUGMENTATIONS', 'View', 'ViewConfig', 'random_view', 'solarize'],
    "worlds": ['WORLDS', 'WORLD_SPLITS', 'world_card', 'world_folder'],
})
