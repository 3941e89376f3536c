"The public names of the chapter `images`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cells": ['cell_to_pixel', 'mask_at_stride', 'pixel_to_cell'],
    "compositor": ['CopyPaste', 'CopyPasteConfig', 'compose', 'copy_paste', 'paste_mask'],
    "data": ['READERS', 'SegmentationData', 'UnlabelledData', 'label_subset', 'load_data'],
    "inspection": ['DataReport', 'contact_sheet', 'count_item', 'files_by_stem', 'inspect_data', 'listed_files', 'save_contact_sheet', 'whole_data'],
    "pairs": ['CorrespondencePair', 'load_keypoint_pairs', 'load_pairs', 'load_photos', 'stereo_pair'],
    "scenes": ['SAMPLE_SPLITS', 'SAMPLE_VERSION', 'sample_pair', 'sample_scene', 'write_samples'],
    "views": ['GRAY', 'TRIES', 'View', 'ViewConfig', 'ViewParameters', 'affine_colour', 'apply_view', 'blur_image', 'blur_kernel', 'blur_matrix', 'chain_step', 'check_batch', 'check_interval', 'colour_batched', 'colour_chain', 'colour_pieces', 'distort_colour', 'draw_box', 'draw_colour', 'draw_view', 'normalisation', 'one_thread', 'random_numbers', 'random_view', 'resample_batched', 'resample_mask', 'resample_pieces', 'resize_matrix', 'shift_hue', 'size_pair', 'source_axes', 'source_axis'],
})
