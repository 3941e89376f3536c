"The public names of the chapter `widgets`."
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "base": ['PAGE', 'PixelWidget', 'STATE_LIMIT', 'check_fit', 'check_state_size', 'dequantise', 'front_end', 'page', 'picture_uri', 'plain_state', 'quantise', 'read_static', 'uri_picture'],
    "copy_paste": ['CopyPasteStudio', 'block_mask', 'named_pictures', 'object_layers'],
    "correspondence": ['CorrespondenceExplorer', 'as_layers', 'as_truth', 'disparity_truth', 'encode_layer', 'grid_truth', 'is_pair', 'pack_map', 'view_truth'],
    "embedding": ['EmbeddingExplorer', 'REACH', 'UMAP_LOCK', 'aligned_layouts', 'atlas_uri', 'cell_colours', 'cell_majority', 'cell_of_pixels', 'cell_stride', 'check_maps', 'choose_cells', 'cluster_rows', 'draw_embedding', 'id_colouring', 'lit_pictures', 'pack_colourings', 'pack_layouts', 'pca_layout', 'procrustes', 'umap_layout', 'vectors_of'],
    "monitor": ['COMMANDS', 'LogTail', 'OVER', 'PixelColours', 'RunReader', 'TrainingMonitor', 'agree', 'control', 'draw_monitor', 'follow_control', 'hear_while_busy', 'load_pictures', 'noting_signals', 'obey', 'read_json', 'row_of_pictures', 'save_pictures', 'watch_loop'],
    "separation": ['IGNORED', 'MOST_PAIRS', 'MOST_PRODUCTS', 'SeparationExplorer', 'check_foreground', 'mask_cells', 'network_map'],
})
